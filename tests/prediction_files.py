"""Files of predictions in the layouts that people have, made by the tests."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import safetensors.numpy

from core.softmax import softmax

Files = list[tuple[str, bytes]]


@dataclass(frozen=True)
class Sample:
    """Rows of logits and labels that the layouts hold.

    Parameters
    ----------
    logits : ndarray of shape (n, k)
    labels : ndarray of shape (n,)
        Every class is among them.
    names : sequence of str
        Of the k classes.
    """

    logits: np.ndarray
    labels: np.ndarray
    names: Sequence[str]

    @classmethod
    def draw(
        cls, n: int, names: Sequence[str], temperature: float = 2.0, seed: int = 11
    ) -> Sample:
        """Draw logits, and labels from their softmax at a temperature."""
        rng = np.random.default_rng(seed)
        logits = np.round(rng.normal(size=(n, len(names))) * 3, 6)
        drawn = logits / temperature + rng.gumbel(size=logits.shape)
        first = range(len(names))
        return cls(logits, np.r_[first, drawn.argmax(axis=1)[len(names) :]], names)

    @property
    def n(self) -> int:
        return len(self.labels)

    @property
    def probs(self) -> np.ndarray:
        return softmax(self.logits)

    @property
    def named(self) -> np.ndarray:
        return np.array(self.names)[self.labels]

    @property
    def ids(self) -> list[str]:
        return [f"img/{i:03d}.png" for i in range(self.n)]


# --- bytes ----------------------------------------------------------------------------


def csv(table: pd.DataFrame, **options: Any) -> bytes:
    return table.to_csv(index=False, **options).encode()


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def feather(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    pyarrow.feather.write_feather(table, buffer)
    return buffer.getvalue()


# --- tables ---------------------------------------------------------------------------


def columns(pattern: str, values: np.ndarray, names: Any) -> pd.DataFrame:
    return pd.DataFrame(values, columns=[pattern.format(name) for name in names])


def plain(of: Sample) -> pd.DataFrame:
    return columns("logit_{}", of.logits, of.names).assign(label=of.named)


def calzone(of: Sample) -> pd.DataFrame:
    table = columns("proba_{}", of.probs, range(len(of.names)))
    groups = np.where(of.labels, "A", "B")
    return table.assign(subgroup_1=groups, label=of.labels)


def hollance(of: Sample) -> pd.DataFrame:
    """Return only the confidence of the predicted class."""
    return pd.DataFrame(
        {
            "true_label": of.labels,
            "pred_label": of.logits.argmax(axis=1),
            "confidence": of.probs.max(axis=1),
        }
    )


def timm(of: Sample, n_top: int, output: str = "prob") -> pd.DataFrame:
    """Return what inference.py of timm writes for the top classes."""
    values = of.probs if output == "prob" else of.logits
    order = np.argsort(-values, axis=1, kind="stable")[:, :n_top]
    parts = {
        "index": order,
        "label": np.array(of.names)[order],
        output: np.take_along_axis(values, order, 1),
    }
    table = pd.DataFrame({"filename": of.ids})
    for name, ranked in parts.items():
        for rank in range(n_top):
            suffix = f"_{rank}" if n_top > 1 else ""
            table[f"{name}{suffix}"] = ranked[:, rank]
    return table


def timm_truth(of: Sample) -> pd.DataFrame:
    return pd.DataFrame({"filename": of.ids[::-1], "label": of.named[::-1]})


def kaggle(of: Sample, scale: np.ndarray | float = 1.0) -> tuple[pd.DataFrame, ...]:
    """Return out-of-fold probabilities that do not sum to 1, and train.csv."""
    rng = np.random.default_rng(3)
    ids = range(100, 100 + of.n)
    given = np.minimum(of.probs * scale, 1)
    oof = columns("Status_{}", given, of.names).assign(id=ids)
    train = pd.DataFrame(
        {
            "id": ids,
            "Age": rng.integers(20, 90, of.n),
            "Bilirubin": rng.uniform(0, 20, of.n),
            "Copper": rng.uniform(0, 20, of.n),
            "Albumin": rng.uniform(0, 20, of.n),
            "Sex": np.where(of.labels, "F", "M"),
            "Status": of.named,
        }
    )
    return oof, train.sample(frac=1, random_state=1)


def catboost(of: Sample) -> pd.DataFrame:
    raw = columns("RawFormulaVal:Class={}", of.logits, of.names)
    raw.insert(0, "SampleId", range(of.n))
    table = raw.join(columns("Probability:Class={}", of.probs, of.names))
    predicted = np.array(of.names)[of.logits.argmax(axis=1)]
    return table.assign(Class=predicted, Label=of.named)


def tidymodels(of: Sample) -> pd.DataFrame:
    more = {
        "id": "Fold1",
        ".row": range(1, of.n + 1),
        ".pred_class": np.array(of.names)[of.probs.argmax(axis=1)],
        "Class": of.named,
        ".config": "Preprocessor1_Model1",
    }
    return columns(".pred_{}", of.probs, of.names).assign(**more)


def predictions(
    n: int = 1500,
    *,
    classes: Sequence[str] = ("cat", "dog", "newt", "owl"),
    temperature: float = 2.0,
    seed: int = 5,
    **more: Any,
) -> bytes:
    """Return a CSV of ids, other columns, logits and labels drawn at a temperature."""
    of = Sample.draw(n, classes, temperature, seed)
    table = pd.DataFrame({"id": range(1, n + 1)}).assign(**more)
    return csv(table.join(plain(of)))


# --- arrays ---------------------------------------------------------------------------


def array_files(of: Sample) -> dict[str, dict[str, Any]]:
    """Return the arrays of each kind of NPZ file."""
    cut = of.n * 3 // 8
    z, y = of.logits, of.labels
    return {
        "netcal": {"predictions": of.probs, "ground_truth": y[:, None]},
        "hugging face": {
            "predictions": z.astype(np.float32),
            "label_ids": y,
            "metrics": np.array({"loss": 0.5}, dtype=object),
        },
        "mix-n-match": {"arr_0": z, "arr_1": np.eye(len(of.names))[y]},
        "floats": {"logits": z, "labels": y.astype(float)},
        "parts": {
            "logits_val": z[:cut],
            "logits_test": z[cut:],
            "labels_val": y[:cut],
            "labels_test": y[cut:, None],
        },
        "parts in front": {
            "val_logits": z[:cut],
            "test_logits": z[cut:],
            "val_labels": y[:cut],
            "test_labels": y[cut:],
        },
        "one part": {"logits_test": z, "labels_test": y},
    }


def pairs(of: Sample) -> dict[str, tuple[tuple[str, np.ndarray], ...]]:
    """Return the names and arrays of each kind of pair of NPY files."""
    z, p, y = of.logits, of.probs, of.labels
    return {
        "cleanlab": (("pred_probs.npy", p), ("labels.npy", y)),
        "logits": (("labels.npy", y[:, None]), ("logits.npy", z)),
        "common stem": (("resnet_logits.npy", z), ("resnet_labels.npy", y)),
        "long names": (("resnet-test-logits.npy", z), ("y_true.npy", y)),
    }


def parts_in_files(of: Sample) -> dict[str, Files]:
    """Return a validation and a test part, in two files and in four."""
    cut = of.n * 3 // 8
    parts = {"val": slice(None, cut), "test": slice(cut, None)}
    arrays = {"logits": of.logits, "labels": of.labels}
    return {
        "two": [
            (f"{part}.npz", npz(**{name: a[rows] for name, a in arrays.items()}))
            for part, rows in parts.items()
        ],
        "four": [
            (f"{name}_{part}.npy", npy(a[rows]))
            for part, rows in parts.items()
            for name, a in arrays.items()
        ],
    }


# --- every layout ---------------------------------------------------------------------


def layouts(of: Sample) -> dict[str, Callable[[], Files]]:
    """Return the makers of every layout that is read without a mapping by hand."""
    table = plain(of)
    made: dict[str, Callable[[], Files]] = {
        "CSV": lambda: [("plain.csv", csv(table))],
        "TSV": lambda: [("plain.tsv", csv(table, sep="\t"))],
        "semicolons and decimal commas": lambda: [
            ("commas.csv", csv(table, sep=";", decimal=","))
        ],
        "UTF-16": lambda: [("utf16.csv", csv(table).decode().encode("utf-16"))],
        "BOM": lambda: [("bom.csv", b"\xef\xbb\xbf" + csv(table))],
        "Latin-1": lambda: [
            ("latin.csv", csv(table).decode().replace("dog", "chêvre").encode("latin1"))
        ],
        "quoted": lambda: [("quoted.csv", csv(table, quoting=1))],
        "one-hot labels": lambda: [("onehot.csv", csv(one_hot(of)))],
        "zst": lambda: [
            ("plain.csv.zst", pa.compress(csv(table), codec="zstd", asbytes=True))
        ],
        "Parquet": lambda: [("plain.parquet", table.to_parquet(index=False))],
        "Feather": lambda: [("plain.feather", feather(table))],
        "JSON": lambda: [("plain.json", table.to_json(orient="records").encode())],
        "safetensors": lambda: [
            (
                "plain.safetensors",
                safetensors.numpy.save({"logits": of.logits, "labels": of.labels}),
            )
        ],
        "calzone": lambda: [("calzone.csv", csv(calzone(of)))],
        "hollance": lambda: [("hollance.csv", csv(hollance(of)))],
        "timm, top 2": lambda: [
            ("timm.csv", csv(timm(of, 2))),
            ("truth.csv", csv(timm_truth(of))),
        ],
        "timm, every class": lambda: [
            ("timm-all.csv", csv(timm(of, len(of.names), "logit"))),
            ("truth.csv", csv(timm_truth(of))),
        ],
        "Kaggle out of fold": lambda: [
            (name, csv(part))
            for name, part in zip(("oof.csv", "train.csv"), kaggle(of), strict=True)
        ],
        "CatBoost": lambda: [("catboost.tsv", csv(catboost(of), sep="\t"))],
        "tidymodels": lambda: [("tidymodels.csv", csv(tidymodels(of)))],
    }
    for name, arrays in array_files(of).items():
        file = f"{name.replace(' ', '-')}.npz"
        made[f"NPZ, {name}"] = lambda f=file, a=arrays: [(f, npz(**a))]
    for name, two in pairs(of).items():
        made[f"NPY, {name}"] = lambda t=two: [(file, npy(array)) for file, array in t]
    for name, files in parts_in_files(of).items():
        made[f"parts in {name} files"] = lambda f=files: f
    return made


def one_hot(of: Sample, stem: str = "label") -> pd.DataFrame:
    flags = np.eye(len(of.names), dtype=int)[of.labels]
    scores = columns("logit_{}", of.logits, of.names)
    return scores.join(columns(stem + "_{}", flags, of.names))
