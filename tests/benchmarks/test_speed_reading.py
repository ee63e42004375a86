"""A wide CSV becomes Predictions: time against Arrow's own reader, and memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from benchmarks.side_by_side import Report, medians

from core.loading import read_predictions
from core.parallel import thread_count

pytestmark = pytest.mark.benchmark

N_ROWS, N_CLASSES = 50_000, 1_000
RUNS = 5
MOST_TIME, MOST_MEMORY = 1.6, 3.0

GROWTH = """
import re, sys
from pathlib import Path
import numpy as np
from core.loading import read_predictions
from core.parallel import thread_count
small, large = sys.argv[1:]
def peak():
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) * 1024
read_predictions(Path(small))
before = peak()
rows = read_predictions(Path(large))
assert rows.logits.dtype == np.float32
print((peak() - before) / rows.logits.nbytes)
"""


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a small and a large file of float32 logits."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("wide")
    found = []
    for n_rows in (100, N_ROWS):
        scores = rng.normal(0, 4, (n_rows, N_CLASSES)).astype(np.float32)
        columns = {f"logit_{i}": scores[:, i] for i in range(N_CLASSES)}
        columns["label"] = rng.integers(0, N_CLASSES, n_rows)
        path = folder / f"{n_rows}.csv"
        pyarrow.csv.write_csv(pa.table(columns), path)
        found.append(path)
    return found[0], found[1]


def test_time_of_a_wide_file(report: Report, paths: tuple[Path, Path]) -> None:
    before = pa.cpu_count()
    pa.set_cpu_count(thread_count())
    try:
        ours, other = medians(
            lambda: read_predictions(paths[1]),
            lambda: pyarrow.csv.read_csv(paths[1]),
            runs=RUNS,
            seconds=60,
        )
    finally:
        pa.set_cpu_count(before)
    work = f"CSV {N_ROWS:,} x {N_CLASSES:,} to Predictions"
    bar = 1 / MOST_TIME
    assert report.line(work, ours, "pyarrow.csv, the file whole", other, bar) >= bar


def test_memory_of_a_wide_file(report: Report, paths: tuple[Path, Path]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    growth = float(done.stdout)
    report.notes.append(
        f"- CSV {N_ROWS:,} x {N_CLASSES:,}: peak memory {growth:.2f} times the float32 "
        f"array (at most {MOST_MEMORY:g})."
    )
    assert growth <= MOST_MEMORY
