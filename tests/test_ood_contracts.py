"""What every registered detector promises, whatever it measures."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ood_cases import D, K, network, of_features, rows, strangers

from core import softmax as softmax_module
from core.calibrators import CALIBRATORS
from core.messages import Cancelled, DataError, FitError
from core.ood import DETECTORS, Detector, default_panel, score_all
from core.ood.rows import Rows
from core.ood.storage import from_json, to_json
from core.predictions import Predictions

COMBINED = {"rank-average", "logistic-combination"}
EVERY = list(DETECTORS)
every = pytest.mark.parametrize("method", EVERY)
PANEL = {
    *("max-softmax", "temperature-softmax", "gen", "energy", "relative-mahalanobis"),
    *("relative-mahalanobis-normalised", "knn", "vim", "fdbd", "scale"),
}


def fitted(method: str, own: Predictions | None = None, **options: Any) -> Detector:
    made: Detector = DETECTORS[method](**options)
    return made.fit(rows() if own is None else own, head=network())


def same(found: Any, expected: Any) -> None:
    """Compare nested dictionaries with arrays in them, exactly."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            same(found[key], value)
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, two in zip(found, expected, strict=True):
            same(one, two)
    else:
        assert found == expected


@every
def test_every_entry_says_what_it_is(method: str) -> None:
    entry = DETECTORS[method]
    assert entry.id == method == method.lower()
    assert 0 < len(entry.summary) <= 100
    assert entry.summary.endswith(".")
    assert entry.label
    assert entry.reference
    assert entry.formula
    assert entry.tier in ("default", "more")
    assert entry.requires <= {"logits", "features", "labels", "head"}
    assert entry.assumes.endswith(".")
    assert entry.fits_on in ("nothing", "reference", "held-out")
    assert method not in CALIBRATORS  # options name either by its id
    signature = inspect.signature(entry.target).parameters
    for param in entry.params:
        assert signature[param.name].default == param.default
        assert param.validate(param.default) == param.default
        assert param.help.endswith(".")
    for alias in entry.aliases:
        assert DETECTORS[alias] is entry


def test_the_panel() -> None:
    assert set(default_panel()) == PANEL


@every
def test_scores_are_one_number_per_row(method: str) -> None:
    made, new = fitted(method), rows(50, seed=1)
    score = made.score(new)
    assert score.shape == (50,)
    assert score.dtype == np.float64
    assert np.isfinite(score).all()
    np.testing.assert_allclose(fitted(method).score(new), score, rtol=1e-12)
    # A row's score does not depend on the rows beside it.
    h = np.asarray(new.features)[:7]
    np.testing.assert_allclose(made.score(of_features(h)), score[:7], rtol=1e-9)


@every
def test_to_dict_and_back_is_exact(method: str) -> None:
    made, new = fitted(method, rows(dtype=np.float32)), strangers(dtype=np.float32)
    document = made.to_dict()
    text = to_json(document)
    for values in (document, from_json(text)):
        again = Detector.from_dict(values)
        assert type(again) is type(made)
        np.testing.assert_array_equal(again.score(new), made.score(new))
        same(again.to_dict(), document)
    assert to_json(Detector.from_dict(from_json(text)).to_dict()) == text


@every
def test_lists_in_place_of_arrays_will_do(method: str) -> None:
    def as_lists(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: as_lists(item) for key, item in value.items()}
        if isinstance(value, list):
            return [as_lists(item) for item in value]
        return value.tolist() if isinstance(value, np.ndarray) else value

    made, new = fitted(method), strangers()
    again = Detector.from_dict(as_lists(made.to_dict()))
    np.testing.assert_array_equal(again.score(new), made.score(new))


@every
def test_float32_scores_like_float64(method: str) -> None:
    new = rows(60, seed=1)
    double = fitted(method).score(new)
    single = fitted(method, rows(dtype=np.float32)).score(rows(60, 1, np.float32))
    spread = np.std(double)
    close = np.abs(single - double) <= 2e-3 * spread + 1e-6 * np.abs(double)
    assert close.mean() > 0.95


@every
def test_the_input_is_not_changed(method: str) -> None:
    own = rows(80)
    before = own.fingerprint, np.asarray(own.features).copy(), own.logits.copy()
    fitted(method, own).score(own)
    np.testing.assert_array_equal(own.features, before[1])
    np.testing.assert_array_equal(own.logits, before[2])


@every
def test_rows_marked_as_strangers_or_unlabelled_fit_nothing(method: str) -> None:
    own, odd = rows(120), strangers(40)
    h = np.vstack([own.features, odd.features])
    labels = np.append(own.labels, np.full(40, -1))
    is_ood = np.arange(160) >= 120
    mixed = of_features(h, labels, is_ood=is_ood)
    new = rows(30, seed=3)
    found, expected = fitted(method, mixed), fitted(method, own)
    np.testing.assert_allclose(found.score(new), expected.score(new), rtol=1e-9)
    assert "ood-in-reference" in [note.code for note in found.notes_]


@every
def test_what_is_required_is_asked_for(method: str) -> None:
    entry, own = DETECTORS[method], rows(60)
    lacking = {
        "logits": Predictions.from_arrays(
            None, own.labels, input_kind="features", features=own.features
        ),
        "features": replace(own, features=None),
        "labels": replace(own, labels=None),
        "head": own,
    }
    for name in sorted(entry.requires):
        head = None if name == "head" else network()
        with pytest.raises(FitError):
            entry().fit(lacking[name], head=head)
        reason = entry.target.unusable_reason(lacking[name], has_head=head is not None)
        assert reason
    enough = Predictions.from_arrays(
        own.logits if "logits" in entry.requires else None,
        own.labels if "labels" in entry.requires else None,
        input_kind="logits" if "logits" in entry.requires else "features",
        features=own.features,
        classes=own.classes,
    )
    if entry.requires:
        head = network() if "head" in entry.requires else None
        assert np.isfinite(entry().fit(enough, head=head).score(enough)).all()


@every
def test_rows_of_another_shape_are_refused(method: str) -> None:
    made, rng = fitted(method), np.random.default_rng(0)
    wide = Predictions.from_arrays(
        rng.normal(size=(9, K)), features=rng.random((9, D + 1))
    )
    more = Predictions.from_arrays(
        rng.normal(size=(9, K + 1)), features=rng.random((9, D))
    )
    if made.layers_:
        with pytest.raises(DataError, match=f"has {D + 1} features"):
            made.score(wide)
    if "logits" in made.requires:
        with pytest.raises(DataError, match="classes"):
            made.score(more)


@every
def test_nothing_is_scored_before_the_fit(method: str) -> None:
    made = DETECTORS[method]()
    if DETECTORS[method].fits_on == "nothing":
        assert made.score(rows(5)).shape == (5,)
    else:
        with pytest.raises(FitError, match="not fitted"):
            made.score(rows(5))


def test_several_detectors_in_one_trip() -> None:
    new = rows(40, seed=5)
    made = {name: fitted(name) for name in ("energy", "knn", "mahalanobis")}
    found = score_all(made, new)
    for name, detector in made.items():
        np.testing.assert_array_equal(found[name], detector.score(new))


def test_all_logit_scores_are_three_trips_of_kernels_over_the_logits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(3000, 100)).astype(np.float32)
    own = Predictions.from_arrays(z, rng.integers(0, 100, 3000))
    names = [n for n, m in DETECTORS.items() if m.requires <= {"logits", "labels"}]
    made = {n: DETECTORS[n]().fit(own) for n in names if n not in COMBINED}
    assert len(made) == 12
    trips = []
    run = softmax_module._run

    def counting(kernel: Any, logits: Any, *rest: Any, **options: Any) -> None:
        if logits.shape[1] == 100:
            trips.append((kernel.__name__, len(logits)))
        run(kernel, logits, *rest, **options)

    monkeypatch.setattr(softmax_module, "_run", counting)
    score_all(made, own)
    assert sum(n for _, n in trips) == 3 * 3000
    # Statistics at T = 1 and at the fitted T, and the probabilities of KL matching.
    assert {name for name, _ in trips} == {"_statistics_kernel", "_softmax_kernel"}


def test_blocks_keep_the_logits_in_the_cache() -> None:
    own = Predictions.from_arrays(np.zeros((20_000, 300), np.float32))
    sizes = [block.logits.nbytes for block in Rows(own).blocks()]
    assert len(sizes) > 2
    assert sum(sizes) == own.logits.nbytes
    assert max(sizes) <= 1 << 23
    with_features = replace(own, features=np.zeros((20_000, 30), np.float32))
    blocks = list(Rows(with_features).blocks(reads=frozenset({"features"})))
    assert len(blocks) == 1  # nobody reads the logits: they take no room


def test_progress_may_stop_a_fit_and_a_score() -> None:
    def stop(_: float, __: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        DETECTORS["mahalanobis"]().fit(rows(), progress=stop)
    with pytest.raises(Cancelled):
        fitted("energy").score(rows(), progress=stop)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"method": "energy"}', '{"method": "no-such"}', "3"],
)
def test_other_files_are_no_detectors(text: str) -> None:
    with pytest.raises(DataError, match="not a detector"):
        Detector.from_dict(from_json(text))
