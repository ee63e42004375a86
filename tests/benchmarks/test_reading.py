"""A wide CSV becomes Predictions: time against Arrow's own reader, and memory."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from core.loading import read_predictions

pytestmark = pytest.mark.benchmark

N_ROWS, N_CLASSES = 50_000, 1_000
RUNS = 5
MOST_TIME, MOST_MEMORY = 1.6, 3.0

GROWTH = """
import re, sys
from pathlib import Path
import numpy as np
from core.loading import read_predictions
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


def seconds(function: Callable[[Path], Any], path: Path) -> float:
    start = time.perf_counter()
    function(path)
    return time.perf_counter() - start


def test_time_of_a_wide_file(paths: tuple[Path, Path]) -> None:
    before = pa.cpu_count()
    pa.set_cpu_count(2)
    try:
        read_predictions(paths[0])
        ratios = [
            seconds(read_predictions, paths[1])
            / seconds(pyarrow.csv.read_csv, paths[1])
            for _ in range(RUNS)
        ]
    finally:
        pa.set_cpu_count(before)
    ratio = statistics.median(ratios)
    sys.stdout.write(f"\nread_predictions / pyarrow.csv.read_csv: {ratio:.2f}\n")
    assert ratio <= MOST_TIME


def test_memory_of_a_wide_file(paths: tuple[Path, Path]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    growth = float(done.stdout)
    sys.stdout.write(f"\npeak above the start / float32 array: {growth:.2f}\n")
    assert growth <= MOST_MEMORY
