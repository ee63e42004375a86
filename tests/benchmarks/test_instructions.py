"""Instructions per element, counted by valgrind: no clock, so no noise.

Valgrind knows no AVX-512: the kernels are built for AVX2, whose vectors are half as
wide, in a cache of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from benchmarks.side_by_side import Report

pytestmark = pytest.mark.benchmark

ROOT = Path(__file__).parents[2]
BUILD = {
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+avx2,+fma,+bmi,+bmi2,+lzcnt,+popcnt",
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}
ROWS, ELEMENTS = 400, 12_000_000  # many: Python's own instructions differ by a million
# A tenth above what was counted first (18.6 and 8.1), by classes of a row, with vectors
# of 8 elements: more would be a loss to explain.
MOST = {100: 20.5, 1_000: 9.0}
KERNELS = (
    "softmax",
    "log_softmax",
    "logsumexp",
    "row_statistics",
    "temperature_objective",
)
WORK = """
import sys
import numpy as np
from core import parallel
from core.softmax import log_softmax, logsumexp, row_statistics, softmax
from core.softmax import temperature_objective

parallel.configure(1)
rng = np.random.default_rng(0)
work = {{}}
for k in ({widths}):
    z = rng.standard_normal(({rows}, k), np.float32) * 4
    y, out = z.argmax(axis=1), np.empty_like(z)
    work |= {{
        f"softmax {{k}}": lambda z=z, out=out: softmax(z, out=out),
        f"log_softmax {{k}}": lambda z=z, out=out: log_softmax(z, out=out),
        f"logsumexp {{k}}": lambda z=z: logsumexp(z),
        f"row_statistics {{k}}": lambda z=z, y=y: row_statistics(z, y),
        f"temperature_objective {{k}}": (
            lambda z=z, y=y: temperature_objective(z, y, 0.7)
        ),
    }}
for call in work.values():
    call()
for name in sys.argv[1:]:
    for _ in range({elements} // ({rows} * int(name.split()[1]))):
        work[name]()
"""


def instructions(script: Path, cache: Path, *names: str) -> int:
    """Return the instructions of a process that calls these over and over."""
    log = script.with_name(f"{'-'.join(names) or 'nothing'}.log".replace(" ", "-"))
    environment = {**os.environ, **BUILD, "NUMBA_CACHE_DIR": str(cache)}
    python = [sys.executable, str(script), *names]
    counter = ["valgrind", "--tool=cachegrind", "--cache-sim=no", f"--log-file={log}"]
    counter.append("--cachegrind-out-file=/dev/null")
    subprocess.run([*counter, *python], env=environment, check=True)
    line = next(text for text in log.read_text().splitlines() if "refs:" in text)
    return int(line.rsplit(":", 1)[1].strip().replace(",", ""))


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind counts them")
def test_instructions_per_element(report: Report, tmp_path: Path) -> None:
    script, cache = tmp_path / "work.py", tmp_path / "cache"
    widths = ", ".join(map(str, MOST))
    script.write_text(WORK.format(rows=ROWS, elements=ELEMENTS, widths=widths), "utf-8")
    count = partial(instructions, script, cache)
    plain = {**os.environ, **BUILD, "NUMBA_CACHE_DIR": str(cache)}
    subprocess.run([sys.executable, str(script)], env=plain, check=True)  # compiles
    names = [f"{kernel} {k}" for k in MOST for kernel in KERNELS]
    with ThreadPoolExecutor(2) as pool:
        nothing, *all_of_them = pool.map(
            lambda given: count(*given), [(), *[(n,) for n in names]]
        )
    missed = []
    for k, most in MOST.items():
        found = {}
        for name, total in zip(names, all_of_them, strict=True):
            kernel, _, width = name.partition(" ")
            if int(width) == k:
                found[kernel] = (total - nothing) / ELEMENTS
        said = ", ".join(f"{kernel} {value:.1f}" for kernel, value in found.items())
        report.notes.append(
            f"- instructions per element, {k:,} classes (AVX2, valgrind): {said}."
        )
        missed += [kernel for kernel, value in found.items() if value > most]
    assert not missed
