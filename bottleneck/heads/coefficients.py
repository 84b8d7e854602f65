"""Fitted attributes with the names and signs of scikit-learn, for unscaled features."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.head import Head
from bottleneck.heads.linear import LinearHead

Exact = NDArray[np.float64]


class FittedMixin:
    """Access to the fitted head of a classifier."""

    head_: Any
    normalize: str
    _margin: ClassVar[bool] = False

    def _fitted_head(self, name: str, *, unless_l2: bool = False, unless_prior: bool = False) -> Any:
        """Return the fitted head.

        Raises
        ------
        AttributeError
            If the classifier is not fitted, or the attribute `name` is not defined for its head, as scikit-learn
            expects.
        """
        estimator = type(self).__name__
        head: Head | None = vars(self).get("head_")
        if head is None:
            raise AttributeError(f"{estimator!r} object has no attribute {name!r} before it is fitted")
        if unless_l2 and head.unit:
            raise AttributeError(
                f"{estimator!r} object has no attribute {name!r} with normalize='l2', which is not linear in X"
            )
        if unless_prior and isinstance(head, LinearHead) and not head.weight.any():
            raise AttributeError(f"{estimator!r} object has no attribute {name!r} where all features are constant")
        return head


class LinearMixin(FittedMixin):
    """Attributes of a classifier whose scores are linear in its features."""

    @property
    def coef_(self) -> Exact:
        """The weights ``(k, d)``, ``(1, d)`` for two classes: ``decision_function(X) = X @ coef_.T + intercept_``.

        Raises
        ------
        AttributeError
            Before `fit`, or with ``normalize="l2"``, which is not linear.
        """
        return self._per_decision(self._weights("coef_")[0])

    @property
    def intercept_(self) -> Exact:
        """The biases ``(k,)``, ``(1,)`` for two classes; see `coef_`."""
        return self._per_decision(self._weights("intercept_")[1])

    def _weights(self, name: str) -> tuple[Exact, Exact]:
        """Return the weights ``(k, d)`` and biases ``(k,)`` for unscaled features."""
        head = self._fitted_head(name, unless_l2=True)
        weight = head.weight / head.scale.astype(np.float64)
        return weight, head.bias - weight @ head.mean.astype(np.float64)

    def _per_decision(self, parts: Exact) -> Exact:
        """Return the parameters of the decision function: for two classes their difference, or half of it."""
        return parts if len(parts) > 2 else (parts[1:] - parts[:1]) / (2 if self._margin else 1)


class CentroidMixin(LinearMixin):
    """Attributes of a nearest-centroid classifier."""

    @property
    def centroids_(self) -> Exact:
        """The mean of each class, ``(k, d)``."""
        head = self._fitted_head("centroids_", unless_l2=True, unless_prior=True)
        return _unscaled(head.weight, head)


class KernelMixin(FittedMixin):
    """Attributes of a kernel SVM."""

    @property
    def support_vectors_(self) -> Exact:
        """The support vectors ``(m, d)`` as passed to `fit`, grouped by class."""
        head = self._fitted_head("support_vectors_", unless_l2=True, unless_prior=True)
        return _unscaled(head.vectors, head)

    @property
    def n_support_(self) -> NDArray[np.int32]:
        """The number of support vectors of each class, ``(k,)``."""
        count: NDArray[np.int32] = self._fitted_head("n_support_", unless_prior=True).sizes.astype(np.int32)
        return count

    @property
    def dual_coef_(self) -> Exact:
        """The coefficients of the support vectors, ``(k - 1, m)``."""
        return self._signed(self._fitted_head("dual_coef_", unless_prior=True).dual)

    @property
    def intercept_(self) -> Exact:
        """The biases of each pair of classes, ``(k (k - 1) / 2,)``."""
        return self._signed(self._fitted_head("intercept_", unless_prior=True).intercept)

    def _signed(self, values: Exact) -> Exact:
        """Return values with the sign of scikit-learn's ``SVC``: for two classes, positive is the second class."""
        return -values if len(self._fitted_head("classes").classes) == 2 else values.copy()


def _unscaled(rows: Any, head: Head) -> Exact:
    """Return the unscaled features of scaled ones ``(m, d)``."""
    given: Exact = rows.astype(np.float64) * head.scale + head.mean
    return given
