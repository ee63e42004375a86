"""Calibrators to take home: a JSON file, and a module that needs NumPy only."""

from __future__ import annotations

import json
import platform
import textwrap
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from core.analysis import UNCALIBRATED, Analysis
from core.calibrators import CALIBRATORS, Calibrator
from core.companions import companions_of
from core.export.given import (
    as_given,
    copies_as_given,
    examples_of,
    fed,
    made_up_examples,
    predict_given,
)
from core.export.literals import assignment, plain
from core.export.methods import (
    EXPORTS,
    Export,
    Writer,
    n_copies_of,
    n_features_of,
)
from core.export.templates import (
    CHECKED_COPIES,
    CHECKED_FEATURES,
    COPIES_EXPECTED,
    COPIES_WORDS,
    FEATURES_EXPECTED,
    FEATURES_WORDS,
    FROM_PROBABILITIES,
    LOGITS_EXPECTED,
    MODULE,
    PROBABILITIES_EXPECTED,
)
from core.fitting import Fitted
from core.messages import DataError
from core.predictions import Predictions

__all__ = [
    "FORMAT",
    "INPUT_NAMES",
    "VERSION",
    "Kind",
    "as_given",
    "as_text",
    "copies_as_given",
    "document_of",
    "export_metadata",
    "export_of",
    "exported_calibrator",
    "fed",
    "fitted_of",
    "from_json",
    "json_reader",
    "predict_given",
    "properties",
    "to_json",
    "to_python",
]

FloatArray = NDArray[np.floating[Any]]
Kind = Literal["json", "python", "onnx", "onnx32", "torch"]

FORMAT = "plumbline-calibrator"
VERSION = 1

INPUT_NAMES = {"logits": "logits", "probabilities": "uncalibrated_probabilities"}
"""Name of the input of an ONNX model, by what it expects."""

_METRICS = ("gap", "nll", "brier", "accuracy", "ece")
_FIELDS = ("value", "low", "high", "level", "rows", "n", "null_low", "null_high")
_OWN_PLACE = ("method", "convention", "input", "classes", "log_floor", "n_copies")
_LOWEST_FLOOR = 1e-12  # as in core.validation


def fitted_of(analysis: Analysis, method: str) -> Fitted | None:
    """Return what was fitted under an id or alias; None for uncalibrated scores.

    Raises
    ------
    DataError
        If there is no such calibrator, or it was not fitted in this analysis.
    """
    if method in CALIBRATORS and CALIBRATORS[method].id == UNCALIBRATED:
        return None
    found = CALIBRATORS[method].id if method in CALIBRATORS else method
    if found not in analysis.fitted:
        raise DataError(
            f"The calibrator {method!r} was not fitted.",
            analysis.study.evaluation.name,
            "Choose one of: " + ", ".join((UNCALIBRATED, *analysis.fitted)) + ".",
        )
    return analysis.fitted[found]


def exported_calibrator(analysis: Analysis, method: str) -> Calibrator:
    """Return the calibrator that an export writes: fitted on all fit rows."""
    fitted = fitted_of(analysis, method)
    if fitted is not None:
        return fitted.calibrator.exported
    n_classes = _scores(analysis.study.evaluation).shape[1]
    same = {"method": UNCALIBRATED, "options": {}, "input": "logits", "parameters": {}}
    return Calibrator.from_dict({**same, "n_scores": n_classes, "n_classes": n_classes})


def export_metadata(analysis: Analysis, method: str) -> dict[str, Any]:
    """Return what an export says of itself, as plain JSON values.

    Parameters
    ----------
    analysis : Analysis
    method : str
        Id of a fitted calibrator, or "uncalibrated".

    Returns
    -------
    dict
        Method, convention, input, classes, data hash, rows, split, metrics before and
        after, notes, versions, date, and up to five rows of scores for self-tests.

    Raises
    ------
    DataError
        If the calibrator was not fitted or the file has no class scores.
    """
    own, split = analysis.study.evaluation, analysis.overview.split
    fitted = fitted_of(analysis, method)
    calibrator = exported_calibrator(analysis, method)
    logits = _scores(own)
    found: dict[str, Any] = {
        "method": calibrator.method_id,
        "convention": export_of(calibrator).numpy.convention(own.input_kind),
        "input": own.input_kind,
        "classes": list(own.classes),
    }
    if own.input_kind == "probabilities":
        lowest = min((float(block.min()) for block in _blocks(logits)), default=0.0)
        found["log_floor"] = min(lowest, float(np.log(_LOWEST_FLOOR)))
    n_copies = n_copies_of(calibrator._state())
    if fitted is not None and calibrator is not fitted.calibrator:
        found["chosen_by"] = fitted.method
    if n_copies:
        found["n_copies"] = n_copies
    found |= {
        "file": own.name,
        "fingerprint": analysis.study.fingerprint,
        "n_rows": len(own),
        "n_fit_rows": split.fit.size if fitted and split else 0,
        "split": split.sentence if split else None,
        "metrics": _metrics(analysis, fitted.method if fitted else UNCALIBRATED),
        "notes": [note.to_dict() for note in fitted.notes] if fitted else [],
        "versions": {
            "plumbline_format": VERSION,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scikit-learn": version("scikit-learn"),
        },
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    beside = companions_of(analysis.study, own, calibrator).take(slice(None))
    return dict(plain(found | examples_of(calibrator, logits, beside, own.input_kind)))


def to_json(calibrator: Calibrator, metadata: Mapping[str, Any]) -> str:
    """Return the calibrator as JSON text; floats round-trip exactly.

    Parameters
    ----------
    calibrator : Calibrator
        Fitted.
    metadata : mapping
        From `export_metadata`; may be empty.
    """
    return (
        json.dumps(document_of(calibrator, metadata), indent=1, allow_nan=False) + "\n"
    )


def from_json(text: str | bytes) -> tuple[Calibrator, dict[str, Any]]:
    """Read what `to_json` wrote.

    Returns
    -------
    calibrator : Calibrator
    metadata : dict
        As it was given to `to_json`.

    Raises
    ------
    DataError
        For anything else.
    """
    document = _parsed(text)
    classes = document.get("classes")
    if not isinstance(classes, list) or not all(isinstance(c, str) for c in classes):
        raise _unreadable("it does not name its classes")
    if not classes or len(set(classes)) != len(classes):
        raise _unreadable("its class names are missing or repeated")
    fit, examples = document.get("fit"), document.get("examples")
    if document.get("input") not in ("logits", "probabilities"):
        raise _unreadable("its input is neither logits nor probabilities")
    if not isinstance(fit, dict) or not isinstance(examples, dict):
        raise _unreadable("it does not say what it was fitted on")
    calibrator = _restored(document, len(classes))
    metadata = {key: document[key] for key in _OWN_PLACE if key in document}
    metadata |= {**fit, "examples": examples.get("inputs", [])}
    for name in ("copies", "features"):
        if name in examples:
            metadata[f"example_{name}"] = examples[name]
    return calibrator, metadata


def to_python(calibrator: Calibrator, metadata: Mapping[str, Any]) -> str:
    """Return a module of readable code that needs NumPy only.

    Parameters
    ----------
    calibrator : Calibrator
        Fitted, of a method that has an entry in `core.export.methods.EXPORTS`.
    metadata : mapping
        From `export_metadata`; may be empty.

    Returns
    -------
    str
        ``calibrate(logits)`` returns probabilities; ``python module.py`` tests itself
        and ``python module.py in.npy out.npy`` calibrates an array.
    """
    document = document_of(calibrator, metadata)
    writer = export_of(calibrator).numpy
    state = document["parameters"]
    values = {"CLASSES": document["classes"]}
    if document.get("n_copies"):
        values["N_COPIES"] = document["n_copies"]
        values["EXAMPLE_COPIES"] = document["examples"]["copies"]
    if n_features_of(state):
        values["EXAMPLE_FEATURES"] = document["examples"]["features"]
    values |= {name: state[key] for name, key in writer.constants.items()}
    if document["input"] == "probabilities":
        values["LOG_FLOOR"] = document["log_floor"]
    values["FIT"] = {"method": document["method"], **document["fit"]}
    values["EXAMPLE_INPUTS"] = document["examples"]["inputs"]
    values["EXAMPLE_OUTPUTS"] = document["examples"]["outputs"]
    lines = [assignment(name, value) for name, value in values.items()]
    return _module(document, writer, "\n".join(lines))


def json_reader(calibrator: Calibrator, input_kind: str, file_name: str) -> str:
    """Return a program that applies an exported JSON file with NumPy only.

    It shares no code with `from_json`: the verification reads the file with it.
    """
    calibrator = calibrator.exported
    writer = export_of(calibrator).numpy
    values = {"CLASSES": '["classes"]'}
    n_copies = n_copies_of(calibrator._state())
    if n_copies:
        values["N_COPIES"] = '["n_copies"]'
        values["EXAMPLE_COPIES"] = '["examples"]["copies"]'
    if n_features_of(calibrator._state()):
        values["EXAMPLE_FEATURES"] = '["examples"]["features"]'
    values |= {n: f'["parameters"]["{key}"]' for n, key in writer.constants.items()}
    if input_kind == "probabilities":
        values["LOG_FLOOR"] = '["log_floor"]'
    values["EXAMPLE_INPUTS"] = '["examples"]["inputs"]'
    values["EXAMPLE_OUTPUTS"] = '["examples"]["outputs"]'
    lines = [
        "import json",
        "",
        f'with open({file_name!r}, encoding="utf-8") as file:',
        "    document = json.load(file)",
        *(f"{name} = document{path}" for name, path in values.items()),
    ]
    document = {
        "method": calibrator.method_id,
        "input": input_kind,
        "n_copies": n_copies,
        "n_features": n_features_of(calibrator._state()),
    }
    return _module(document, writer, "\n".join(lines))


def export_of(calibrator: Calibrator) -> Export:
    """Return how a fitted calibrator is written."""
    chosen = calibrator.exported
    return EXPORTS[chosen.method_id].of(chosen.to_dict()["parameters"])


def _scores(own: Predictions) -> FloatArray:
    if own.logits is None:
        raise DataError(
            "The file has one confidence per row; an export needs the scores of every "
            "class.",
            own.name,
            "Give a file with one score column per class.",
        )
    return own.logits


def _blocks(logits: FloatArray) -> list[FloatArray]:
    step = max(1, (1 << 22) // logits.shape[1])
    return [logits[start : start + step] for start in range(0, len(logits), step)]


def _metrics(analysis: Analysis, method: str) -> dict[str, Any]:
    """Numbers of the test rows before and after, top label."""
    comparison = analysis.comparison
    if comparison is None:
        return {}
    results = comparison.views["top-label"]
    chosen = {"before": UNCALIBRATED, "after": method}
    found: dict[str, Any] = {}
    for when, name in chosen.items():
        estimates = results[name].estimates if name in results else {}
        found[when] = {
            metric: _known(estimates[metric].to_dict())
            for metric in _METRICS
            if metric in estimates
        }
    return found


def _known(estimate: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are known and finite; JSON has no other numbers."""
    found = {key: estimate[key] for key in _FIELDS if estimate[key] is not None}
    return {k: v for k, v in found.items() if isinstance(v, str) or np.isfinite(v)}


def document_of(calibrator: Calibrator, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON document; every other format is written from it too."""
    calibrator = calibrator.exported
    known = calibrator.to_dict()
    if known["method"] not in EXPORTS:
        msg = f"there is no exporter for the calibrator {known['method']!r}"
        raise NotImplementedError(msg)
    fit, k = dict(plain(dict(metadata))), known["n_classes"]
    input_kind = fit.pop("input", known["input"])
    classes = fit.pop("classes", [f"class {i}" for i in range(k)])
    n_copies = n_copies_of(known["parameters"])
    n_features = n_features_of(known["parameters"])
    names = ("examples", "example_copies", "example_features")
    given = {name: fit.pop(name, None) for name in names}
    has = [value is not None for value in given.values()]
    if not given["examples"] or has[1:] != [n_copies > 0, n_features > 0]:
        made = made_up_examples(k, input_kind, n_copies, n_features)
        given = {name: made.get(name) for name in names}
    if len(classes) != k:
        msg = f"{len(classes)} class names for {k} classes"
        raise ValueError(msg)
    arrays = [None if v is None else np.array(v, float) for v in given.values()]
    scores, *more = arrays
    assert scores is not None  # noqa: S101 - there are rows
    outputs = predict_given(calibrator, scores, input_kind, *more)
    examples = {"inputs": given["examples"], "outputs": outputs.tolist()}
    for name in ("copies", "features"):
        if given[f"example_{name}"] is not None:
            examples[name] = given[f"example_{name}"]
    floor = fit.pop("log_floor", float(np.log(_LOWEST_FLOOR)))
    for key in ("method", "convention", "n_copies", "n_features"):
        fit.pop(key, None)
    document = {
        "format": FORMAT,
        "version": VERSION,
        "method": known["method"],
        "convention": export_of(calibrator).numpy.convention(input_kind),
        "input": input_kind,
        **({"log_floor": floor} if input_kind == "probabilities" else {}),
        "classes": classes,
        "parameters": known["parameters"],
        "options": {**known["options"], "input": known["input"]},
        "n_scores": known["n_scores"],
        **({"n_copies": n_copies} if n_copies else {}),
        **({"n_features": n_features} if n_features else {}),
        "examples": examples,
        "fit": fit,
    }
    return dict(plain(document))


def properties(document: Mapping[str, Any]) -> dict[str, str]:
    """Return what a binary file says of itself, as text; lists and tables are JSON.

    Parameters
    ----------
    document : mapping
        From `document_of`.

    Returns
    -------
    dict of str to str
        Format, method, convention, input, classes in the order of the columns, single
        numbers such as the temperature, and what `export_metadata` says of the fit:
        data hash, rows, split, metrics before and after, notes, versions, date.
    """
    keys = ("format", "version", "method", "convention", "input", "classes")
    found: dict[str, Any] = {key: document[key] for key in keys}
    state = document["parameters"]
    found |= {k: v for k, v in state.items() if isinstance(v, (bool, int, float, str))}
    found["label"] = "place of the most probable class in `classes`, from 0"
    found |= {key: value for key, value in document["fit"].items() if key not in found}
    return {key: as_text(value) for key, value in found.items() if value is not None}


def _module(document: Mapping[str, Any], writer: Writer, constants: str) -> str:
    """Return the source; `constants` comes last, as it holds the user's names."""
    is_logits = document["input"] == "logits"
    convention = f"Convention: {writer.convention(document['input'])}."
    n_copies = int(document.get("n_copies", 0))
    n_features = int(document.get("n_features", 0))
    expects = LOGITS_EXPECTED if is_logits else PROBABILITIES_EXPECTED
    more = dict.fromkeys(("file", "name", "check", "rows", "logs", "example"), "")
    code = writer.code
    if n_copies:
        expects += "\n\n" + COPIES_EXPECTED.replace("@N@", str(n_copies))
        more = COPIES_WORDS
        code += CHECKED_COPIES
    elif n_features:
        expects += "\n\n" + FEATURES_EXPECTED.replace("@N@", str(n_features))
        more = FEATURES_WORDS
        code += CHECKED_FEATURES.replace("@N@", str(n_features))
    words = {
        "@SUMMARY@": CALIBRATORS[document["method"]].label,
        "@FROM_PROBABILITIES@": "" if is_logits else FROM_PROBABILITIES,
        "@CODE@": code,
        "@ENTRY@": "calibrate" if is_logits else "calibrate_probabilities",
        "@FILES@": f"in.npy, {more['file']}and out.npy",
        "@USAGE@": f"in.npy {more['file']}out.npy",
        "@N_FILES@": "3" if more["file"] else "2",
        "@EXAMPLES@": "EXAMPLE_INPUTS" + more["example"],
        "@COPIES@": more["name"],
        "@CHECK@": more["check"],
        "@COPY_ROWS@": more["rows"],
        "@COPY_LOGS@": more["logs"],
        "@ARGUMENT@": "logits" if is_logits else "p",
        "@EXPECTS@": expects,
        "@CONVENTION@": textwrap.fill(convention, 88, break_long_words=False),
    }
    text = MODULE
    for word, value in words.items():
        text = text.replace(word, value)
    return text.replace("@CONSTANTS@", constants)


def _parsed(text: str | bytes) -> dict[str, Any]:
    try:
        document = json.loads(text, parse_constant=_refuse)
    except (ValueError, TypeError, RecursionError) as error:
        raise _unreadable("it is not JSON") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _unreadable(f'it does not say "format": "{FORMAT}"')
    if document.get("version") != VERSION:
        raise _unreadable(f"its version is not {VERSION}")
    return document


def _refuse(constant: str) -> float:
    msg = f"{constant} is not a number"
    raise ValueError(msg)


def _restored(document: dict[str, Any], n_classes: int) -> Calibrator:
    """Return the calibrator, after a trial on one row."""
    n_scores = document.get("n_scores", n_classes)
    if n_scores not in (1, n_classes):
        raise _unreadable(f"it takes {n_scores!r:.20} scores for {n_classes} classes")
    try:
        options = dict(document.get("options", {}))
        values = {
            "method": document["method"],
            "input": options.pop("input", "logits"),
            "options": options,
            "n_scores": n_scores,
            "n_classes": n_classes,
            "parameters": document["parameters"],
        }
        calibrator = Calibrator.from_dict(values)
        writer = export_of(calibrator).numpy
        if not writer.is_sound(values["parameters"], n_classes):
            raise _unreadable("its parameters are out of range")
        trial = np.full((1, n_scores), 0.5)
        n_copies = n_copies_of(values["parameters"])
        copies = np.stack([trial] * n_copies) if n_copies else None
        n_features = n_features_of(values["parameters"])
        features = np.zeros((1, n_features)) if n_features else None
        with np.errstate(all="ignore"):
            found = calibrator.predict_proba(trial, copies=copies, features=features)
    except (KeyError, TypeError, ValueError, ArithmeticError, IndexError) as error:
        if isinstance(error, DataError):
            raise
        raise _unreadable("its parameters cannot be used") from error
    is_distribution = found.shape == (1, n_classes) and abs(found.sum() - 1) <= 1e-6
    if not is_distribution or not ((found >= 0) & (found <= 1)).all():
        raise _unreadable("its parameters do not give probabilities")
    return calibrator


def _unreadable(why: str) -> DataError:
    return DataError(
        f"This is not a calibrator that can be read: {why}.",
        "calibrator file",
        "Choose a JSON file that the Export page or `calibrate` wrote.",
    )


def as_text(value: Any) -> str:
    """Return a value as a property of a binary file: text, or JSON."""
    text = value if isinstance(value, str) else json.dumps(value)
    # A lone surrogate, which JSON carries, has no UTF-8.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
