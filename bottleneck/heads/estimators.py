"""The families of heads as scikit-learn classifiers, for pipelines and grid searches."""

from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import check_cv
from sklearn.utils import check_array, check_random_state, compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from bottleneck.errors import HeadError
from bottleneck.heads.arrays import Arrays
from bottleneck.heads.calibrated_fit import fit_calibrated, positive, variance
from bottleneck.heads.coefficients import CentroidMixin, FittedMixin, KernelMixin, LinearMixin
from bottleneck.heads.family import Family, Params, family
from bottleneck.heads.features import InMemoryFeatures, Normalize
from bottleneck.heads.folds import Codes, Folds, divide, everything
from bottleneck.heads.head import softmax
from bottleneck.heads.problem import Problem
from bottleneck.heads.samples import Samples, folds_of

Scores = NDArray[np.float64]
_ROWS = 4096

ClassWeight = str | Mapping[Any, float] | None


class HeadClassifier(FittedMixin, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Base class of the classifiers below.

    They do not normalize features by default, so that they solve the same problems as their scikit-learn counterparts.
    Features are converted to float32.

    Parameters
    ----------
    normalize : {"none", "shrunk", "global", "standard", "l2"}
        How to scale the features, based on the rows passed to `fit`; see `bottleneck.heads.features.scalings`.
    class_weight : dict, "balanced" or None
        Weights of the classes, multiplied by C; ``balanced`` is ``n / (k * rows of the class)``. Classifiers without a
        loss function do not have it.
    cv : int, splitter, iterable or None
        Number of stratified folds, or a cross-validation splitter, as in scikit-learn. Out-of-fold scores are used to
        calibrate probabilities by temperature scaling, which never changes a label. With None, and with an int if no
        class has two rows, `predict_proba` is the softmax of the scores.
    random_state : int, RandomState or None
        Seed of the folds and of randomised training.

    Attributes
    ----------
    classes_ : ndarray, shape (k,)
        The labels, sorted.
    n_features_in_ : int
        d.
    feature_names_in_ : ndarray of str, shape (d,)
        Only if `fit` was given a data frame.
    head_ : bottleneck.heads.head.Head
        The fitted head; its classes are the labels as text.
    calibrated_ : bool
        Whether probabilities were calibrated on out-of-fold scores.

    Notes
    -----
    If all features are constant, the probability of each class is its share of the weights, and a warning is issued.
    Support vectors and class means are then not defined.

    Except for `Neighbours`, a `sample_weight` of 3 is equivalent to three equal rows, and rows of weight 0 are dropped.
    Equal rows are tested in the same fold, and the order of the rows has no influence.
    """

    _name: ClassVar[str]
    _margin: ClassVar[bool] = False  # whether, for two classes, the scores are a margin and its negative
    _merges_duplicates: ClassVar[bool] = True  # whether equal rows become one row with the sum of their weights

    normalize: Normalize
    cv: Any
    random_state: Any
    class_weight: ClassWeight = None

    def _fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> None:
        features, labels = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(labels)
        weights: NDArray[np.float64] = np.ones(len(labels))
        if sample_weight is not None and np.asarray(sample_weight).ndim == 0:
            weights *= positive("sample_weight", np.asarray(sample_weight).item())
        elif sample_weight is not None:
            weights = check_array(sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight")
        samples = Samples.of(features, labels, weights, self._custom_folds(features, labels))
        self.classes_, codes = np.unique(samples.labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise HeadError(f"expected samples of at least 2 classes, got only one class: {self.classes_[0]!r}")
        if self._merges_duplicates:
            samples, codes = samples.merged(codes)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        folds = samples.folds or self._folds(codes, seed)
        problem = Problem(
            table=InMemoryFeatures(samples.features),
            codes=codes,
            count=len(self.classes_),
            folds=folds or everything(len(codes)),
            normalize=self.normalize,
            balanced=self.class_weight == "balanced",
            class_weights=self._class_weights(codes),
            row_weights=samples.unequal,
            adjust_prior=False,  # keep the scores of scikit-learn's estimators
            seed=seed,
            arrays=Arrays(),
        )
        self.head_, self.calibrated_ = fit_calibrated(
            problem, self._family(), self._params(problem), [str(c) for c in self.classes_]
        )

    def decision_function(self, X: ArrayLike) -> Scores:
        """Return the scores ``(n, k)`` of features ``(n, d)``; for two classes ``(n,)``, positive for the second."""
        scores = self._scores(X)
        if len(self.classes_) > 2:
            return scores
        decision: Scores = (scores[:, 1] - scores[:, 0]) / (2 if self._margin else 1)
        return decision

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the label ``(n,)`` of features ``(n, d)``."""
        scores = self._scores(X)
        labels: NDArray[Any] = self.classes_[scores.argmax(axis=1)]
        return labels

    def predict_proba(self, X: ArrayLike) -> Scores:
        """Return the probability of each class ``(n, k)``, in the order of `classes_`, of features ``(n, d)``."""
        scores = self._scores(X)
        return softmax(self.head_.inverse_temperature * scores) if self.calibrated_ else self._uncalibrated(scores)

    def _scores(self, X: ArrayLike) -> Scores:
        check_is_fitted(self)
        scores: Scores = self.head_.scores(validate_data(self, X, reset=False, dtype=np.float32))
        return scores

    def _uncalibrated(self, scores: Scores) -> Scores:
        """Return probabilities of uncalibrated scores."""
        return softmax(scores)

    def _family(self) -> Family:
        return family(self._name)

    def _params(self, problem: Problem) -> Params:
        return {"C": positive("C", self.C)}

    def _folds(self, codes: Codes, seed: int) -> Folds | None:
        if self.cv is None:
            return None
        return divide(codes, None, int(self.cv), seed) if np.bincount(codes).max() > 1 else None

    def _custom_folds(self, features: NDArray[np.float32], labels: NDArray[Any]) -> Folds | None:
        """Return the folds of a splitter or iterable `cv`; None if `cv` is a number of folds."""
        if self.cv is None or (isinstance(self.cv, Integral) and int(self.cv) >= 2):
            return None
        if isinstance(self.cv, str) or not (hasattr(self.cv, "split") or isinstance(self.cv, Iterable)):
            raise HeadError(f"expected cv to be None, a number of at least 2, a splitter or folds, got {self.cv!r}")
        return folds_of(check_cv(self.cv, labels, classifier=True).split(features, labels), len(labels))

    def _class_weights(self, codes: Codes) -> NDArray[np.float64] | None:
        """Return the weight of each class ``(k,)`` from a dict."""
        if self.class_weight is None or self.class_weight == "balanced":
            return None
        weights: NDArray[np.float64] = compute_class_weight(
            self.class_weight, classes=self.classes_, y=self.classes_[codes]
        )
        if not (np.isfinite(weights).all() and (weights > 0).all()):
            raise HeadError(f"expected class weights above 0, got {self.class_weight!r}")
        return weights


class _Weighted(HeadClassifier):
    """A classifier whose `fit` takes sample weights."""

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> "HeadClassifier":
        """Train on features ``(n, d)``, labels ``(n,)`` and weights ``(n,)``, by default 1 each.

        Raises
        ------
        ValueError
            If the arguments are not valid, or there are fewer than two classes.
        HeadError
            If a parameter or a weight is out of range, or the fit is not finite. It is a ValueError.
        """
        self._fit(X, y, sample_weight)
        return self


class _Penalised(_Weighted):
    """A classifier with an L2 penalty of strength 1 / C."""

    def __init__(
        self,
        C: float = 1.0,
        *,
        normalize: Normalize = "none",
        class_weight: ClassWeight = None,
        cv: Any = 5,
        random_state: Any = 0,
    ) -> None:
        self.C = C
        self.normalize = normalize
        self.class_weight = class_weight
        self.cv = cv
        self.random_state = random_state


class Logistic(LinearMixin, _Penalised):
    """Multinomial logistic regression, as scikit-learn's ``LogisticRegression(C)``; the bias is not penalised.

    Parameters
    ----------
    C : float
        The inverse of the strength of the L2 penalty.
    normalize, class_weight, cv, random_state
        See `HeadClassifier`.
    """

    _name = "logistic"

    def __init__(
        self,
        C: float = 1.0,
        *,
        normalize: Normalize = "none",
        class_weight: ClassWeight = None,
        cv: Any = None,
        random_state: Any = 0,
    ) -> None:
        super().__init__(C, normalize=normalize, class_weight=class_weight, cv=cv, random_state=random_state)


class LinearSVM(LinearMixin, _Penalised):
    """One-vs-rest linear SVM, as scikit-learn's ``LinearSVC(C)``; the bias is penalised.

    With `class_weight`, each row has the weight of its class; for k > 2, LIBLINEAR gives the rest a weight of 1.

    Parameters
    ----------
    C : float
        The inverse of the strength of the L2 penalty.
    normalize, class_weight, cv, random_state
        See `HeadClassifier`.
    """

    _name = "svm"
    _margin = True


class KernelSVM(KernelMixin, _Penalised):
    """One-vs-one SVM with the kernel ``exp(-gamma |x - v|^2)``, as scikit-learn's ``SVC(C)``.

    Parameters
    ----------
    C : float
        The inverse of the strength of the L2 penalty.
    gamma : {"scale", "auto"} or float
        ``scale`` is ``1 / (d * variance of the normalized features)``, ``auto`` is ``1 / d``.
    normalize, class_weight, cv, random_state
        See `HeadClassifier`.
    """

    _name = "svm"
    _margin = True

    def __init__(
        self,
        C: float = 1.0,
        *,
        gamma: str | float = "scale",
        normalize: Normalize = "none",
        class_weight: ClassWeight = None,
        cv: Any = 5,
        random_state: Any = 0,
    ) -> None:
        super().__init__(C, normalize=normalize, class_weight=class_weight, cv=cv, random_state=random_state)
        self.gamma = gamma

    def _family(self) -> Family:
        return family(self._name, kernel="rbf")

    def _params(self, problem: Problem) -> Params:
        return {**super()._params(problem), "gamma": self._gamma(problem)}

    def _gamma(self, problem: Problem) -> float:
        if not isinstance(self.gamma, str):
            return positive("gamma", self.gamma)
        if self.gamma not in ("scale", "auto"):
            raise HeadError(f"expected gamma to be scale, auto or a number, got {self.gamma!r}")
        n, d = problem.scaled.shape
        spread = variance(problem.scaled.take(np.arange(n)), problem.row_weights) if self.gamma == "scale" else 1.0
        return 1 / (d * spread) if spread else 1.0


class Softmax(LinearMixin, _Penalised):
    """Softmax regression by mini-batch SGD, as for the last layer of a network; close but not equal to `Logistic`.

    Parameters
    ----------
    C : float
        The inverse of the strength of the L2 penalty.
    dropout : float
        Fraction of the features set to 0 at random in each step.
    epochs : int, optional
        Passes over the rows; 40 by default, fewer for more than 50,000 rows.
    normalize, class_weight, cv, random_state
        See `HeadClassifier`. Training works best on normalized features.
    """

    _name = "softmax"

    def __init__(
        self,
        C: float = 1.0,
        *,
        dropout: float = 0.0,
        epochs: int | None = None,
        normalize: Normalize = "none",
        class_weight: ClassWeight = None,
        cv: Any = None,
        random_state: Any = 0,
    ) -> None:
        super().__init__(C, normalize=normalize, class_weight=class_weight, cv=cv, random_state=random_state)
        self.dropout = dropout
        self.epochs = epochs

    def _family(self) -> Family:
        return family(self._name, dropout=self.dropout, epochs=self.epochs)


class Ridge(LinearMixin, _Penalised):
    """Ridge regression on targets -1 and 1, as scikit-learn's ``RidgeClassifier(1 / (2 * C))``.

    Parameters
    ----------
    C : float
        The inverse of the strength of the L2 penalty.
    normalize, class_weight, cv, random_state
        See `HeadClassifier`.
    """

    _name = "ridge"
    _margin = True


class Neighbours(HeadClassifier):
    """Vote of the nearest neighbours, as scikit-learn's ``KNeighborsClassifier``.

    Parameters
    ----------
    n_neighbors : int
        Number of neighbours.
    normalize, cv, random_state
        See `HeadClassifier`; without `cv`, a probability is the share of the votes.
    """

    _name = "knn"
    _merges_duplicates = False

    def __init__(
        self, n_neighbors: int = 5, *, normalize: Normalize = "none", cv: Any = None, random_state: Any = 0
    ) -> None:
        self.n_neighbors = n_neighbors
        self.normalize = normalize
        self.cv = cv
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> "HeadClassifier":
        """Store features ``(n, d)`` and labels ``(n,)``; errors are those of the other classifiers."""
        self._fit(X, y)
        return self

    def _uncalibrated(self, scores: Scores) -> Scores:
        return scores if self.head_.form == "neighbours" else softmax(scores)

    def _params(self, problem: Problem) -> Params:
        return {"neighbours": positive("n_neighbors", self.n_neighbors)}


class Centroid(CentroidMixin, _Weighted):
    """Nearest class mean, as scikit-learn's ``NearestCentroid``.

    Parameters
    ----------
    normalize, cv, random_state
        See `HeadClassifier`.
    """

    _name = "centroid"

    def __init__(self, *, normalize: Normalize = "none", cv: Any = 5, random_state: Any = 0) -> None:
        self.normalize = normalize
        self.cv = cv
        self.random_state = random_state

    def _params(self, problem: Problem) -> Params:
        return {}
