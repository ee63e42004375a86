"""Peak memory of reading, true progress and cancel, for every format of large files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest

from core.loading import open_study
from core.messages import Cancelled
from core.settings import Settings

SHAPE = (18_000, 1_000)  # more cells than text is kept of as float64
BUFFERS = 100 << 20  # what is read ahead, and the first lines as Python text
MEASURE = """
import json, sys
from core.loading import open_study
from core.settings import Settings

def status(key):
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(x.split()[1]) for x in lines if x.startswith(key))

open_study(b"label,logit_a,logit_b\\n0,1.5,2\\n1,1,3.5\\n", Settings())
found = {}
for path in sys.argv[1:]:
    before = status("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")
    logits = open_study(path, Settings())[0].evaluation.logits
    assert str(logits.dtype) == "float32", path
    found[path] = status("VmHWM") - before
    del logits
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return format -> file of the same rows."""
    folder = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    logits = rng.normal(size=SHAPE).astype(np.float32)
    labels = rng.integers(0, SHAPE[1], SHAPE[0])
    columns = {f"logit_{i}": column for i, column in enumerate(logits.T.copy())}
    wide = pa.table({"label": labels} | columns)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), SHAPE[1])
    kinds = ("csv", "parquet", "feather", "npz", "lists.parquet")
    made = {kind: folder / f"rows.{kind}" for kind in kinds}
    pyarrow.csv.write_csv(wide.slice(0, SHAPE[0] // 10), made["csv"])
    header, _, lines = made["csv"].read_bytes().partition(b"\n")
    made["csv"].write_bytes(header + b"\n" + 10 * lines)  # writing them takes long
    pyarrow.parquet.write_table(wide, made["parquet"])
    pyarrow.feather.write_feather(wide, made["feather"])
    np.savez(made["npz"], logits=logits, labels=labels)
    table = pa.table({"label": labels, "logits": lists})
    pyarrow.parquet.write_table(table, made["lists.parquet"], row_group_size=4_000)
    return made


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says the peak")
def test_no_format_takes_much_more_than_twice_the_array(files: dict[str, Path]) -> None:
    n_bytes = 4 * SHAPE[0] * SHAPE[1]
    # Each in a process of its own: what one leaves behind would help the next.
    for kind, path in files.items():
        run = subprocess.run(
            [sys.executable, "-c", MEASURE, path],
            cwd=Path(__file__).resolve().parents[1],
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(run.stdout)[str(path)] < 2.5 * n_bytes + BUFFERS, kind


@pytest.mark.parametrize("kind", ["csv", "parquet", "feather", "npz", "lists.parquet"])
def test_progress_is_true_and_cancel_stops_at_once(
    kind: str, files: dict[str, Path]
) -> None:
    seen: list[float] = []

    def report(fraction: float, _: str) -> None:
        seen.append(fraction)
        if fraction > 0.3:
            raise Cancelled

    with pytest.raises(Cancelled):
        open_study(files[kind], Settings(), progress=report)
    assert seen == sorted(seen)
    assert sum(fraction > 0.3 for fraction in seen) == 1
    # One batch of an Arrow file is the least that can be read of it.
    assert len(seen) > 1 or kind == "feather"
