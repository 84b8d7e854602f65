"""What a head has learnt, under the names and signs of scikit-learn, for features as they are given to it."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.head import Head
from bottleneck.heads.linear import LinearHead

Exact = NDArray[np.float64]


class Learnt:
    """A classifier that may have learnt a head."""

    head_: Any
    normalize: str
    _margin: ClassVar[bool] = False

    def _learnt(self, name: str, *, unless_l2: bool = False, unless_prior: bool = False) -> Any:
        """Return the head.

        Raises
        ------
        AttributeError
            If there is none yet, or what `name` asks for is not defined, as scikit-learn expects.
        """
        own = type(self).__name__
        head: Head | None = vars(self).get("head_")
        if head is None:
            raise AttributeError(f"{own!r} object has no attribute {name!r} before it is fitted")
        if unless_l2 and head.unit:
            raise AttributeError(
                f"{own!r} object has no attribute {name!r} with normalize='l2': rows of one length are not linear in X"
            )
        if unless_prior and isinstance(head, LinearHead) and not head.weight.any():
            raise AttributeError(f"{own!r} object has no attribute {name!r} where all features are constant")
        return head


class Linear(Learnt):
    """A classifier whose scores are linear in its features, whatever scaling it has learnt beside."""

    @property
    def coef_(self) -> Exact:
        """The weights ``(k, d)``, of two classes ``(1, d)``, with ``decision_function(X) = X @ coef_.T + intercept_``.

        Raises
        ------
        AttributeError
            Before `fit`, and with ``normalize="l2"``, which is not linear.
        """
        return self._decided(self._weights("coef_")[0])

    @property
    def intercept_(self) -> Exact:
        """The biases ``(k,)``, of two classes ``(1,)``; see `coef_`."""
        return self._decided(self._weights("intercept_")[1])

    def _weights(self, name: str) -> tuple[Exact, Exact]:
        """Return the weights ``(k, d)`` and biases ``(k,)`` of each class with the scaling in them."""
        head = self._learnt(name, unless_l2=True)
        weight = head.weight / head.scale.astype(np.float64)
        return weight, head.bias - weight @ head.mean.astype(np.float64)

    def _decided(self, parts: Exact) -> Exact:
        """Return what the decision consists of: of two classes the difference, or half of it."""
        return parts if len(parts) > 2 else (parts[1:] - parts[:1]) / (2 if self._margin else 1)


class Centres(Linear):
    """A classifier by class means."""

    @property
    def centroids_(self) -> Exact:
        """The mean of each class, ``(k, d)``."""
        head = self._learnt("centroids_", unless_l2=True, unless_prior=True)
        return _as_given(head.weight, head)


class Kernel(Learnt):
    """A classifier by support vectors."""

    @property
    def support_vectors_(self) -> Exact:
        """The support vectors ``(m, d)``, those of the first class first, as `fit` was given them."""
        head = self._learnt("support_vectors_", unless_l2=True, unless_prior=True)
        return _as_given(head.vectors, head)

    @property
    def n_support_(self) -> NDArray[np.int32]:
        """How many support vectors each class has, ``(k,)``."""
        count: NDArray[np.int32] = self._learnt("n_support_", unless_prior=True).sizes.astype(np.int32)
        return count

    @property
    def dual_coef_(self) -> Exact:
        """The coefficients of the support vectors, ``(k - 1, m)``."""
        return self._signed(self._learnt("dual_coef_", unless_prior=True).dual)

    @property
    def intercept_(self) -> Exact:
        """The biases of each pair of classes, ``(k (k - 1) / 2,)``."""
        return self._signed(self._learnt("intercept_", unless_prior=True).intercept)

    def _signed(self, values: Exact) -> Exact:
        """Return values as scikit-learn's ``SVC`` has them: of two classes those for the second."""
        return -values if len(self._learnt("classes").classes) == 2 else values.copy()


def _as_given(rows: Any, head: Head) -> Exact:
    """Return rows of scaled features ``(m, d)`` as they were before a head scaled them."""
    given: Exact = rows.astype(np.float64) * head.scale + head.mean
    return given
