"""New rows whose score columns are called just as the classes of the calibrator."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from app import cli

CLASSES = ["cat", "dog", "newt"]


def test_columns_called_as_the_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(60, 3)).round(3), columns=CLASSES)
    labels = [CLASSES[i] for i in rng.integers(0, 3, 60)]
    fit, new, named = (tmp_path / f"{name}.csv" for name in ("fit", "new", "named"))
    table.assign(label=labels).to_csv(fit, index=False)
    table.assign(site="a").to_csv(new, index=False)
    table.add_prefix("logit_").to_csv(named, index=False)
    folder = tmp_path / "calibrated"
    argv = ["calibrate", str(fit), "--out", str(folder), "--n-resamples", "100"]
    assert cli.main([*argv, "--calibrators", "temperature"]) == 0
    calibrator = str(folder / "calibrator.json")
    assert json.loads(Path(calibrator).read_text())["input"] == "logits"
    made = []
    for path in (new, named):
        out = tmp_path / f"{path.stem}-out.csv"
        argv = ["apply", calibrator, str(path), "--out", str(out)]
        assert cli.main(argv) == 0
        made.append(pd.read_csv(out))
    pd.testing.assert_frame_equal(*made)
    table.drop(columns="newt").to_csv(new, index=False)
    out = str(tmp_path / "none.csv")
    argv = ["apply", calibrator, str(new), "--out", out]
    assert cli.main(argv) == 2
