"""What calibrators share whose numbers a ridge holds to a common value."""

from __future__ import annotations

import numpy as np

from core.calibrators.base import Calibrator

__all__ = ["Ridged"]


class Ridged(Calibrator):
    """Base: an option says how strongly the numbers are held."""

    def __init__(self, *, ridge: float = 1.0, input: str = "logits") -> None:
        self.ridge = ridge
        super().__init__(input=input)

    def _check_ridge(self) -> None:
        if not 0.0 <= float(self.ridge) < np.inf:
            msg = f"ridge must be a finite number, 0 or more, got {self.ridge!r}"
            raise ValueError(msg)
