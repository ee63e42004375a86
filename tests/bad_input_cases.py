"""Bad input, one row per case: the files, the verdict, and what is said about it."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

Files = list[tuple[str, bytes]]

HEADER = "logit_cat,logit_dog,label\n"
ROWS = "1.5,-0.5,cat\n0.25,2.5,dog\n-1.5,0.75,dog\n2.5,0.5,cat\n"
TABLE = pd.DataFrame(
    {"logit_cat": [1.5, 0.25, -1.5], "logit_dog": [-0.5, 2.5, 0.75], "label": "cat"}
)


@dataclass(frozen=True)
class Case:
    """One kind of bad input.

    Parameters
    ----------
    make : callable
        Returns the files, each a name and its bytes.
    verdict : {"refuse", "ask", "note"}
        Refused, refused with an answer that lets it through, or loaded.
    said : str
        Part of what the error says, or the code of the note; empty for a file that
        is simply read.
    where : str
        Part of where the error says it is.
    flag : str
        Answer of a question, as a flag of the command line.
    """

    make: Callable[[], Files]
    verdict: str
    said: str
    where: str = ""
    flag: str = ""


def text(content: str, name: str = "rows.csv", encoding: str = "utf-8") -> Any:
    return lambda: [(name, content.encode(encoding))]


def data(content: bytes, name: str) -> Any:
    return lambda: [(name, content)]


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    return buffer.getvalue()


def probabilities(*rows: str) -> str:
    return "prob_cat,prob_dog,label\n" + "\n".join(rows) + "\n"


def bomb() -> Files:
    """Return an archive that announces 12 GiB in three members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for key in ("logits", "labels", "more"):
            archive.writestr(f"{key}.npy", bytes(1000))
    packed = bytearray(buffer.getvalue())
    place = packed.find(b"PK\x01\x02")
    while place >= 0:
        packed[place + 24 : place + 28] = struct.pack("<I", 0xFFFFFFF0)
        place = packed.find(b"PK\x01\x02", place + 4)
    return [("rows.npz", bytes(packed))]


def wide(n_columns: int) -> Files:
    names = ",".join(f"logit_{i}" for i in range(n_columns))
    return [("rows.csv", f"{names}\n{'1.5,' * (n_columns - 1)}1.5\n".encode())]


def two(first: str, second: str) -> Any:
    return lambda: [("scores.csv", first.encode()), ("labels.csv", second.encode())]


PICKLE = pickle.dumps({"logits": [1.5]})
SCORES = "id,logit_cat,logit_dog\na,1.5,-0.5\nb,0.25,2.5\n"
LONG = "x" * 1_000_000

CASES: dict[str, Case] = {
    "one row": Case(text(HEADER + "1.5,-0.5,cat\n"), "note", "one-class"),
    "no label column": Case(
        text("logit_cat,logit_dog\n1.5,-0.5\n0.5,2\n"), "note", "unlabelled"
    ),
    "no row has a label": Case(
        text(HEADER + "1.5,-0.5,\n0.5,2,\n"), "note", "unlabelled"
    ),
    "some rows have no label": Case(
        text(HEADER + ROWS + "1,2,\n"), "note", "unlabelled-rows"
    ),
    "two columns may be the label": Case(
        text("class,actual,prob_cat,prob_dog\ncat,dog,.8,.2\ndog,dog,.1,.9\n"),
        "ask",
        "one of them may be the prediction",
        "columns class and actual",
        "--label-column actual",
    ),
    "nothing says what one score is for": Case(
        text("score,label\n0.9,case\n0.2,control\n"),
        "ask",
        "nothing says which of them the score is for",
        "column label",
        "--positive-class case",
    ),
    "labels count from 1": Case(
        text("logit_cat,logit_dog,label\n1.5,-0.5,1\n0.25,2.5,2\n"),
        "ask",
        "'2' is not one of the 2 classes",
        "column label, row 2",
        "--label-base 1",
    ),
    "labels count from 1, arrays": Case(
        data(npz(logits=np.eye(3), labels=[1, 2, 3]), "rows.npz"),
        "ask",
        "'3' is not one of the 3 classes",
        "column labels, row 3",
        "--label-base 1",
    ),
    "float labels": Case(
        text("logit_0,logit_1,label\n1.5,-0.5,0.0\n0.25,2.5,1.0\n"),
        "note",
        "float-labels",
    ),
    "float labels, arrays": Case(
        data(npz(logits=np.eye(3), labels=[0.0, 1.0, 2.0]), "rows.npz"),
        "note",
        "float-labels",
    ),
    "labels that are no class": Case(
        text(HEADER + ROWS + "1,2,cow\n"),
        "refuse",
        "'cow' is not one of the 2 classes",
        "column label, row 5",
    ),
    "inf": Case(
        text(HEADER + ROWS + "inf,2,cat\n"),
        "ask",
        "'inf' is infinite",
        "column logit_cat, row 5",
        "--invalid-rows leave-out",
    ),
    "empty score": Case(
        text(HEADER + ROWS + ",2,cat\n"),
        "ask",
        "is empty or NaN",
        "column logit_cat, row 5",
        "--invalid-rows leave-out",
    ),
    "sums within 1 %": Case(
        text(probabilities("0.502,0.503,cat", "0.25,0.75,dog")), "note", "renormalised"
    ),
    "sums far from 1": Case(
        text(probabilities("0.5,0.6,cat", "0.25,0.75,dog")),
        "ask",
        "do not sum to 1",
        "row 1",
        "--renormalise yes",
    ),
    "negative probabilities": Case(
        text(probabilities("-0.25,1.25,cat", "0.25,0.75,dog")),
        "ask",
        "'-0.25' is not a probability",
        "column prob_cat, row 1",
        "--input-kind logits",
    ),
    "one probability that is none": Case(
        text("cat,dog,label\n0.75,0.25,cat\n0.5,0.5,dog\n1.25,-0.25,cat\n"),
        "ask",
        "'1.25' is not a probability",
        "column cat, row 3",
        "--invalid-rows leave-out",
    ),
    "a rounding beyond 0 and 1": Case(
        text("cat,dog,label\n0.75,0.25,cat\n1.0000002,-0.0000002,dog\n"),
        "note",
        "rounded-outside",
    ),
    "another delimiter": Case(
        text((HEADER + ROWS).replace(",", ";")), "note", "delimiter"
    ),
    "decimal commas": Case(
        text((HEADER + ROWS).replace(",", ";").replace(".", ",")),
        "note",
        "decimal-comma",
    ),
    "UTF-16": Case(text(HEADER + ROWS, encoding="utf-16"), "note", "utf-16"),
    "Latin-1": Case(
        text((HEADER + ROWS).replace("dog", "chêvre"), encoding="latin-1"),
        "note",
        "latin-1",
    ),
    "truncated Parquet": Case(
        data(parquet(TABLE)[:-40], "rows.parquet"),
        "refuse",
        "damaged or incomplete",
        "rows.parquet",
    ),
    "object array": Case(
        data(npz(logits=np.array([[1.0], None], dtype=object)), "rows.npz"),
        "refuse",
        "Python objects",
        "array logits",
    ),
    "zip bomb": Case(bomb, "refuse", "12.0 GiB", "rows.npz"),
    "gzip bomb": Case(
        data(gzip.compress(b"1" * (5 << 20)), "rows.csv.gz"),
        "refuse",
        "hold no line end",
        "rows.csv.gz",
    ),
    **{
        f"pickle called {name}": Case(data(PICKLE, name), "refuse", "not opened", name)
        for name in (
            *("rows.csv", "rows.npz", "rows.npy", "rows.json", "rows.parquet"),
            *("rows.arrow", "rows.safetensors", "rows.csv.zst", "rows"),
        )
    },
    "joblib, compressed": Case(
        data(zlib.compress(PICKLE * 20), "rows.csv"), "refuse", "not opened", "rows.csv"
    ),
    "packed pickle": Case(
        data(gzip.compress(PICKLE), "rows.csv.gz"), "refuse", "not opened", "rows.csv"
    ),
    "weights of PyTorch": Case(
        data(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P", "model.pt"),
        "refuse",
        "not opened",
        "model.pt",
    ),
    "truncated NPZ": Case(
        data(npz(logits=np.ones((50, 4)), labels=np.arange(50) % 4)[:-200], "cut.npz"),
        "refuse",
        "damaged",
        "cut.npz",
    ),
    "Git LFS pointer": Case(
        text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "refuse",
        "Git LFS pointer",
        "rows.csv",
    ),
    "over the limit": Case(
        lambda: [
            (
                "rows.npy",
                b"\x93NUMPY\x01\x00v\x00"
                + b"{'descr': '<f8', 'fortran_order': False, "
                b"'shape': (2000000000, 10), }".ljust(117)
                + b"\n",
            )
        ],
        "refuse",
        "149.0 GiB",
        "rows.npy",
    ),
    "100,000 columns": Case(
        lambda: wide(100_000), "refuse", "100,000 columns", "rows.csv"
    ),
    "the same file twice": Case(
        lambda: [
            ("a.csv", (HEADER + ROWS).encode()),
            ("b.csv", (HEADER + ROWS).encode()),
        ],
        "note",
        "same-file",
    ),
    "two files with other ids": Case(
        two(SCORES, "id,label\nx,cat\ny,dog\n"), "refuse", "None of the 2 ids", "id"
    ),
    "two files with other rows": Case(
        two("logit_cat,logit_dog\n1.5,-0.5\n", "label\ncat\ndog\n"),
        "refuse",
        "has 1 rows and labels.csv 2",
        "scores.csv",
    ),
    "two files with some other ids": Case(
        two(SCORES, "id,label\na,cat\ny,dog\n"), "note", "joined-by-id"
    ),
    "two files of scores": Case(
        two(SCORES, SCORES.replace("1.5", "2.5")), "refuse", "hold scores", "scores.csv"
    ),
    "ragged row": Case(
        text(HEADER + ROWS + "1,2\n"), "refuse", "has 2 cells, the header 3", "row 5"
    ),
    "mixed line ends": Case(
        lambda: [("rows.csv", (HEADER + ROWS).replace("\n", "\r\n", 2).encode())],
        "note",
        "",
    ),
    "unnamed first column": Case(
        text(TABLE.assign(label=["cat", "dog", "dog"]).to_csv()), "note", ""
    ),
    "quoted line ends": Case(
        text('logit_cat,logit_dog,label,why\n1.5,2,cat,"a\nb"\n2,1,dog,"c, ""d"""\n'),
        "note",
        "",
    ),
    "a quote that is never closed": Case(
        text(HEADER + ROWS + '2,1,"dog\n1,2,cat\n2,1,dog\n'),
        "refuse",
        "A quote opens here",
        "line 6",
    ),
    "a cell of a million characters": Case(
        text(f"logit_cat,logit_dog,label,why\n1.5,2,cat,{LONG}\n2,1,dog,b\n"),
        "note",
        "",
    ),
    "a label of a million characters": Case(
        text(f"{HEADER}{ROWS}1,2,{LONG}\n"), "refuse", "is not one of the", "row 5"
    ),
    "repeated ids": Case(
        text("id,logit_cat,logit_dog,label\na,1.5,2,cat\na,2,1,dog\n"),
        "note",
        "repeated-id",
    ),
    "repeated column names": Case(
        text("logit_cat,logit_cat,label\n1,2,cat\n"),
        "refuse",
        "Two columns are called",
        "column logit_cat",
    ),
    "empty": Case(text(""), "refuse", "empty", "rows.csv"),
    "header only": Case(text(HEADER), "refuse", "no rows", "rows.csv"),
    "header without line end": Case(
        text(HEADER.strip()), "refuse", "no rows", "rows.csv"
    ),
    "JSON that is no table": Case(
        text(json.dumps({"a": [1, [2]], "b": 3}), "rows.json"),
        "refuse",
        "JSON table is damaged",
        "rows.json",
    ),
    "JSON without scores": Case(
        text(json.dumps([{"a": 1, "b": "x"}]), "rows.json"),
        "refuse",
        "No score columns",
        "rows.json",
    ),
    "top-k of timm without labels": Case(
        text("filename,index,label,prob\na.png,7,cat,0.9\nb.png,3,dog,0.8\n"),
        "refuse",
        "which predictions were right",
        "rows.csv",
    ),
}
"""Name -> case; the browser and the command line are tested on the same ones."""
