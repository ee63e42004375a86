"""Compile the kernels that tests call: each worker starts from a copy of this cache.

Two workers that compile one kernel at once need as long as one that compiles it for
both, and CI has a core to spare while types are checked.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from core.analysis import analyze
from core.calibrators import CALIBRATORS
from core.metrics import METRICS, Sample, estimates
from core.predictions import ColumnRoles, Predictions, Study
from core.settings import Settings
from core.softmax import logsumexp, softmax
from core.warm_up import warm_up
from tests.methods import CHEAP

N, K = 60, 3


def compile_kernels() -> None:
    """Call every kernel on a few rows, in both precisions, with and without weights."""
    warm_up()
    rng = np.random.default_rng(0)
    weight = rng.gamma(2.0, size=N)
    table = pd.DataFrame({"weight": weight, "group": np.arange(N) // 2})
    for dtype in (np.float64, np.float32):
        z = (2 * rng.normal(size=(N, K))).astype(dtype)
        y = (z / 2 + rng.gumbel(size=z.shape)).argmax(axis=1)
        logsumexp(z)
        for method in CHEAP:
            for given in (None, weight):
                CALIBRATORS[method]().fit(z, y, given).transform(z)
        for given in (None, weight):
            for metric in METRICS.values():
                metric(y, softmax(z), sample_weight=given)
        for roles in (ColumnRoles(), ColumnRoles(weight="weight", group="group")):
            own = Predictions.from_arrays(z, y, metadata=table, roles=roles)
            settings = Settings(calibrators=tuple(CHEAP), n_resamples=100)
            found = analyze(Study(own), settings)
            sample = found.overview.samples["top-label"]
            estimates(Sample(sample.scores, settings, metrics=tuple(METRICS)))


if __name__ == "__main__":
    compile_kernels()
