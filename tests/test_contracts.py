"""Contracts of every registered method, and the proof that no fit reads other rows."""

from __future__ import annotations

import inspect
import json
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from core.analysis import analyze, rows_of, scores_of
from core.calibrators import CALIBRATORS, Calibrator, neg_log_loss_scorer
from core.fitting import fit_method
from core.metrics import CURVES, METRICS, Sample, estimates
from core.predictions import ColumnRoles, Predictions, Study
from core.settings import Settings
from core.softmax import log_softmax, softmax
from core.splitting import make_split

METHODS = list(CALIBRATORS)


def draw(n=200, k=4, seed=0, t=2.0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    z = 1.5 * rng.normal(size=(n, k))
    p = softmax(z)
    y = (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(0, k - 1)
    return (z * t).astype(dtype), y


# ---------------------------------------------------------------- every entry


@pytest.mark.parametrize(
    "registry", [CALIBRATORS, METRICS, CURVES], ids=lambda r: r.family
)
def test_every_entry_says_what_it_is(registry):
    for name, method in registry.items():
        assert name == method.id
        assert method.id == method.id.lower()
        assert 0 < len(method.summary) <= 100
        assert method.summary.endswith(".")
        assert method.label
        assert method.reference
        assert method.formula
        assert method.tier in ("default", "more")
        for alias in method.aliases:
            assert registry[alias] is method
        signature = inspect.signature(method.target).parameters
        for param in method.params:
            assert signature[param.name].default == param.default
            assert param.validate(param.default) == param.default
            assert param.help.endswith(".")


# --------------------------------------------------------------------- metrics


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("metric", list(METRICS))
def test_the_function_gives_the_value_of_the_estimate(metric, weighted, k):
    z, y = draw(k=k)
    weight = np.random.default_rng(1).gamma(1, size=200) if weighted else None
    own = Predictions.from_arrays(z, y)
    settings = Settings(n_resamples=100)
    views = METRICS[metric].traits["views"]
    for view in views if k == 2 else ("top-label",):
        scores = scores_of(own, rows_of(own), settings, view)
        if METRICS[metric].traits["field"] == "probabilities":
            scores = replace(scores, probabilities=softmax(z), labels=y)
        sample = Sample(
            {"a": scores}, settings, sample_weight=weight, metrics=(metric,)
        )
        found = estimates(sample)["a"]
        assert list(found) == [metric]
        options = {} if view == "top-label" else {"view": view}
        value = METRICS[metric](y, softmax(z), sample_weight=weight, **options)
        assert found[metric].value == pytest.approx(value, rel=1e-9, abs=1e-11)
        if found[metric].low is not None:
            assert found[metric].low <= value <= found[metric].high


@pytest.mark.parametrize("metric", list(METRICS))
def test_metrics_take_keywords_only_after_the_arrays(metric):
    kinds = [
        p.kind for p in inspect.signature(METRICS[metric].target).parameters.values()
    ]
    assert kinds[:2] == [inspect.Parameter.POSITIONAL_OR_KEYWORD] * 2
    assert set(kinds[2:]) == {inspect.Parameter.KEYWORD_ONLY}


# ----------------------------------------------------------------- calibrators


@pytest.mark.parametrize("method", METHODS)
def test_fit_transform_clone_and_copy(method):
    z, y = draw()
    made = CALIBRATORS[method]()
    assert made.fit(z, y) is made
    log_p = made.transform(z)
    assert log_p.shape == z.shape
    np.testing.assert_allclose(np.exp(log_p).sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(made.predict(z), log_p.argmax(axis=1))
    assert made.classes_.tolist() == [0, 1, 2, 3]
    assert made.n_features_in_ == 4
    assert made.n_parameters(4) >= 0
    assert made.requires <= {"logits", "features", "copies"}
    fresh = clone(made)
    assert fresh.get_params() == made.get_params()
    assert not hasattr(fresh, "classes_")
    np.testing.assert_array_equal(fresh.fit(z, y).transform(z), log_p)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("k", [1, 2, 4])
def test_to_dict_and_back_is_exact(method, k):
    z, y = draw(k=max(k, 2))
    scores = z[:, 1:] - z[:, :1] if k == 1 else z
    made = CALIBRATORS[method]().fit(scores, y)
    text = json.dumps(made.to_dict(), allow_nan=False)
    again = Calibrator.from_dict(json.loads(text))
    assert type(again) is type(made)
    np.testing.assert_array_equal(again.transform(scores), made.transform(scores))
    assert json.dumps(again.to_dict()) == text


@pytest.mark.parametrize("method", METHODS)
def test_the_flags_are_true(method):
    made = CALIBRATORS[method]()
    for seed in range(5):
        z, y = draw(seed=seed, t=[0.3, 1, 3, 5, 8][seed])
        new = draw(seed=seed + 100)[0]
        log_p = made.fit(z, y).transform(new)
        if made.is_accuracy_preserving:
            assert (log_p.argmax(axis=1) == new.argmax(axis=1)).all()
        if made.is_order_preserving:
            order = np.argsort(new, axis=1)
            assert (np.diff(np.take_along_axis(log_p, order, axis=1)) >= 0).all()
    if not made.is_accuracy_preserving:
        assert not made.is_order_preserving


@pytest.mark.parametrize("method", METHODS)
def test_a_missing_class_keeps_its_column(method):
    z, y = draw()
    keep = y != 3
    made = CALIBRATORS[method]().fit(z[keep], y[keep])
    assert made.transform(z).shape == z.shape
    assert "missing-class" in [note.code for note in made.notes_]
    if method != "uncalibrated":
        untouched = log_softmax(z)[:, 3]
        assert not np.allclose(made.transform(z)[:, 3], untouched)


@pytest.mark.parametrize("method", METHODS)
def test_float32_stays_float32(method):
    z, y = draw(dtype=np.float32)
    made = CALIBRATORS[method]().fit(z, y)
    assert made.transform(z).dtype == np.float32
    double = CALIBRATORS[method]().fit(z.astype(np.float64), y)
    # A curve may move by a whole knot where float32 makes or breaks a tie.
    close = np.isclose(made.predict_proba(z), double.predict_proba(z), atol=1e-4)
    assert close.mean() > 0.99


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layout", ["fortran", "read-only", "strided", "list", "frame"])
def test_any_layout_of_the_input_will_do(method, layout):
    z, y = draw(60)
    reference = CALIBRATORS[method]().fit(z, y).transform(z)
    given = z
    if layout == "fortran":
        given = np.asfortranarray(z)
    elif layout == "read-only":
        given = z.copy()
        given.setflags(write=False)
    elif layout == "strided":
        given = np.repeat(z, 2, axis=0)[::2]
    elif layout == "list":
        given, y = z.tolist(), y.tolist()
    else:
        given = pd.DataFrame(z, columns=list("abcd"))
    found = CALIBRATORS[method]().fit(given, y).transform(given)
    np.testing.assert_allclose(found, reference, rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_the_input_is_not_changed(method):
    z, y = draw(60)
    before, labels = z.copy(), y.copy()
    CALIBRATORS[method]().fit(z, y).transform(z)
    np.testing.assert_array_equal(z, before)
    np.testing.assert_array_equal(y, labels)


@pytest.mark.parametrize("method", METHODS)
def test_pipelines_and_cross_validation_survive_a_missing_class(method):
    z, y = draw(90)
    rare = np.where(y == 3, 2, y)
    rare[0] = 3  # in one fold only
    chain = make_pipeline(FunctionTransformer(), CALIBRATORS[method]())
    with warnings.catch_warnings():
        # scikit-learn says that class 3 is too rare to stratify.
        warnings.simplefilter("ignore", UserWarning)
        found = cross_val_score(chain, z, rare, scoring=neg_log_loss_scorer, cv=3)
    assert np.isfinite(found).all()
    assert (found < 0).all()


_NO_COLUMNS = (
    "labels are columns of the scores; the check has three classes and two columns, "
    "or labels that are no columns"
)
EXPECTED_FAILURES = {
    "check_estimators_overwrite_params": _NO_COLUMNS,
    "check_estimators_fit_returns_self": _NO_COLUMNS,
    "check_readonly_memmap_input": _NO_COLUMNS,
    "check_sample_weights_pandas_series": _NO_COLUMNS,
    "check_sample_weights_not_an_array": _NO_COLUMNS,
    "check_sample_weights_shape": _NO_COLUMNS,
    "check_sample_weights_not_overwritten": _NO_COLUMNS,
    "check_classifier_data_not_an_array": _NO_COLUMNS,
    "check_classifiers_classes": _NO_COLUMNS + " (strings)",
    "check_classifiers_train": _NO_COLUMNS,
    "check_fit2d_1feature": _NO_COLUMNS + " (one column is a binary score)",
}
_ONE_LABEL = {
    "check_classifiers_one_label": "order is preserved: the class with the largest "
    "score is predicted, whatever the labels of the fit rows were",
}
_WEIGHTS = {
    "check_sample_weight_equivalence_on_dense_data": "how much the fit is held back "
    "(by mixing, smoothing or a ridge) follows the effective number of rows, so that "
    "it does not depend on the scale of the weights",
}
_OWN = {
    "uncalibrated": _ONE_LABEL,
    "temperature": _ONE_LABEL,
    "beta": {},  # nothing is held back unless the rows are separable
}


def _expected(estimator):
    return EXPECTED_FAILURES | _OWN.get(estimator.method_id, _WEIGHTS)


@parametrize_with_checks(
    [method() for method in CALIBRATORS.values()], expected_failed_checks=_expected
)
def test_scikit_learns_checks(estimator, check):
    if check.func.__name__ == "check_array_api_input":
        pytest.skip("needs the environment variable SCIPY_ARRAY_API")
    with warnings.catch_warnings():
        # The checks hand over scores that look like probabilities.
        warnings.simplefilter("ignore", UserWarning)
        check(estimator)


# --------------------------------------------------------------------- leakage

N = 160
SPLITS = {
    "file": {"split": "file"},
    "fit-file": {"split": "auto"},
    "cross-fit": {"split": "cross-fit"},
    "cross-fit, thresholds": {"split": "cross-fit", "threshold_fraction": 0.2},
    "holdout": {"split": "holdout"},
    "holdout, thresholds": {"split": "holdout", "threshold_fraction": 0.2},
    "time": {"split": "time"},
    "time, thresholds": {"split": "time", "threshold_fraction": 0.2},
}


def study_of(kind, *, grouped, z=None, y=None, z_fit=None, y_fit=None):
    own_z, own_y = draw(N, seed=1)
    fit_z, fit_y = draw(80, seed=2)
    rng = np.random.default_rng(3)
    table = pd.DataFrame({"time": np.arange(N), "weight": rng.gamma(2, size=N)})
    roles = {"time": "time", "weight": "weight"}
    if grouped:
        # Groups of rows that follow each other, so that most survive in time.
        table["group"] = np.arange(N) // 4
        roles["group"] = "group"
    if kind == "file":
        names = np.array(["fit", "threshold", "test"])
        table["split"] = names[(np.arange(N) // 4) % 3]
        roles["split"] = "split"
    evaluation = Predictions.from_arrays(
        own_z if z is None else z,
        own_y if y is None else y,
        metadata=table,
        roles=ColumnRoles(**roles),
    )
    fit = None
    if kind == "fit-file":
        fit = Predictions.from_arrays(
            fit_z if z_fit is None else z_fit, fit_y if y_fit is None else y_fit
        )
    return Study(evaluation, fit=fit)


def poisoned(z, y, rows):
    """Absurd scores and labels in some rows; labels keep folds as they are."""
    z, y = z.copy(), y.copy()
    z[rows] = 1e4 * np.random.default_rng(4).normal(size=z[rows].shape)
    return z, y


def parameters(calibrator):
    return json.dumps(calibrator.to_dict())


@pytest.mark.parametrize("grouped", [False, True], ids=["rows", "groups"])
@pytest.mark.parametrize("kind", list(SPLITS))
@pytest.mark.parametrize("method", METHODS)
def test_no_fit_reads_rows_of_another_role(method, kind, grouped):
    settings = Settings(**SPLITS[kind], n_folds=4)
    study = study_of(kind, grouped=grouped)
    own = study.evaluation
    groups = own.group_codes()
    split = make_split(study, settings)
    fitted = fit_method(study, settings, method)
    order = np.concatenate([item.test for item in split.rounds])
    assert sorted(order) == split.test.tolist()
    for number, (item, calibrator) in enumerate(
        zip(split.rounds, fitted.rounds, strict=True)
    ):
        # All rows of the file that are not this round's fit rows are made absurd.
        others = np.arange(N)
        if kind != "fit-file":
            others = np.setdiff1d(others, item.fit)
            assert set(item.test) | set(item.threshold) <= set(others)
            if groups is not None:
                assert not set(groups[item.fit]) & set(groups[item.test])
                assert not set(groups[item.fit]) & set(groups[item.threshold])
        z, y = poisoned(own.logits, own.labels, others)
        again = study_of(kind, grouped=grouped, z=z, y=y)
        same = make_split(again, settings)
        assert same.rounds[number].fit.tolist() == item.fit.tolist()
        poisoned_fit = fit_method(again, settings, method)
        assert parameters(poisoned_fit.rounds[number]) == parameters(calibrator)
        # The statistics of this round's test rows come from this calibrator alone.
        places = np.searchsorted(split.test, item.test)
        direct = calibrator.row_statistics(own.logits[item.test], own.labels[item.test])
        measured = fitted.rows.take(places)
        np.testing.assert_array_equal(direct.confidence, measured.confidence)
        np.testing.assert_array_equal(
            direct.label_log_probability, measured.label_log_probability
        )


@pytest.mark.parametrize("kind", ["file", "holdout", "time", "fit-file"])
@pytest.mark.parametrize("method", METHODS)
def test_labels_of_test_and_threshold_rows_reach_no_fit_and_no_ranking(method, kind):
    chosen = ("temperature", method)
    settings = Settings(**SPLITS[kind], calibrators=chosen, n_resamples=100)
    study = study_of(kind, grouped=False)
    split = make_split(study, settings)
    (item,) = split.rounds
    y = study.evaluation.labels.copy()
    keep = [] if kind == "fit-file" else item.fit
    others = np.setdiff1d(np.arange(N), keep)
    if kind == "holdout":
        # A holdout is stratified by label: labels may change places only where the
        # deal stays the same, so logits are poisoned instead.
        z, y = poisoned(study.evaluation.logits, y, others)
        again = study_of(kind, grouped=False, z=z, y=y)
    else:
        y[others] = (y[others] + 1) % 4
        again = study_of(kind, grouped=False, y=y)
    first = fit_method(study, settings, method)
    second = fit_method(again, settings, method)
    assert parameters(first.calibrator) == parameters(second.calibrator)
    np.testing.assert_array_equal(first.ranking, second.ranking)
    ranks = [
        [
            (name, nll.value, nll.low)
            for name, nll, _ in analyze(s, settings).comparison.ranking
        ]
        for s in (study, again)
    ]
    assert ranks[0] == ranks[1]


@pytest.mark.parametrize("method", METHODS)
def test_the_exported_calibrator_reads_fit_rows_only(method):
    settings = Settings(split="file")
    study = study_of("file", grouped=True)
    fit = make_split(study, settings).fit
    own = study.evaluation
    alone = CALIBRATORS[method]().fit(
        own.logits[fit], own.labels[fit], own.sample_weight()[fit]
    )
    fitted = fit_method(study, settings, method)
    assert parameters(fitted.calibrator) == parameters(alone)


@pytest.mark.parametrize("method", METHODS)
def test_each_row_of_a_cross_fit_is_ranked_by_what_never_met_it(method):
    # Inside a fixed split the ranking cross-validates: a fit row's loss must not
    # change when the row's own outcome stays and its fold is fitted without it.
    settings = Settings(split="file", n_folds=3)
    study = study_of("file", grouped=True)
    fitted = fit_method(study, settings, method)
    fit = make_split(study, settings).fit
    own = study.evaluation
    before = log_softmax(own.logits[fit])[np.arange(fit.size), own.labels[fit]]
    assert fitted.ranking.shape == fit.shape
    assert np.isfinite(fitted.ranking).all()
    if method == "uncalibrated":
        np.testing.assert_allclose(fitted.ranking, -before, rtol=1e-12)
    else:
        in_sample = fitted.calibrator.transform(own.logits[fit])
        in_sample = -in_sample[np.arange(fit.size), own.labels[fit]]
        assert np.average(fitted.ranking) > np.average(in_sample) - 1e-3
        assert (fitted.ranking != in_sample).all()
