"""The whole job, headless: its numbers, its verdicts and its edges."""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from core.analysis import (
    analyze,
    assemble,
    compare,
    measure,
    preview_temperature,
)
from core.fitting import FEW_FIT_ROWS, fit_method, unusable_reason
from core.messages import Cancelled, FitError
from core.metrics import METRICS
from core.predictions import ColumnRoles, Predictions, Study
from core.settings import Settings
from core.softmax import row_statistics, softmax
from core.splitting import make_split
from core.uncertainty import Estimate
from core.verdict import (
    FEW_ROWS,
    SampleSize,
    gap_words,
    repair_sentence,
    sample_size,
    verdict,
)

QUICK = Settings(n_resamples=100)


def draw(n=600, k=4, t=2.0, seed=0):
    rng = np.random.default_rng(seed)
    z = 1.5 * rng.normal(size=(n, k))
    p = softmax(z)
    y = (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(0, k - 1)
    return z * t, y


def study(z, y, **columns):
    table = pd.DataFrame(columns) if columns else None
    roles = ColumnRoles(**{name: name for name in columns})
    return Study(Predictions.from_arrays(z, y, metadata=table, roles=roles))


def codes(notes):
    return [note.code for note in notes]


def test_an_overconfident_model_is_found_and_repaired():
    found = analyze(
        study(*draw()), QUICK.replace(calibrators=("temperature", "isotonic"))
    )
    assert found.overview.verdict.kind == "overconfident"
    assert list(found.fitted) == ["temperature", "isotonic"]
    fitted = found.fitted["temperature"]
    low, high = fitted.calibrator.interval()
    assert low < 2 < high
    comparison = found.comparison
    order = [name for name, _, _ in comparison.ranking]
    assert order[0] == "temperature"
    assert set(order) == {"temperature", "isotonic", "uncalibrated"}
    assert comparison.ranking[0][2].value == 0
    nll = [estimate.value for _, estimate, _ in comparison.ranking]
    assert nll == sorted(nll)
    change = comparison.changes["top-label"]["temperature"]
    assert change["nll"].high < 0
    assert change["accuracy"].value == change["accuracy"].low == 0
    assert found.repair.startswith("Dividing the logits by T = ")
    for views in comparison.views.values():
        for result in views.values():
            assert {e.rows for e in result.estimates.values()} == {"cross-fitted"}
    assert {e.rows for e in found.overview.views["top-label"].estimates.values()} == {
        "all"
    }


def test_the_document_is_json_and_does_not_depend_on_the_run():
    z, y = draw()
    texts = [
        json.dumps(analyze(study(z, y), QUICK).to_dict(), allow_nan=False)
        for _ in range(2)
    ]
    assert texts[0] == texts[1]
    document = json.loads(texts[0])
    assert document["n_labelled"] == 600
    assert document["settings"] == json.loads(json.dumps(QUICK.to_dict()))
    row = next(r for r in document["calibrators"] if r["method"] == "temperature")
    assert len(row["refits"]) == 5
    assert row["parameters"]["temperature"] > 1


def test_cross_fitted_rows_are_those_of_their_round():
    z, y = draw()
    found = analyze(study(z, y), QUICK)
    split = found.overview.split
    fitted = found.fitted["temperature"]
    for item, calibrator in zip(split.rounds, fitted.rounds, strict=True):
        direct = row_statistics(
            z[item.test], y[item.test], temperature=calibrator.temperature_
        )
        np.testing.assert_array_equal(
            fitted.rows.take(item.test).confidence, direct.confidence
        )
    nll = found.comparison.views["top-label"]["temperature"].estimates["nll"]
    assert nll.value == pytest.approx(-fitted.rows.label_log_probability.mean())


def test_many_fit_rows_are_not_refitted():
    z, y = draw(FEW_FIT_ROWS, k=2)
    found = fit_method(study(z, y), QUICK, "temperature")
    assert found.refits == ()
    assert found.refit_range == {}


def test_the_range_over_refits_is_from_the_least_to_the_greatest():
    found = fit_method(study(*draw()), QUICK, "isotonic")
    assert len(found.refits) == 5
    for metric, (low, high) in found.refit_range.items():
        values = sorted(getattr(item, metric) for item in found.refits)
        assert (low, high) == (values[0], values[-1])
        assert low < high
    assert set(found.refit_range) == {"nll", "gap"}


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("split", ["cross-fit", "holdout"])
def test_other_bins_and_levels_go_on_from_what_is_known(k, split):
    given = study(*draw(k=k))
    chosen = QUICK.replace(calibrators=("temperature",), split=split)
    first = analyze(given, chosen)
    for changed in ({"n_bins": 7, "strategy": "quantile"}, {"level": 0.8}):
        other = chosen.replace(**changed)
        again = analyze(
            given,
            other,
            measured=lambda own, now, told: measure(own, now, told, first.overview),
            fitted=lambda *_: first.fitted["temperature"],
            known=first,
        )
        assert again.to_dict() == analyze(given, other).to_dict()


def test_two_classes_have_two_views():
    z, y = draw(k=2)
    own = Predictions.from_arrays(z, y, classes=("no", "yes"))
    plain = measure(Study(own), QUICK)
    assert list(plain.views) == ["top-label", "positive-class"]
    positive = plain.views["positive-class"].estimates
    assert set(positive) == {"gap", "ece", "l2"}
    p = softmax(z)[:, 1]
    assert positive["gap"].value == pytest.approx(p.mean() - y.mean())
    other = measure(Study(own), QUICK.replace(positive_class="no"))
    assert other.views["positive-class"].estimates["gap"].value == pytest.approx(
        y.mean() - p.mean()
    )


def test_unlabelled_rows_are_kept_and_not_counted():
    z, y = draw()
    y = y.copy()
    y[:100] = -1
    found = analyze(study(z, y), QUICK)
    rest = analyze(study(z[100:], y[100:]), QUICK)
    assert len(found.overview.rows) == 600
    assert found.overview.used.size == 500
    for name, estimate in found.overview.views["top-label"].estimates.items():
        same = rest.overview.views["top-label"].estimates[name]
        assert estimate.to_dict() == same.to_dict()


def test_no_labels_no_verdict():
    z, _ = draw(30)
    for labels in (None, np.full(30, -1)):
        found = analyze(study(z, labels), QUICK)
        assert found.overview.verdict.kind == "no-labels"
        assert found.overview.views == {}
        assert found.comparison is None
        json.dumps(found.to_dict(), allow_nan=False)
        with pytest.raises(FitError):
            preview_temperature(study(z, labels), QUICK, found.overview, 2.0)


def test_confidence_files_have_numbers_and_no_calibrator():
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.5, 1, 400)
    own = Predictions.from_arrays(
        input_kind="confidence", confidence=confidence, correct=rng.random(400) < 0.6
    )
    found = analyze(Study(own), QUICK)
    assert set(found.overview.views["top-label"].estimates) == {
        "accuracy",
        "gap",
        "auroc",
        "aurc",
        "ece",
        "l2",
    }
    assert found.fitted == {}
    assert "not-fitted" in codes(found.notes)
    assert "every class" in unusable_reason(Study(own), "temperature")


def test_weights_of_zero_are_rows_left_out():
    z, y = draw()
    weight = (np.arange(600) >= 100) * 2.0
    found = analyze(study(z, y, weight=weight), QUICK)
    rest = analyze(study(z[100:], y[100:], weight=weight[100:]), QUICK)
    for name, estimate in found.overview.views["top-label"].estimates.items():
        same = rest.overview.views["top-label"].estimates[name]
        assert estimate.value == pytest.approx(same.value, rel=1e-12)
    few = np.zeros(600)
    few[:5] = 0.5
    assert analyze(study(z, y, weight=few), QUICK).overview.verdict.kind == "too-few"


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("k", [2, 5])
def test_a_few_rows_are_too_few(n, k):
    z, y = draw(n, k, seed=n)
    settings = QUICK.replace(calibrators=("temperature", "isotonic"))
    found = analyze(study(z, y), settings)
    assert found.overview.verdict.kind == "too-few"
    if n == 1:
        assert "no-split" in codes(found.notes)
        assert found.overview.views["top-label"].estimates["nll"].low is None
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("case", ["right", "wrong", "one class", "constant", "ties"])
def test_extreme_files_have_an_analysis(case):
    z, y = draw(300)
    if case == "right":
        y = z.argmax(axis=1)
    elif case == "wrong":
        y = z.argmin(axis=1)
    elif case == "one class":
        y = np.zeros(300, int)
    elif case == "constant":
        z = np.tile([3.0, 0.0, 0.0, 0.0], (300, 1))
    else:
        z = np.round(z / 4) * 4
    settings = QUICK.replace(calibrators=("temperature", "isotonic"))
    found = analyze(study(z, y), settings)
    json.dumps(found.to_dict(), allow_nan=False)
    assert found.comparison is not None
    if case == "one class":
        assert "one-class" in codes(found.notes)
    if case == "right":
        assert "fit-at-bound" in codes(found.notes)
        assert "looks-like-training-rows" in codes(found.notes)


def test_a_thousand_classes():
    rng = np.random.default_rng(2)
    z, y = rng.normal(size=(300, 1000)), rng.integers(0, 1000, 300)
    found = analyze(study(z, y), QUICK)
    assert "temperature" in found.fitted


def test_tiny_groups_and_few_groups():
    z, y = draw()
    tiny = analyze(study(z, y, group=np.arange(600) // 2), QUICK)
    assert tiny.overview.verdict.kind == "overconfident"
    few = analyze(study(z, y, group=np.arange(600) // 200), QUICK)
    gap = few.overview.views["top-label"].estimates["gap"]
    assert "few-groups" in codes(gap.notes)
    one = analyze(study(z, y, group=np.zeros(600, int)), QUICK)
    assert one.overview.verdict.kind == "too-few"
    assert "no-split" in codes(one.notes)
    assert one.comparison is None


def test_unknown_methods_and_options_are_notes():
    settings = QUICK.replace(
        calibrators=("no-such", "ts", "temperature", "none"),
        options=(("temperature", "speed", 3),),
    )
    found = analyze(study(*draw()), settings)
    assert found.fitted == {}
    texts = " ".join(note.text for note in found.notes if note.code == "not-fitted")
    assert "no calibrator called 'no-such'" in texts
    assert "no option 'speed'" in texts
    plain = analyze(study(*draw()), QUICK.replace(calibrators=("ts", "temperature")))
    assert list(plain.fitted) == ["temperature"]


def test_an_infinite_loss_is_said():
    z, y = draw()
    z[np.arange(3), y[:3]] = -np.inf
    found = analyze(study(z, y), QUICK)
    nll = found.overview.views["top-label"].estimates["nll"]
    assert nll.value == math.inf
    assert nll.low is None
    assert codes(nll.notes) == ["impossible-label"]
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_temperature_by_hand_is_badged():
    given = study(*draw())
    overview = measure(given, QUICK)
    found = preview_temperature(given, QUICK, overview, 2.0)
    by_hand = found.estimates
    assert {e.rows for e in by_hand.values()} == {"in-sample"}
    assert all(codes(e.notes) == ["tuned-on-test"] for e in by_hand.values())
    assert all(e.low is None for e in by_hand.values())
    z, y = draw()
    expected = METRICS["nll"](y, softmax(z / 2))
    assert by_hand["nll"].value == pytest.approx(expected, rel=1e-12)
    expected = METRICS["ece"](y, softmax(z / 2))
    assert by_hand["ece"].value == pytest.approx(expected, abs=1e-12)


def whole_jobs():
    """Every function that takes progress, on a study of its own."""
    given = study(*draw())
    two = study(*draw(k=2))
    overview = measure(given, QUICK)
    both = QUICK.replace(calibrators=("temperature", "isotonic"))
    fits = {"temperature": fit_method(given, QUICK, "temperature")}
    halves = study(*draw(), split=np.array(["fit", "test"])[np.arange(600) % 2])
    return {
        "measure": lambda report: measure(given, QUICK, report),
        "measure two views": lambda report: measure(two, QUICK, report),
        "compare": lambda report: compare(given, QUICK, overview, fits, report),
        "assemble": lambda report: assemble(
            given, QUICK, overview, fits, progress=report
        ),
        "analyze": lambda report: analyze(given, both, report),
        "analyze halves": lambda report: analyze(halves, both, report),
    }


@pytest.mark.parametrize("job", list(whole_jobs()))
def test_progress_rises_and_every_report_can_stop_the_work(job):
    work = whole_jobs()[job]
    seen = []
    work(lambda share, message: seen.append((share, message)))
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert 0 <= shares[0] < shares[-1] <= 1
    assert all(message for _, message in seen)
    for last in {1, len(seen) // 2, len(seen)}:
        left = iter(range(last - 1))

        def stop(_share, _message, left=left):
            if next(left, None) is None:
                raise Cancelled

        with pytest.raises(Cancelled):
            work(stop)


@pytest.mark.slow
@pytest.mark.jit
def test_a_large_job_reports_often_and_its_bar_tells_the_time():
    # Of this thread's own time, so that a busy machine does not matter.
    settings = Settings(calibrators=("temperature", "isotonic"))
    analyze(study(*draw(500, 3)), settings)
    given = study(*draw(100_000, 3))
    clock = time.thread_time
    seen = [(clock(), 0.0)]
    analyze(given, settings, lambda share, _: seen.append((clock(), share)))
    seen.append((clock(), 1.0))
    times, shares = np.array(seen).T
    assert np.diff(times).max() < 0.5
    assert len(np.unique(shares)) > 50
    elapsed = (times - times[0]) / (times[-1] - times[0])
    assert np.abs(elapsed - shares).max() < 0.3


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_comparison_that_goes_on_with_the_resamples_gives_the_same(
    k, grouped, weighted
):
    rng = np.random.default_rng(5)
    columns = {}
    if grouped:
        columns["group"] = np.arange(600) // 3
    if weighted:
        columns["weight"] = rng.gamma(2, size=600)
    given = study(*draw(k=k), **columns)
    overview = measure(given, QUICK)
    fits = {
        name: fit_method(given, QUICK, name) for name in ("temperature", "isotonic")
    }
    alone = replace(overview, samples={})
    documents = [
        assemble(given, QUICK, item, fits).to_dict() for item in (overview, alone)
    ]
    assert documents[0] == documents[1]
    # Other settings than those that were measured with use nothing of it.
    other = QUICK.replace(seed=3)
    assert (
        assemble(given, other, overview, fits).to_dict()["calibrators"]
        == assemble(given, other, alone, fits).to_dict()["calibrators"]
    )


def test_a_fixed_split_counts_its_rows_once():
    z, y = draw()
    names = np.array(["fit", "threshold", "test", "train"])[np.arange(600) % 4]
    given = study(z, y, split=names)
    found = analyze(given, QUICK)
    assert found.overview.used.size == 450
    top = found.comparison.views["top-label"]["temperature"].estimates["nll"]
    assert (top.n, top.rows) == (150, "test")
    _, ranked, _ = found.comparison.ranking[0]
    assert (ranked.n, ranked.rows) == (150, "cross-fitted")
    fit = make_split(given, QUICK).fit
    direct = fit_method(given, QUICK, "temperature").calibrator
    assert direct.nll_after_ == pytest.approx(
        METRICS["nll"](y[fit], softmax(z[fit], temperature=direct.temperature_)),
        rel=1e-9,
    )


# ------------------------------------------------------------------- verdict


def estimate(value, half=None, **more):
    ends = {} if half is None else {"low": value - half, "high": value + half}
    return Estimate(value, **ends, **more)


@pytest.mark.parametrize(
    ("gap", "half", "p_value", "n", "kind"),
    [
        (0.05, 0.01, 0.001, 1000, "overconfident"),
        (-0.05, 0.01, 0.001, 1000, "underconfident"),
        (0.001, 0.01, 0.001, 1000, "uneven"),
        (0.001, 0.01, 0.4, 1000, "calibrated"),
        (0.05, 0.01, 0.001, 199, "too-few"),
        (0.05, None, 0.001, 1, "too-few"),
    ],
)
def test_verdicts(gap, half, p_value, n, kind):
    said = verdict(
        estimate(0.8, 0.01),
        estimate(gap, half),
        estimate(0.05, p_value=p_value, null_low=0.01, null_high=0.03),
        SampleSize(n, float(n)),
    )
    assert said.kind == kind
    assert said.to_dict()["headline"].endswith(".")
    if kind == "too-few":
        assert "rows would do" in said.sentence


def residuals(n, seed=0):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.5, 1, n)
    return confidence - (rng.random(n) < confidence)


@pytest.mark.parametrize("n", [1, 2, 50, 150, 199, 200, 201, 5000])
def test_independent_rows_count_as_they_are(n):
    size = sample_size(residuals(n))
    assert size.n_effective == n
    assert size.is_enough == (n >= FEW_ROWS)
    assert size.n_needed == FEW_ROWS
    assert size.advice == "About 200 rows would do."
    # Equal weights say nothing, and neither do groups of one row.
    assert sample_size(residuals(n), np.full(n, 0.1)).n_effective == n
    if n > 1:
        alone = sample_size(residuals(n), groups=np.arange(n))
        assert alone.n_effective == pytest.approx(n)
        assert alone.is_enough == (n >= FEW_ROWS)


KINDS = {
    "weights": {"weights": True},
    "weights and pairs": {"weights": True, "size": 2},
    "pairs": {"size": 2},
    "groups of ten": {"size": 10},
    "groups of ten, alike": {"size": 10, "shared": 1.0},
    "groups of a hundred": {"size": 100, "shared": 0.3},
    "groups of a hundred, alike": {"size": 100, "shared": 1.0},
    "ten groups of forty, all right": {"size": 40, "few_outcomes": True},
}


def rows_of_a_kind(n, seed=0, *, weights=False, size=1, shared=0.0, few_outcomes=False):
    """Return residuals, weights and groups, and whether outcomes are nearly alike."""
    rng = np.random.default_rng(seed)
    groups = np.arange(n) // size
    own = rng.normal(size=n)
    common = rng.normal(size=n)[groups]
    residual = math.sqrt(shared) * common + math.sqrt(1 - shared) * own
    return {
        "residual": residual,
        "sample_weight": rng.gamma(1, size=n) if weights else None,
        "groups": groups if size > 1 else None,
        "few_outcomes": few_outcomes,
    }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n", [200, 400])
@pytest.mark.parametrize("kind", list(KINDS))
def test_the_rows_asked_for_lift_the_verdict(kind, n, seed):
    given = rows_of_a_kind(n, seed, **KINDS[kind])
    size = sample_size(**given)
    assert size.n_effective <= n
    if size.is_enough:
        return
    assert size.n_needed > n
    # The same rows again and again, in new groups, until they are as many.
    times = math.ceil(size.n_needed / n)
    width = KINDS[kind].get("size", 1)
    more = {
        key: np.tile(value, times)[: size.n_needed]
        for key, value in given.items()
        if isinstance(value, np.ndarray)
    }
    if given["groups"] is not None:
        more["groups"] = np.arange(size.n_needed) // width
    again = sample_size(**{**given, **more})
    assert again.n_effective >= FEW_ROWS * 0.9  # the last repetition is cut
    words = "in groups like these" if width > 1 else "with weights like these"
    assert words in size.advice
    if width > 1:
        n_groups = int(size.advice.split("(")[1].split()[0].replace(",", ""))
        assert n_groups == math.ceil(size.n_needed / width)


def test_groups_count_less_the_more_alike_and_the_fewer_they_are():
    found = [
        sample_size(**rows_of_a_kind(4000, shared=shared, size=20)).n_effective
        for shared in (0.0, 0.2, 0.5, 1.0)
    ]
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(200, rel=0.05)  # as many as there are groups
    # Two groups tell little, however many rows they have and however close they are.
    twins = np.tile(residuals(5000), 2)
    two = sample_size(twins, groups=np.arange(10_000) // 5000)
    assert two.n_effective < 300
    assert sample_size(twins, groups=np.arange(10_000) // 50).n_effective > 5000


@pytest.mark.parametrize("n", [1, 400, 5000])
def test_one_group_needs_more_groups(n):
    size = sample_size(residuals(n), groups=np.zeros(n, int))
    assert not size.is_enough
    assert size.n_needed is None
    assert "more groups are needed" in size.advice
    z, y = draw(400)
    said = measure(study(z, y, group=np.zeros(400, int)), QUICK).verdict
    assert said.kind == "too-few"
    assert "more groups are needed" in said.sentence


@pytest.mark.parametrize(("n", "kind"), [(199, "too-few"), (200, "overconfident")])
def test_exactly_two_hundred_rows_are_enough(n, kind):
    for seed in range(5):
        z, y = draw(n, t=3.0, seed=seed)
        assert measure(study(z, y), QUICK).verdict.kind == kind


@pytest.mark.parametrize("seed", range(5))
def test_the_parts_of_the_headline_agree_with_the_gap_beside_them(seed):
    rng = np.random.default_rng(seed)
    for accuracy, gap in rng.uniform([0.5, -0.1], [0.8, 0.2], (200, 2)):
        given = estimate(accuracy), estimate(gap, 0.01), estimate(0.05, p_value=0.5)
        said = verdict(*given, SampleSize(1000, 1000.0)).sentence
        numbers = re.findall(r"[\d.]+\d", said.replace("\N{MINUS SIGN}", "-"))
        first, second, third = (float(item) for item in numbers[:3])
        assert abs(first - second) == pytest.approx(third, abs=1e-9), said
        assert third == pytest.approx(abs(100 * gap), abs=0.051)
        assert first == pytest.approx(100 * (accuracy + gap), abs=0.051)
        assert max(len(item.partition(".")[2]) for item in numbers[:3]) <= 2


def test_intervals_are_printed_by_their_ends_and_never_as_nothing():
    assert gap_words(Estimate(0.11, 0.094, 0.126)) == "gap 11.0 points, 9.4 to 12.6"
    words = gap_words(Estimate(0.0011, -0.0003, 0.0021))
    assert words == "gap 0.1 points, \N{MINUS SIGN}0.03 to 0.21"
    assert gap_words(Estimate(0.1, 0.0, 0.2)) == "gap 10.0 points, 0.0 to 20.0"
    assert gap_words(Estimate(0.1)) == "gap 10.0 points"


@pytest.mark.parametrize(
    ("change", "after", "words"),
    [
        (estimate(0.1, 0.05), estimate(0.0, 0.01), "worse"),
        (estimate(0.0, 0.05), estimate(0.0, 0.01), "no detectable difference"),
        (estimate(-0.1, 0.05), estimate(0.0, 0.01), "removes the gap on average"),
        (estimate(-0.1, 0.05), estimate(0.05, 0.01), "leaves a gap"),
    ],
)
def test_repairs(change, after, words):
    assert words in repair_sentence(2.0, "logits", after, {"nll": change})
    assert "log-probabilities" in repair_sentence(
        2.0, "probabilities", after, {"nll": change}
    )
