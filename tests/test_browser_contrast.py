"""Every word on a page is read easily: contrasts of WCAG 2.2, from computed styles."""

from __future__ import annotations

import pytest
from browser_server import Visitor
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group(__name__)]

PAGES = ("Reliability", "Calibrators", "Decisions")

# Words on the colours that lie under them; 4.5, or 3 where they are large. What cannot
# be used is exempt, and what lies on a picture or a gradient is not seen.
_TOO_FAINT = """() => {
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = 1;
    const pixel = canvas.getContext('2d', {willReadFrequently: true});
    const rgba = text => {
        pixel.clearRect(0, 0, 1, 1);
        pixel.fillStyle = text;
        pixel.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = pixel.getImageData(0, 0, 1, 1).data;
        return [r, g, b, a / 255];
    };
    const over = (top, under) =>
        [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3]));
    const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const light = c => {
        const [r, g, b] = c.map(v => linear(v / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
    };
    const unused = 'script, style, noscript, [disabled], [aria-disabled=true],'
        + ' .katex-mathml';
    const seen = {visibilityProperty: true, opacityProperty: true};
    const faults = new Set();
    const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (words.nextNode()) {
        const said = words.currentNode.nodeValue.trim();
        const e = words.currentNode.parentElement;
        if (!said || !e.checkVisibility(seen) || e.closest(unused)) continue;
        if (e.getBoundingClientRect().width < 2) continue;
        const style = getComputedStyle(e);
        const above = [];
        for (let x = e; x; x = x.parentElement) above.push(getComputedStyle(x));
        const under = above.reduceRight(
            (back, each) => over(rgba(each.backgroundColor), back), [255, 255, 255]);
        const ink = rgba(e.closest('svg') ? style.fill : style.color);
        ink[3] *= above.reduce((product, each) => product * Number(each.opacity), 1);
        const both = [light(over(ink, under)), light(under)].sort((a, b) => b - a);
        const size = parseFloat(style.fontSize);
        const isLarge = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
        const ratio = both[0] / both[1];
        if (ratio < (isLarge ? 3 : 4.5)) faults.add(`${ratio.toFixed(2)} ${said}`);
    }
    return [...faults];
}"""


def too_faint(visitor: Visitor) -> list[str]:
    """Return the words of a page whose contrast is too low, with their ratio."""
    found: list[str] = visitor.page.evaluate(_TOO_FAINT)
    return found


def test_words_have_contrast_in_both_themes(visitor) -> None:
    v = visitor
    for title in PAGES:
        v.go(title)
        v.charts()
        for theme in ("light", "dark"):
            v.page.emulate_media(color_scheme=theme)
            expect(v.page.get_by_test_id("stApp")).to_have_css("color-scheme", theme)
            v.settle()
            assert too_faint(v) == [], (title, theme)
    faint = "Too faint to read"
    v.page.get_by_role("heading").first.evaluate(
        f"e => {{ e.textContent = '{faint}'; e.style.opacity = 0.4;"
        " e.style.fontSize = '16px' }"
    )
    assert any(faint in line for line in too_faint(v))  # the measure measures
