"""How each registered calibrator is exported: one file per family, one entry each."""

from core.export.methods import (
    curves,
    entropy_target,
    linear,
    mixed,
    one_vs_rest,
    order_preserving,
    prior_shift,
    proximity,
    row_temperature,
    scaling,
    tempnet,
    top_label,
)
from core.export.methods.base import (
    Export,
    GraphWriter,
    TorchWriter,
    Writer,
    n_copies_of,
    n_features_of,
)

__all__ = [
    "EXPORTS",
    "Export",
    "GraphWriter",
    "TorchWriter",
    "Writer",
    "n_copies_of",
    "n_features_of",
]

EXPORTS: dict[str, Export] = {
    **scaling.EXPORTS,
    **linear.EXPORTS,
    **mixed.EXPORTS,
    **one_vs_rest.EXPORTS,
    **curves.EXPORTS,
    **top_label.EXPORTS,
    **order_preserving.EXPORTS,
    **entropy_target.EXPORTS,
    **prior_shift.EXPORTS,
    **row_temperature.EXPORTS,
    **tempnet.EXPORTS,
    **proximity.EXPORTS,
}
"""By id of the calibrator; a contract test wants one for each."""
