"""What can be seen of a page by a script: contrast, names, headings, overlaps."""

from __future__ import annotations

from browser_server import Visitor

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

# Everything that can be operated or read, and what it is called; empty is a fault.
_NAMELESS = """() => {
    const folded = [...document.querySelectorAll('details:not([open])')];
    for (const e of folded) e.open = true;
    const seen = e => e.checkVisibility();
    const name = e => (e.getAttribute('aria-label') || '').trim()
        || (e.getAttribute('aria-labelledby') || '').split(' ')
            .map(id => document.getElementById(id)?.innerText || '').join('').trim()
        || (e.labels ? [...e.labels].map(l => l.innerText).join('').trim() : '')
        || (e.innerText || '').trim() || (e.getAttribute('title') || '').trim()
        || (e.getAttribute('alt') || '').trim()
        || (e.dataset.testid === 'stDataFrame'
            && e.querySelector('[role=region][aria-label]'));
    const kinds = 'button, a[href], input:not([type=hidden]):not([type=file]), select,'
        + ' textarea, img:not([alt=""]), [role=figure], [role=slider],'
        + ' [data-testid=stPlotlyChart], [data-testid=stDataFrame],'
        + ' [data-testid=stTable]';
    const faults = [...document.querySelectorAll(kinds)]
        .filter(e => seen(e) && !e.closest('[aria-hidden=true]') && !name(e))
        .map(e => e.outerHTML.slice(0, 200));
    for (const e of folded) e.open = false;
    return faults;
}"""
_HEADINGS = """() => [...document.querySelectorAll('h1, h2, h3, h4, h5, h6')]
    .filter(e => e.getClientRects().length).map(e => Number(e.tagName[1]))"""

# Buttons that lie over the data or the legend of their figure, and hidden ones.
_IN_THE_WAY = """() => {
    const charts = [...document.querySelectorAll('.js-plotly-plot')];
    return charts.flatMap(chart => {
        const button = chart.querySelector('.modebar-btn[data-title^="Download"]');
        if (getComputedStyle(button.parentElement).opacity !== '1') return ['hidden'];
        const a = button.getBoundingClientRect();
        const others = [...chart.querySelectorAll('.nsewdrag, .legendtext')];
        return others.filter(e => {
            const b = e.getBoundingClientRect();
            return a.left < b.right && b.left < a.right
                && a.top < b.bottom && b.top < a.bottom;
        }).map(e => e.getAttribute('class'));
    });
}"""


def too_faint(visitor: Visitor) -> list[str]:
    """Return the words of a page whose contrast is too low, with their ratio.

    Contrasts are those of WCAG 2.2, from computed styles.
    """
    found: list[str] = visitor.page.evaluate(_TOO_FAINT)
    return found


def nameless(visitor: Visitor) -> list[str]:
    """Return what can be operated or read and is called nothing."""
    found: list[str] = visitor.page.evaluate(_NAMELESS)
    return found


def headings(visitor: Visitor) -> list[int]:
    """Return the levels of the headings, from the top."""
    found: list[int] = visitor.page.evaluate(_HEADINGS)
    return found


def in_the_way(visitor: Visitor) -> list[str]:
    """Return what the picture buttons lie over, and the hidden ones."""
    found: list[str] = visitor.page.evaluate(_IN_THE_WAY)
    return found
