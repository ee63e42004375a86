"""Which calibrators a test can fit, by what they read beside the logits."""

from __future__ import annotations

from core.calibrators import CALIBRATORS
from core.export.methods import EXPORTS
from core.settings import Settings

ALONE = [name for name, method in CALIBRATORS.items() if method.requires == {"logits"}]
"""Those that need nothing but logits."""

WRITTEN = [name for name, method in CALIBRATORS.items() if not method.chooses]
"""Those that an export writes; the others choose one of them."""

AS_MODULES = [name for name in WRITTEN if not EXPORTS[name].refusal]
"""Those of them that are written as graphs and torch modules too."""

EXPORTED = [name for name in ALONE if name in WRITTEN]
"""Those of them that need nothing but logits."""

CHEAP = [name for name in ALONE if "restarts" not in CALIBRATORS[name]().get_params()]
"""Those of them that fit no network, which takes a second."""

QUICK = Settings(calibrators=tuple(CHEAP), n_folds=2, n_resamples=100)
"""Settings that fit all of these, in two fifths of the time that the defaults take."""
