"""Text that is written by hand or by other programs: nothing in it is lost."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from app import cli
from core.loading import DataError, read_predictions, text_rows
from core.loading.sources import Source
from core.loading.text import read_text

HEADER = "prob_cat,prob_dog,label,note\n"
ROWS = "0.9,0.1,cat,ok\n0.2,0.8,dog,fine\n"


@pytest.mark.parametrize(
    "cells",
    [
        '0.3,0.7,dog,"5 inch\n0.6,0.4,cat,ok\n',
        '0.3,0.7,dog,"5 inch\n0.6,0.4,cat,"6 inch\n0.1,0.9,dog,ok\n',
        '0.3,0.7,"dog,ok\n0.6,0.4,cat,ok\n',
        '0.3,"0.7,dog,ok\n0.6,0.4,cat,ok\n',
        '"0.3,0.7,dog,ok\n' + ROWS * 20,
    ],
)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_an_open_quote_is_refused_with_its_line(
    cells: str, ends: str, encoding: str
) -> None:
    text = (HEADER + ROWS * 3 + cells).replace("\n", ends)
    with pytest.raises(DataError, match="A quote opens here") as caught:
        read_predictions(text.encode(encoding), name="rows.csv")
    assert caught.value.where == "rows.csv, line 8"


def test_an_open_quote_far_down_in_a_packed_file() -> None:
    rows = ROWS * 200_000
    text = HEADER + rows + '0.3,0.7,dog,"5 inch\n' + ROWS * 30
    with pytest.raises(DataError, match="A quote opens here") as caught:
        read_predictions(gzip.compress(text.encode(), 1), name="rows.csv.gz")
    assert caught.value.where == "rows.csv.gz, line 400,002"


def test_rows_within_closed_quotes_are_noted() -> None:
    text = HEADER + ROWS + '0.3,0.7,dog,"5\n0.6,0.4,cat,6"\n' + ROWS
    rows = read_predictions(text.encode())
    (note,) = [note for note in rows.notes if note.code == "rows-in-quotes"]
    assert note.severity == "warning"
    assert "first on line 4" in note.text


def test_quotes_that_lose_nothing_are_read() -> None:
    text = HEADER + ROWS + '0.3,0.7,dog,"5" screen\n0.6,0.4,cat,"a\nb, c"\n' + ROWS
    rows = read_predictions(text.encode())
    assert len(rows) == 6
    assert rows.metadata["note"].tolist()[3] == "a\nb, c"
    assert "rows-in-quotes" not in {note.code for note in rows.notes}


@pytest.mark.parametrize("top", ["sep=;\n", "SEP=;\r\n", ";;;\n", "\n ;;;\nsep=;\n\n"])
@pytest.mark.parametrize("packing", [bytes, gzip.compress])
def test_lines_of_excel_above_the_header(top: str, packing: Any) -> None:
    text = top + (HEADER + ROWS).replace(",", ";").replace(".", ",")
    rows = read_predictions(packing(text.encode()), name="rows.csv")
    np.testing.assert_allclose(np.exp(rows.logits), [[0.9, 0.1], [0.2, 0.8]])
    assert rows.labels.tolist() == [0, 1]
    with pytest.raises(DataError):
        read_predictions((top + HEADER.strip()).encode(), name="rows.csv")


@pytest.mark.parametrize(
    "text",
    [
        '"prob_cat", "prob_dog", "label"\n"0.9", "0.1", "cat"\n"0.2", "0.8", "dog"\n',
        '"prob_cat", "prob_dog", "label"\n0.9, 0.1, "cat"\n0.2, 0.8, "dog"\n',
        'prob_cat,prob_dog,label\n0.9, "0.1", "cat"\n0.2, "0.8", "dog"\n',
    ],
)
def test_quotes_after_a_space_are_read(text: str) -> None:
    rows = read_predictions(text.encode(), name="rows.csv")
    np.testing.assert_allclose(np.exp(rows.logits), [[0.9, 0.1], [0.2, 0.8]])
    assert rows.labels.tolist() == [0, 1]
    assert [note.code for note in rows.notes] == ["spaced-quotes"]
    assert len(read_predictions(text.replace(', "', ',"').encode())) == 2


def test_text_within_quotes_after_a_space() -> None:
    cells = '0.3, 0.7, "dog", "he said ""no"", twice"\n0.6, 0.4, "cat", "a\nb"\n'
    text = HEADER.replace(",note", ', "note"') + cells
    rows = read_predictions(gzip.compress(text.encode()))
    assert rows.metadata["note"].tolist() == ['he said "no", twice', "a\nb"]
    with pytest.raises(DataError, match="A quote opens here") as caught:
        read_predictions((text + '0.6, 0.4, "cat, ok\n' + ROWS).encode())
    assert caught.value.where == "upload, line 5"


def test_row_names_of_r() -> None:
    table = '"cat","dog","label"\n"1",0.9,0.1,"cat"\n"2",0.2,0.8,"dog"\n'
    named = table.replace('"1"', '"Mazda"').replace('"2"', '"Fiat"')
    for text in (table, named, named.replace(",", " "), named.replace(",", "\t")):
        rows = read_predictions(text.encode(), name="rows.txt")
        np.testing.assert_allclose(np.exp(rows.logits), [[0.9, 0.1], [0.2, 0.8]])
        assert rows.labels.tolist() == [0, 1]
        assert "row-names" in {note.code for note in rows.notes}
    with pytest.raises(DataError, match="has 4 cells, the header 3") as caught:
        read_predictions(table.replace('"1"', "0.5").encode())
    assert "row.names = FALSE" in caught.value.how_to_fix
    more = "".join(f'"{i}",0.9,0.1,"cat"\n' for i in range(3, 63))
    with pytest.raises(DataError, match="has 3 cells, other rows 4") as caught:
        read_predictions((table + more + "1,0,cat\n").encode())
    assert caught.value.where == "upload, row 63"


def test_a_delimiter_at_the_end_of_every_row() -> None:
    text = "prob_cat,prob_dog,label\n0.9,0.1,cat,\n0.2,0.8,dog,\n"
    rows = read_predictions(text.encode())
    assert rows.labels.tolist() == [0, 1]
    assert rows.metadata is None or rows.metadata.empty
    many = text + "0.2,0.8,dog,\n" * 60
    with pytest.raises(DataError, match="has 3 cells, other rows 4") as caught:
        read_predictions((many + "0.9,0.1,cat\n").encode())
    assert caught.value.where == "upload, row 63"
    with pytest.raises(DataError, match="has a cell behind it") as caught:
        read_predictions((many + "1,0,cat,x\n").encode())
    assert caught.value.where == "upload, row 63"


@pytest.mark.parametrize(
    ("top", "lines"),
    [
        ("# model: resnet, v2\n", "Line 1 was"),
        ("# a\n#b\n\n # c\n", "Lines 1 to 2, 4 were"),
        (",,,\n", "Line 1 was"),
        ("\ufeff# a\r\n#\r\n", "Lines 1 to 2 were"),
    ],
)
@pytest.mark.parametrize("packing", [bytes, gzip.compress])
def test_comments_above_the_header(top: str, lines: str, packing: Any) -> None:
    rows = read_predictions(packing((top + HEADER + ROWS).encode()), name="a.csv")
    assert rows.labels.tolist() == [0, 1]
    assert [note.code for note in rows.notes] == ["skipped-lines"]
    assert rows.notes[0].text.startswith(lines)
    with pytest.raises(DataError) as caught:
        read_predictions((top + HEADER + ROWS + "# end\n").encode())
    assert "row 3" in caught.value.where


def test_a_header_within_a_comment() -> None:
    numbers = "0.9,0.1,0\n0.2,0.8,1\n"
    for start in ("# prob_0,prob_1,label\n", "# made by me\n#prob_0,prob_1,label\n"):
        rows = read_predictions((start + numbers).encode())
        assert rows.labels.tolist() == [0, 1]
        assert [n.code for n in rows.notes] == ["skipped-lines", "commented-header"]
    rows = read_predictions(("#,prob_0,prob_1\n" + "7,0.9,0.1\n8,0.2,0.8\n").encode())
    assert rows.metadata["#"].tolist() == [7, 8]


@pytest.mark.parametrize("n_rows", [2, 3, 200])
def test_tables_of_psql(n_rows: int) -> None:
    text = " prob_cat | prob_dog | label \n----------+----------+-------\n"
    text += "      0.9 |      0.1 | cat\n      0.2 |      0.8 | dog\n" * n_rows
    text += f"({2 * n_rows} rows)\n\n"
    rows = read_predictions(text.encode())
    assert rows.labels.tolist() == [0, 1] * n_rows
    note = next(note for note in rows.notes if note.code == "skipped-lines")
    assert note.text.startswith(f"Lines 2, {2 * n_rows + 3} were skipped")


REFUSED = """
import sys
from app import cli
from core.loading import DataError, read_predictions
try:
    read_predictions(sys.argv[1])
except DataError as error:
    print(error.where)
"""


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".csv.zst"])
def test_a_process_ends_well_after_a_refusal(suffix: str, tmp_path: Path) -> None:
    """Arrow still reads the next block then: its thread must not need Python."""
    row = ",".join(["0.1234567"] * 100) + ",1\n"
    names = ",".join(f"logit_{i}" for i in range(100)) + ",label\n"
    text = names + row * 2000 + "9," + row + row * 20_000
    path = tmp_path / f"refused{suffix}"
    if suffix == ".csv":
        path.write_text(text)
    else:
        with pa.output_stream(path, compression="detect") as file:
            file.write(text.encode())
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", REFUSED, str(path)],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=Path(__file__).parents[1],
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"refused{suffix}, row 2001\n"


@pytest.mark.parametrize("packing", [bytes, gzip.compress])
def test_quotes_and_dashes_of_windows(packing: Any) -> None:
    text = "id,prob_cat,prob_dog,label\nit’s–“a”\x81,0.9,0.1,cat\n"
    encoded = text.replace("\x81", "").encode("cp1252").replace(b"\x94,", b"\x94\x81,")
    far = "id,prob_cat,prob_dog,label\n" + "abc,0.9,0.1,cat\n" * 300_000
    for start, n_rows in (("", 1), (far, 300_001)):
        data = start.encode() + encoded.partition(b"\n")[2] if start else encoded
        rows = read_predictions(packing(data), name="rows.csv")
        assert len(rows) == n_rows
        assert rows.metadata["id"].iloc[-1] == "it’s–“a”\x81"
        assert "Windows-1252" in next(n.text for n in rows.notes if n.code == "latin-1")


@pytest.mark.parametrize(
    "text",
    [
        "y_true,y_pred\n0,1\n1,1\n0,0\n",
        "label,prediction\ncat,dog\ncat,cat\n",
        "id,prediction\n7,dog\n8,cat\n",
    ],
)
def test_predicted_classes_without_a_score(text: str) -> None:
    with pytest.raises(DataError, match="holds the predicted class") as caught:
        read_predictions(text.encode())
    assert "predict_proba" in caught.value.how_to_fix


def test_a_line_of_json_that_was_cut_off() -> None:
    line = '{"prob_a": 0.1, "prob_b": 0.9, "label": "a"}\n'
    for n_lines in (1, 30):
        with pytest.raises(DataError, match="not a whole JSON object") as caught:
            read_predictions((line * n_lines + line[:20]).encode(), name="a.jsonl")
        assert caught.value.where == f"a.jsonl, line {n_lines + 1}"
        assert "line 1" not in caught.value.what


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    with pytest.raises(DataError, match="pipe or a device"):
        read_predictions(pipe)
    assert cli.main(["apply", str(pipe), str(pipe), "--out", str(tmp_path / "o")]) == 2
    assert cli.main(["check", str(pipe)]) == 2
    assert "is a pipe" in capsys.readouterr().err


@pytest.mark.parametrize("wanted", ["probability", "softmax", "scores", "logits"])
def test_lists_of_scores_beside_lists_of_features(wanted: str) -> None:
    lists = {wanted: [[0.9, 0.1], [0.2, 0.8]], "features": [[1.0, 2.0], [3.0, 4.0]]}
    lists["rawPrediction"] = [[2.2, -2.2], [-1.4, 1.4]]
    table = pa.table(lists | {"prediction": [0.0, 1.0], "label": [0.0, 1.0]})
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    rows = read_predictions(sink.getvalue().to_pybytes())
    found = rows.logits if rows.input_kind == "logits" else np.exp(rows.logits)
    np.testing.assert_allclose(found, lists[wanted])
    assert rows.labels.tolist() == [0, 1]


WIDE = "id,label,logit_a,logit_b\n"
LINES = [f"r{i},{'ab'[i % 2]},{i / 7:.3f},{-i / 3:.2f}\n" for i in range(60)]
CUT = {
    "plain": WIDE + "".join(LINES),
    "no line end at the end": (WIDE + "".join(LINES)).rstrip("\n"),
    "quotes in the header": '"id","label","logit_a","logit_b"\n' + "".join(LINES),
    "quotes far down": WIDE + "".join(LINES) + '"r,\n60",a,0.5,0.25\n',
    "ends of Windows": (WIDE + "".join(LINES)).replace("\n", "\r\n"),
    "ends of an old Mac": (WIDE + "".join(LINES)).replace("\n", "\r"),
    "blank lines": WIDE + "\n\n\n".join(LINES) + "\n" * 200,
    "a mark of the order of bytes": "\ufeff" + WIDE + "".join(LINES),
    "comments above": "# made by hand\n# on a Monday\n" + WIDE + "".join(LINES),
    "no header": "".join(LINES),
    "tabs and empty cells": (WIDE + "".join(LINES) + ",b,,\n").replace(",", "\t"),
    "a row with a cell too many": WIDE + "".join(LINES) + "r60,a,1,2,3\n",
    "letters beyond ASCII": (WIDE + "".join(LINES)).replace("r5", "ü"),
    "Latin-1 far down": (WIDE + "".join(LINES)).encode() + "ü,a,1,2\n".encode("cp1252"),
    "a word far down": WIDE + "".join(LINES) + "r60,a,none,2\n",
}


def _table_or_error(data: bytes) -> Any:
    source = Source("rows.csv", data=data)
    try:
        raw = read_text(source, "", lambda *_: None)
    except DataError as error:
        return error.what, error.where, error.how_to_fix
    return raw.table.to_pydict(), raw.table.schema.types, raw.n_rows, raw.notes


@pytest.mark.parametrize("kind", CUT)
def test_parts_of_a_text_give_what_the_whole_gives(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = CUT[kind]
    data = text.encode() if isinstance(text, str) else text
    whole = _table_or_error(data)
    # Types are found in the head, which is longer than any part.
    for size in (9, 64, 200, 555):
        monkeypatch.setattr(text_rows, "_PART", size)
        monkeypatch.setattr(text_rows, "IN_PARTS_FROM", 2 * size)
        assert _table_or_error(data) == whole, size


def test_a_column_that_changes_far_down_is_read_again(tmp_path: Path) -> None:
    row = ",".join(["0.1234567"] * 100)
    text = ",".join(f"logit_{i}" for i in range(100)) + ",label\n"
    text += (row + ",1\n") * 20_000 + (row + ",cat\n") + (row + ",1\n") * 2
    path = tmp_path / "late.csv"
    path.write_text(text)
    raw = read_text(Source("late.csv", path), "", lambda *_: None)
    assert raw.table["label"][20_000].as_py() == "cat"
    assert raw.table["label"][0].as_py() == "1"
    assert raw.n_rows == 20_003
