"""Would more labels help? Held-out loss over nested numbers of fit rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from core.calibrators import CALIBRATORS
from core.folds import fold_numbers
from core.learning_curve import learning_curves
from core.messages import Cancelled, FitError
from core.predictions import ColumnRoles, Predictions, Study
from core.settings import Settings
from core.splitting import make_split

CHOSEN = Settings(split="holdout", n_folds=3, seed=2)


def study(n=600, k=4, *, grouped=False, seed=0):
    rng = np.random.default_rng(seed)
    z = 3 * rng.normal(size=(n, k))
    y = (z / 2 + rng.gumbel(size=z.shape)).argmax(axis=1)
    table = pd.DataFrame({"group": np.arange(n) // 5}) if grouped else None
    roles = ColumnRoles(group="group") if grouped else ColumnRoles()
    return Study(Predictions.from_arrays(z, y, metadata=table, roles=roles))


def test_the_last_size_is_the_cross_validation():
    given = study()
    found = learning_curves(given, CHOSEN, ("vector", "temperature"))
    assert list(found) == ["vector", "temperature"]
    curve, own = found["vector"], given.evaluation
    rows = make_split(given, CHOSEN).fit
    fold = fold_numbers(own.labels[rows], None, 3, seed=2)
    loss = np.empty(rows.size)
    for number in range(3):
        into, rest = rows[fold == number], rows[fold != number]
        made = CALIBRATORS["vector"]().fit(own.logits[rest], own.labels[rest])
        log_p = made.transform(own.logits[into])
        loss[fold == number] = -log_p[np.arange(into.size), own.labels[into]]
    assert curve.nll[-1] == pytest.approx(loss.mean())
    assert list(curve.sizes) == [50, 100, 200]
    assert (curve.low < curve.nll).all()
    assert curve.gain.value == pytest.approx(curve.nll[-2] - curve.nll[-1])
    # one number learns faster than eight
    first = {name: item.nll[0] - item.nll[-1] for name, item in found.items()}
    assert first["temperature"] < first["vector"]


def test_groups_stay_together_and_words_say_what_it_means():
    found = learning_curves(study(grouped=True), CHOSEN, ("temperature",))
    curve = found["temperature"]
    assert (np.diff(curve.sizes) > 0).all()
    assert "Temperature scaling" in curve.sentence
    assert curve.expected_gain >= 0


def test_more_labels_help_a_matrix_of_many_numbers():
    found = learning_curves(study(n=500, k=8), CHOSEN, ("histogram",))["histogram"]
    assert found.gain.low > 0
    assert "twice as many would bring" in found.sentence


def test_it_stops_and_it_refuses():
    def stop(fraction: float, message: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        learning_curves(study(), CHOSEN, ("temperature",), stop)
    with pytest.raises(FitError, match="no option"):
        learning_curves(
            study(),
            CHOSEN.replace(options=(("temperature", "x", 1),)),
            ("temperature",),
        )
