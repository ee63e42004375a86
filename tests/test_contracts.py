"""Contracts of every registered method, and the proof that no fit reads other rows."""

from __future__ import annotations

import inspect
import json
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from methods import ALONE
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from core.analysis import analyze, rows_of, scores_of
from core.calibrators import CALIBRATORS, Calibrator, neg_log_loss_scorer
from core.companions import companions_of
from core.fitting import fit_method
from core.metrics import CURVES, METRICS, Sample, estimates
from core.predictions import ColumnRoles, Predictions, Study
from core.registry import ADVICE
from core.settings import Settings
from core.softmax import log_softmax, softmax
from core.splitting import make_split

METHODS = list(CALIBRATORS)
WITH_NETWORK = [
    name for name in METHODS if "restarts" in [p.name for p in CALIBRATORS[name].params]
]
ONE_START = tuple((name, "restarts", 1) for name in WITH_NETWORK)


def draw(n=200, k=4, seed=0, t=2.0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    z = 1.5 * rng.normal(size=(n, k))
    p = softmax(z)
    y = (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(0, k - 1)
    return (z * t).astype(dtype), y


def beside(method, z):
    """What a calibrator reads beside the logits: made of the rows themselves."""
    names = CALIBRATORS[method].requires | CALIBRATORS[method].accepts
    z = np.asarray(z)
    z = np.column_stack([np.zeros(len(z)), z]) if z.shape[1] == 1 else z
    given = {}
    if "features" in names:
        given["features"] = np.column_stack([z, z**2]).clip(-1e3, 1e3)
    if "copies" in names:
        given["copies"] = np.stack([z[:, ::-1] / 3 + z, z / 2])
    return given


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


def test_every_calibrator_says_when_to_use_it_when_not_and_its_cost():
    for method in CALIBRATORS.values():
        assert tuple(method.advice) == ADVICE
        assert all(words.endswith(".") for words in method.advice.values())


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
    made, more = CALIBRATORS[method](), beside(method, z)
    assert made.fit(z, y, **more) is made
    log_p = made.transform(z, **more)
    assert log_p.shape == z.shape
    np.testing.assert_allclose(np.exp(log_p).sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(made.predict(z, **more), log_p.argmax(axis=1))
    assert made.classes_.tolist() == [0, 1, 2, 3]
    assert made.n_features_in_ == 4
    assert made.n_parameters(4) >= 0
    assert made.requires <= {"logits", "features", "copies"}
    fresh = clone(made)
    assert fresh.get_params() == made.get_params()
    assert not hasattr(fresh, "classes_")
    again = fresh.fit(z, y, **more).transform(z, **more)
    np.testing.assert_array_equal(again, log_p)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("k", [1, 2, 4])
def test_to_dict_and_back_is_exact(method, k):
    z, y = draw(k=max(k, 2))
    scores = z[:, 1:] - z[:, :1] if k == 1 else z
    more = beside(method, scores)
    made = CALIBRATORS[method]().fit(scores, y, **more)
    text = json.dumps(made.to_dict(), allow_nan=False)
    again = Calibrator.from_dict(json.loads(text))
    assert type(again) is type(made)
    for name in made.to_dict()["parameters"]:
        assert f'"{name}"' in type(made)._state.__doc__
    np.testing.assert_array_equal(
        again.transform(scores, **more), made.transform(scores, **more)
    )
    assert json.dumps(again.to_dict()) == text


@pytest.mark.parametrize("method", METHODS)
def test_the_flags_are_true(method):
    made = CALIBRATORS[method]()
    for seed in range(5):
        z, y = draw(seed=seed, t=[0.3, 1, 3, 5, 8][seed])
        new = draw(seed=seed + 100)[0]
        made.fit(z, y, **beside(method, z))
        log_p = made.transform(new, **beside(method, new))
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
    more = beside(method, z)
    made = CALIBRATORS[method]().fit(z[keep], y[keep], **beside(method, z[keep]))
    found = made.transform(z, **more)
    assert found.shape == z.shape
    assert "missing-class" in [note.code for note in made.notes_]
    if method != "uncalibrated":
        untouched = log_softmax(z)[:, 3]
        assert not np.allclose(found[:, 3], untouched)


@pytest.mark.parametrize("method", METHODS)
def test_float32_stays_float32(method):
    z, y = draw(dtype=np.float32)
    more = beside(method, z)
    made = CALIBRATORS[method]().fit(z, y, **more)
    assert made.transform(z, **more).dtype == np.float32
    double = CALIBRATORS[method]().fit(z.astype(np.float64), y, **more)
    # A curve may move by a whole knot where float32 makes or breaks a tie.
    p, exact = (item.predict_proba(z, **more) for item in (made, double))
    close = np.isclose(p, exact, atol=1e-4)
    assert close.mean() > 0.99


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layout", ["fortran", "read-only", "strided", "list", "frame"])
def test_any_layout_of_the_input_will_do(method, layout):
    z, y = draw(60)
    more = beside(method, z)
    reference = CALIBRATORS[method]().fit(z, y, **more).transform(z, **more)
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
    found = CALIBRATORS[method]().fit(given, y, **more).transform(given, **more)
    np.testing.assert_allclose(found, reference, rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_the_input_is_not_changed(method):
    z, y = draw(60)
    before, labels = z.copy(), y.copy()
    more = beside(method, z)
    CALIBRATORS[method]().fit(z, y, **more).transform(z, **more)
    np.testing.assert_array_equal(z, before)
    np.testing.assert_array_equal(y, labels)


@pytest.mark.parametrize("method", ALONE)
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
    "check_classifiers_one_label": "order is kept: the class with the largest "
    "score is predicted, whatever the labels of the fit rows were",
}
_NO_OFFSET = {
    "check_classifiers_one_label": "without offsets no class is predicted everywhere, "
    "whatever the labels of the fit rows were",
}
_WEIGHTS = {
    "check_sample_weight_equivalence_on_dense_data": "how much the fit is held back "
    "(by mixing, smoothing or a ridge) follows the effective number of rows, so that "
    "it does not depend on the scale of the weights",
}
# Nothing is held back: with beta unless the rows are separable, with a network because
# the check has too few rows for one.
_FREE = (
    "entropy-target",
    *("uncalibrated", "temperature", "beta", "top-versus-all", "top-versus-all-beta"),
    "softplus-link",
    *("ensemble-temperature", "auto"),  # auto: of so few rows, one temperature
    *WITH_NETWORK,
)


def _expected(estimator):
    keeps_order = estimator.is_order_preserving or estimator.method_id in (
        "auto",
        "i-max",
    )
    own = _ONE_LABEL if keeps_order else {}
    own |= _NO_OFFSET if estimator.method_id == "no-bias-vector" else {}
    weights = {} if estimator.method_id in _FREE else _WEIGHTS
    return EXPECTED_FAILURES | own | weights


# scikit-learn warns of what is no BaseEstimator; core/estimator.py says why it is none.
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Estimator .* does not inherit", UserWarning)
    every_check = parametrize_with_checks([CALIBRATORS[name]() for name in ALONE])


@every_check
def test_scikit_learns_checks(estimator, check):
    name = check.func.__name__
    if name == "check_array_api_input":
        pytest.skip("needs the environment variable SCIPY_ARRAY_API")
    reason = _expected(estimator).get(name)
    with warnings.catch_warnings():
        # The checks hand over scores that look like probabilities.
        warnings.simplefilter("ignore", UserWarning)
        if reason is None:
            check(estimator)
            return
        # Caught here, since pytest takes longer to print what failed than all checks.
        with pytest.raises(Exception):  # noqa: B017, PT011 - any failure will do
            check(estimator)
    pytest.xfail(reason)


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
    own_z = own_z if z is None else z
    evaluation = Predictions.from_arrays(
        own_z,
        own_y if y is None else y,
        features=own_z + own_z**2,
        metadata=table,
        roles=ColumnRoles(**roles),
    )
    fit, fit_copies = None, ()
    if kind == "fit-file":
        given = fit_z if z_fit is None else z_fit
        fit = Predictions.from_arrays(
            given, fit_y if y_fit is None else y_fit, features=given + given**2
        )
        fit_copies = (Predictions.from_arrays(given / 2),)
    copies = (Predictions.from_arrays(evaluation.logits / 2),)
    return Study(evaluation, fit=fit, copies=copies, fit_copies=fit_copies)


def poisoned(z, y, rows):
    """Absurd scores and labels in some rows; labels keep folds as they are."""
    z, y = z.copy(), y.copy()
    z[rows] = 1e4 * np.random.default_rng(4).normal(size=z[rows].shape)
    return z, y


def parameters(calibrator):
    return json.dumps(calibrator.to_dict())


def _designs():
    """Every method under one design, temperature under all of them.

    A fit is handed its rows by one piece of code whatever the method, so that the
    designs may take turns; two for each method are among the slow tests.
    """
    every = [(kind, grouped) for kind in SPLITS for grouped in (False, True)]
    for number, method in enumerate(METHODS):
        steps = range(1 if method in WITH_NETWORK else 2)
        some = [every[(number * 5 + step * 7) % len(every)] for step in steps]
        for kind, grouped in every if method == "temperature" else some:
            name = f"{method}-{kind}-{'groups' if grouped else 'rows'}"
            is_turn = (kind, grouped) == some[0] or method == "temperature"
            marks = [] if is_turn else [pytest.mark.slow]
            yield pytest.param(method, kind, grouped, id=name, marks=marks)


@pytest.mark.parametrize(("method", "kind", "grouped"), list(_designs()))
def test_no_fit_reads_rows_of_another_role(method, kind, grouped):
    settings = Settings(**SPLITS[kind], n_folds=4, options=ONE_START)
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
        more = companions_of(study, own, calibrator).take(item.test)
        direct = calibrator.row_statistics(
            own.logits[item.test], own.labels[item.test], **more
        )
        measured = fitted.rows.take(places)
        np.testing.assert_array_equal(direct.confidence, measured.confidence)
        np.testing.assert_array_equal(
            direct.label_log_probability, measured.label_log_probability
        )


def _kinds_of_split():
    """Every method under one kind of split, temperature under each of them.

    Labels are withheld by the same code from every method; every kind with every method
    is among the slow tests.
    """
    kinds = ("file", "holdout", "time", "fit-file")
    for number, method in enumerate(METHODS):
        for place, kind in enumerate(kinds):
            is_turn = place == number % len(kinds) or method == "temperature"
            marks = [] if is_turn else [pytest.mark.slow]
            yield pytest.param(method, kind, id=f"{method}-{kind}", marks=marks)


@pytest.mark.parametrize(("method", "kind"), list(_kinds_of_split()))
def test_labels_of_test_and_threshold_rows_reach_no_fit_and_no_ranking(method, kind):
    chosen = ("temperature", method)
    settings = Settings(
        **SPLITS[kind], calibrators=chosen, n_resamples=100, options=ONE_START
    )
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
    whole = [analyze(rows, settings) for rows in (study, again)]
    first, second = (
        own.fitted[method]
        if method in own.fitted
        else fit_method(own.study, settings, method)
        for own in whole
    )
    assert parameters(first.calibrator) == parameters(second.calibrator)
    np.testing.assert_array_equal(first.ranking, second.ranking)
    ranks = [
        [(name, nll.value, nll.low) for name, nll, _ in own.comparison.ranking]
        for own in whole
    ]
    assert ranks[0] == ranks[1]


@pytest.mark.parametrize("method", METHODS)
def test_the_exported_calibrator_reads_fit_rows_only(method):
    settings = Settings(split="file", options=ONE_START)
    study = study_of("file", grouped=True)
    fit = make_split(study, settings).fit
    own = study.evaluation
    alone = CALIBRATORS[method](**settings.method_options(method)).fit(
        own.logits[fit],
        own.labels[fit],
        own.sample_weight()[fit],
        **companions_of(study, own, CALIBRATORS[method]).take(fit),
    )
    fitted = fit_method(study, settings, method)
    assert parameters(fitted.calibrator) == parameters(alone)


@pytest.mark.parametrize("method", METHODS)
def test_each_row_of_a_cross_fit_is_ranked_by_what_never_met_it(method):
    # Inside a fixed split the ranking cross-validates: a fit row's loss must not
    # change when the row's own outcome stays and its fold is fitted without it.
    settings = Settings(split="file", n_folds=3, options=ONE_START)
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
        more = companions_of(study, own, fitted.calibrator).take(fit)
        in_sample = fitted.calibrator.transform(own.logits[fit], **more)
        in_sample = -in_sample[np.arange(fit.size), own.labels[fit]]
        assert np.average(fitted.ranking) > np.average(in_sample) - 1e-3
        assert (fitted.ranking != in_sample).all()
