"""Text that is written by hand or by other programs: nothing in it is lost."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from core.loading import DataError, read_predictions

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
def test_quotes_after_a_space_are_refused(text: str) -> None:
    with pytest.raises(DataError, match="A space stands before the quotes") as caught:
        read_predictions(text.encode(), name="rows.csv")
    assert caught.value.where in {"rows.csv, column 2", "rows.csv, column 3"}
    assert "skipinitialspace" in caught.value.how_to_fix
    assert len(read_predictions(text.replace(', "', ',"').encode())) == 2


def test_rows_with_one_cell_more_than_the_header() -> None:
    text = '"cat","dog","label"\n"1",0.9,0.1,"cat"\n"2",0.2,0.8,"dog"\n'
    with pytest.raises(DataError, match="has 4 cells, the header 3") as caught:
        read_predictions(text.encode())
    assert "row.names = FALSE" in caught.value.how_to_fix


REFUSED = """
import sys
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
    for _ in range(3):
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
