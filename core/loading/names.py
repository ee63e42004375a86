"""What columns are usually called, role by role."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

__all__ = [
    "LOG_PROBABILITIES",
    "MISSING",
    "NAMES",
    "NEGATIVE_LOGS",
    "PARTS",
    "ScoreName",
    "class_names",
    "is_features_name",
    "parse_score_name",
    "part_of",
    "plain",
]

MISSING = ("", "na", "n/a", "#n/a", "nan", "null", "none", "?", "-")
"""Cells that mean "no value" in a column of numbers, in lower case."""

NAMES: dict[str, tuple[str, ...]] = {
    "label": (
        *("true_label", "true_labels", "y_true", "true_class", "ground_truth"),
        *("label", "labels", "target", "targets", "y", "truth", "class", "class_label"),
        *("label_ids", "label_id", "gold", "gold_label", "gt", "actual", "outcome"),
        *("observed", "obs", "expected", "ytrue", "true", "class_id", "category"),
    ),
    "predicted": (
        *("pred_label", "predicted_label", "pred_class", "predicted_class", "y_pred"),
        *("predicted", "prediction", "predictions", "pred", "preds", "yhat", "y_hat"),
    ),
    "confidence": (
        *("confidence", "confidences", "conf", "max_prob", "max_probability", "msp"),
        *("top1_prob", "top_prob", "top1_confidence", "pred_confidence"),
    ),
    "correct": ("correct", "is_correct", "correctness", "hit", "is_right"),
    "id": (
        *("id", "ids", "row_id", "sample_id", "uid", "uuid", "guid", "image_id"),
        *("case_id", "example_id", "item_id", "instance_id", "record_id", "key"),
        *("sampleid", "docid", "filename", "file_name", "file", "path", "image"),
        *("row", "index"),
    ),
    "group": (
        *("group", "groups", "group_id", "cluster", "cluster_id", "patient"),
        *("patient_id", "patientid", "subject", "subject_id", "participant"),
        *("participant_id", "user", "user_id", "speaker", "speaker_id", "customer_id"),
        *("site", "site_id", "hospital", "center", "centre", "batch"),
    ),
    "weight": ("weight", "weights", "sample_weight", "sample_weights"),
    "time": (
        *("time", "timestamp", "date", "datetime", "created_at", "time_stamp"),
        *("observed_at", "event_time", "date_time"),
    ),
    "split": ("split", "splits", "fold_role", "subset", "partition", "data_split"),
    "ood": (
        *("is_ood", "ood", "is_outlier", "outlier", "is_out_of_distribution"),
        *("out_of_distribution", "is_novel", "novel", "is_unknown"),
    ),
    "dataset": (
        *("dataset", "dataset_name", "data_set", "ood_set", "ood_dataset"),
        *("source_dataset",),
    ),
    "features": (
        *("features", "feature", "feats", "feat", "embeddings", "embedding"),
        *("penultimate", "activations", "hidden", "feat_list"),
    ),
    "classes": ("classes", "class_names", "label_names", "target_names"),
    "head_weight": (
        *("head_weight", "w", "weight_matrix", "fc_weight", "head_w", "fc_w"),
        *("classifier_weight", "linear_weight", "output_weight", "last_layer_weight"),
    ),
    "head_bias": (
        *("head_bias", "b", "fc_bias", "head_b", "fc_b", "bias", "classifier_bias"),
        *("linear_bias", "output_bias", "last_layer_bias"),
    ),
}
"""Usual names of each role, in order of preference, as `plain` writes them."""

ARRAY_SCORES = (
    *("logits", "logit", "predictions", "preds", "probs", "pred_probs", "arr_0"),
    *("scores", "score", "y_prob", "y_score", "outputs", "output", "probabilities"),
    *("proba", "prob", "probability", "softmax", "pred_proba", "predict_proba"),
    *("y_proba", "pred_logits", "raw_score", "raw_scores", "pred", "prediction"),
    *("y_pred", "rawprediction", "raw_prediction"),
)
"""Names of score arrays in NPZ files, in order of preference."""
ARRAY_LABELS = (*NAMES["label"], "arr_1")

_FEATURES = "|".join(sorted(NAMES["features"], key=len, reverse=True))
_LAYER = re.compile(rf"(?:{_FEATURES})(?:_\w+)?|\w+_(?:{_FEATURES})")

PARTS = {
    **dict.fromkeys(("fit", "calibration", "calib", "cal"), "calibration"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "calibration"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation", "holdout"), "test"),
    **dict.fromkeys(("train", "training"), "train"),
}
"""Word in the name of an array or a file -> part of the data it holds."""
_PARTS = "|".join(sorted(PARTS, key=len, reverse=True))
_FIRST_PART = re.compile(rf"(?P<part>{_PARTS})[_ .\-]+(?P<rest>.+)", re.IGNORECASE)
_LAST_PART = re.compile(rf"(?P<rest>.+)[_ .\-]+(?P<part>{_PARTS})", re.IGNORECASE)

LOG_PROBABILITIES = (
    *("log_prob", "log_probs", "logprob", "logprobs", "log_proba", "log_probas"),
    *("log_probability", "log_probabilities", "logproba", "log_softmax"),
)
"""Stems of logarithms of probabilities: logits where there is one for each class."""
NEGATIVE_LOGS = (
    *("nll", "nlls", "neg_log_prob", "neg_logprob", "neg_log_likelihood"),
    *("negative_log_likelihood", "neg_log_proba"),
)
"""Stems of negative logarithms: they fall where the class is likelier."""

_LOGITS = (
    *("logit", "logits", "rawformulaval", "raw_score", "raw_scores", "log_odds"),
    *("logodds", "decision_function", *LOG_PROBABILITIES, *NEGATIVE_LOGS),
)
_PROBABILITIES = (
    *("prob", "probs", "proba", "probas", "probability", "probabilities", "p"),
    *("pred_prob", "pred_probs", "pred_proba", "pred_probability", "predict_proba"),
    *("y_prob", "y_proba", "p_hat", "phat", "softmax", "predicted_probability"),
    *("prob_pred", "predicted_prob"),
)
_SCORES = ("score", "scores", "y_score", "output", "outputs", "pred", "z")
_KIND = {
    **dict.fromkeys(_SCORES, ""),
    **dict.fromkeys(_PROBABILITIES, "probabilities"),
    **dict.fromkeys(_LOGITS, "logits"),
}
_STEMS = "|".join(sorted(_KIND, key=len, reverse=True)).replace("_", "[_ .-]")
_CLASS = r"(?:class(?:[_=\s:]+|(?=\d)))?"
_SCORE = re.compile(
    rf"\W*(?P<stem>{_STEMS})"
    # What follows a separator belongs to the class: "logit_-1" is that of class -1.
    rf"(?:(?:\s+[\-=]\s+|[\-=]|[\s_.:]+){_CLASS}(?P<suffix>.+)"
    rf"|\[{_CLASS}(?P<index>.+)\]|(?P<digits>\d+))?",
    re.IGNORECASE,
)


_REMEMBERED = 1 << 16  # names, each of which is looked at for every role


@dataclass(frozen=True, slots=True)
class ScoreName:
    """A column name that speaks of a score.

    Parameters
    ----------
    stem : str
        First part of the name, such as "logit".
    kind : {"logits", "probabilities", ""}
        What the stem says the values are; empty where it does not say.
    suffix : str
        Rest of the name: the class; empty for a name that is a stem alone.
    """

    stem: str
    kind: str
    suffix: str


def part_of(name: str) -> tuple[str, str]:
    """Return a name without the part of the data it names, and that part.

    Examples
    --------
    >>> part_of("logits_val"), part_of("test_labels"), part_of("logits")
    (('logits', 'calibration'), ('labels', 'test'), ('logits', ''))
    """
    found = _FIRST_PART.fullmatch(name) or _LAST_PART.fullmatch(name)
    if found is None:
        return name, ""
    return found["rest"], PARTS[found["part"].lower()]


@lru_cache(_REMEMBERED)
def is_features_name(name: str) -> bool:
    """Whether an array is called as features are, of any layer.

    Examples
    --------
    >>> [is_features_name(n) for n in ("feats", "features.layer1", "layer4_features")]
    [True, True, True]
    """
    return _LAYER.fullmatch(plain(name)) is not None


def plain(name: str) -> str:
    """Return a name in lower case with one underscore between words."""
    return re.sub(r"[\s.\-]+", "_", name.strip().lower()).strip("_")


@lru_cache(_REMEMBERED)
def parse_score_name(name: str) -> ScoreName | None:
    """Return stem, kind and class of a score column's name, or None for others."""
    found = _SCORE.fullmatch(name.strip())
    if found is None:
        return None
    stem = plain(found["stem"])
    suffix = (found["suffix"] or found["index"] or found["digits"] or "").strip()
    return ScoreName(stem, _KIND[stem], suffix)


def class_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the classes that the names of two or more score columns speak of."""
    parsed = [parse_score_name(name) for name in names]
    suffixes = tuple(item.suffix if item else "" for item in parsed)
    if all(suffixes) and len(set(suffixes)) == len(names):
        return suffixes
    stem = common_stem(names)
    rests = tuple(name[len(stem) :] for name in names)
    return rests if all(rests) else names


def common_stem(names: tuple[str, ...]) -> str:
    """Return the words that all names start with, up to a separator."""
    cut = 0
    first = names[0]
    for position, letter in enumerate(first):
        if any(name[: position + 1] != first[: position + 1] for name in names):
            break
        if letter in "_.:= -":
            cut = position + 1
    return first[:cut]
