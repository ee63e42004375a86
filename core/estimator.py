"""What scikit-learn expects of an estimator, without importing scikit-learn."""

from __future__ import annotations

import inspect
from typing import Any, Self

__all__ = ["Estimator"]


class Estimator:
    """Options given to the constructor, as scikit-learn reads and sets them.

    scikit-learn asks for methods and not for its `BaseEstimator`, whose import takes
    longer than an evaluation does; its own checks run over every calibrator.
    """

    @classmethod
    def _options(cls) -> dict[str, Any]:
        """Return the constructor's arguments with their defaults."""
        given = inspect.signature(cls).parameters.values()
        return {item.name: item.default for item in given}

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002, FBT001, FBT002
        """Return the options by name; none of them is an estimator of its own."""
        return {name: getattr(self, name) for name in sorted(self._options())}

    def set_params(self, **params: Any) -> Self:
        """Set options by name."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                msg = (
                    f"Invalid parameter {name!r} for estimator {self}. "
                    f"Valid parameters are: {list(known)!r}."
                )
                raise ValueError(msg)
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        """Return the constructor's call, with what differs from the defaults."""
        changed = [
            f"{name}={getattr(self, name)!r}"
            for name, default in self._options().items()
            if repr(getattr(self, name)) != repr(default)
        ]
        return f"{type(self).__name__}({', '.join(changed)})"

    def _check_is_fitted(self) -> None:
        """Raise scikit-learn's NotFittedError where nothing was fitted."""
        if any(name.endswith("_") and not name.startswith("__") for name in vars(self)):
            return
        # Importing scikit-learn is slow, and only this error needs it.
        from sklearn.exceptions import NotFittedError

        msg = (
            f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with "
            "appropriate arguments before using this estimator."
        )
        raise NotFittedError(msg)
