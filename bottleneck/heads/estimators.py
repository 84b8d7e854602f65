"""The families of heads as scikit-learn's classifiers: ``fit``, ``predict``, pipelines, grid searches."""

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
from bottleneck.heads.coefficients import Centres, Kernel, Learnt, Linear
from bottleneck.heads.family import Family, Params, family
from bottleneck.heads.features import InMemoryFeatures, Normalize
from bottleneck.heads.folds import Codes, Folds, divide, everything
from bottleneck.heads.head import softmax
from bottleneck.heads.learning import learn, positive, variance
from bottleneck.heads.problem import Problem
from bottleneck.heads.samples import Samples, folds_of

Scores = NDArray[np.float64]
_ROWS = 4096

ClassWeight = str | Mapping[Any, float] | None


class HeadClassifier(Learnt, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """What the classifiers below share.

    They do not normalize unless asked, so that on one array they solve the problems of scikit-learn's. Features are
    computed with as float32.

    Parameters
    ----------
    normalize : {"none", "shrunk", "global", "standard", "l2"}
        How the features are scaled by the rows of `fit`, if at all; see `bottleneck.heads.features.scalings`.
    class_weight : dict, "balanced" or None
        Of the classes, which are multiplied by C; ``balanced`` is ``n / (k * rows of the class)``. Where rows are
        counted and no loss is summed there is none.
    cv : int, splitter, iterable or None
        In how many stratified folds the rows are divided, or the folds themselves as scikit-learn takes them, so that
        those of each are scored by a head of the others and the scores can be made probabilities, by one factor
        (temperature scaling). It never changes a label. Where no class has two rows, an int is as
        None: `predict_proba` is then the softmax of the scores.
    random_state : int, RandomState or None
        Of the folds, and of what is learnt at random.

    Attributes
    ----------
    classes_ : ndarray, shape (k,)
        The labels, sorted.
    n_features_in_ : int
        d.
    feature_names_in_ : ndarray of str, shape (d,)
        Where `fit` was given a data frame.
    head_ : bottleneck.heads.head.Head
        What was learnt; its classes are the labels as text.
    calibrated_ : bool
        Whether its probabilities were fitted on out-of-fold scores.

    Notes
    -----
    Where no feature differs between the rows, the probability of each class is its share of the weights, and a warning
    says so. Support vectors and class means are then not defined.

    But for `Neighbours`, a row with a `sample_weight` of 3 counts as three equal rows, and one of 0 is left out, with
    its class where that has no other. Equal rows are tested in one fold, and the order of the rows has no influence.
    """

    _name: ClassVar[str]
    _margin: ClassVar[bool] = False  # whether the two scores of two classes are a margin and its negative
    _merges: ClassVar[bool] = True  # whether equal rows are one of more weight

    normalize: Normalize
    cv: Any
    random_state: Any
    class_weight: ClassWeight = None

    def _learn(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> None:
        features, labels = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(labels)
        weights: NDArray[np.float64] = np.ones(len(labels))
        if sample_weight is not None and np.asarray(sample_weight).ndim == 0:
            weights *= positive("sample_weight", np.asarray(sample_weight).item())
        elif sample_weight is not None:
            weights = check_array(sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight")
        samples = Samples.of(features, labels, weights, self._given_folds(features, labels))
        self.classes_, codes = np.unique(samples.labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise HeadError(f"expected samples of at least 2 classes, got only one class: {self.classes_[0]!r}")
        if self._merges:
            samples, codes = samples.merged(codes)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        folds = samples.folds or self._folds(codes, seed)
        task = Problem(
            table=InMemoryFeatures(samples.features),
            codes=codes,
            count=len(self.classes_),
            folds=folds or everything(len(codes)),
            normalize=self.normalize,
            balanced=self.class_weight == "balanced",
            class_weights=self._class_weights(codes),
            row_weights=samples.unequal,
            by_shares=False,  # scores are those of scikit-learn's estimators
            seed=seed,
            arrays=Arrays(),
        )
        self.head_, self.calibrated_ = learn(task, self._family(), self._point(task), [str(c) for c in self.classes_])

    def decision_function(self, X: ArrayLike) -> Scores:
        """Return the scores ``(n, k)`` of features ``(n, d)``; of two classes ``(n,)``, above 0 for the second."""
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
        return softmax(self.head_.inverse_temperature * scores) if self.calibrated_ else self._plain(scores)

    def _scores(self, X: ArrayLike) -> Scores:
        check_is_fitted(self)
        scores: Scores = self.head_.scores(validate_data(self, X, reset=False, dtype=np.float32))
        return scores

    def _plain(self, scores: Scores) -> Scores:
        """Return probabilities of scores that were not calibrated."""
        return softmax(scores)

    def _family(self) -> Family:
        return family(self._name)

    def _point(self, task: Problem) -> Params:
        return {"C": positive("C", self.C)}

    def _folds(self, codes: Codes, seed: int) -> Folds | None:
        if self.cv is None:
            return None
        return divide(codes, None, int(self.cv), seed) if np.bincount(codes).max() > 1 else None

    def _given_folds(self, features: NDArray[np.float32], labels: NDArray[Any]) -> Folds | None:
        """Return the folds that `cv` gives, where it is no number of them."""
        if self.cv is None or (isinstance(self.cv, Integral) and int(self.cv) >= 2):
            return None
        if isinstance(self.cv, str) or not (hasattr(self.cv, "split") or isinstance(self.cv, Iterable)):
            raise HeadError(f"expected cv to be None, at least two folds, or the folds themselves, got {self.cv!r}")
        return folds_of(check_cv(self.cv, labels, classifier=True).split(features, labels), len(labels))

    def _class_weights(self, codes: Codes) -> NDArray[np.float64] | None:
        """Return the weight of each class ``(k,)`` that a dict says."""
        if self.class_weight is None or self.class_weight == "balanced":
            return None
        weights: NDArray[np.float64] = compute_class_weight(
            self.class_weight, classes=self.classes_, y=self.classes_[codes]
        )
        if not (np.isfinite(weights).all() and (weights > 0).all()):
            raise HeadError(f"expected weights of classes above 0, got {self.class_weight!r}")
        return weights


class _Weighted(HeadClassifier):
    """What takes weights of rows."""

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> "HeadClassifier":
        """Train on features ``(n, d)``, labels ``(n,)`` and weights ``(n,)``, by default 1 each.

        Raises
        ------
        ValueError
            If they are no such things, or there are fewer than two classes.
        HeadError
            If a parameter or a weight is out of its range, or nothing finite comes of it. It is a ValueError.
        """
        self._learn(X, y, sample_weight)
        return self


class _Penalised(_Weighted):
    """What has a C."""

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


class Logistic(Linear, _Penalised):
    """Multinomial logistic regression, as scikit-learn's ``LogisticRegression(C)``: the bias is not penalised.

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


class LinearSVM(Linear, _Penalised):
    """Linear SVMs, one class against the rest, as scikit-learn's ``LinearSVC(C)``: the bias is penalised.

    With `class_weight` each row weighs as its class does; LIBLINEAR lets the rest of more than two weigh 1.

    Parameters
    ----------
    C : float
        The inverse of the strength of the L2 penalty.
    normalize, class_weight, cv, random_state
        See `HeadClassifier`.
    """

    _name = "svm"
    _margin = True


class KernelSVM(Kernel, _Penalised):
    """SVMs with the kernel ``exp(-gamma |x - v|^2)``, one class against one other, as scikit-learn's ``SVC(C)``.

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

    def _point(self, task: Problem) -> Params:
        return {**super()._point(task), "gamma": self._gamma(task)}

    def _gamma(self, task: Problem) -> float:
        if not isinstance(self.gamma, str):
            return positive("gamma", self.gamma)
        if self.gamma not in ("scale", "auto"):
            raise HeadError(f"expected gamma to be scale, auto or a number, got {self.gamma!r}")
        n, d = task.scaled.shape
        spread = variance(task.scaled.take(np.arange(n)), task.row_weights) if self.gamma == "scale" else 1.0
        return 1 / (d * spread) if spread else 1.0


class Softmax(Linear, _Penalised):
    """Softmax regression by mini-batches, as the last layer of a network is trained; near `Logistic`, not equal to it.

    Parameters
    ----------
    C : float
        The inverse of the strength of the L2 penalty.
    dropout : float
        The part of the features that is set to 0 at random in each step.
    epochs : int, optional
        Passes over the rows; by default 40, and fewer for more than 50,000 rows.
    normalize, class_weight, cv, random_state
        See `HeadClassifier`. It learns best from features that are normalized.
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


class Ridge(Linear, _Penalised):
    """Ridge regression on the classes as -1 and 1, as scikit-learn's ``RidgeClassifier(1 / (2 * C))``.

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
    """The votes of the nearest neighbours, as scikit-learn's ``KNeighborsClassifier``.

    Parameters
    ----------
    n_neighbors : int
        How many vote.
    normalize, cv, random_state
        See `HeadClassifier`; without `cv` a probability is the share of the votes.
    """

    _name = "knn"

    def __init__(
        self, n_neighbors: int = 5, *, normalize: Normalize = "none", cv: Any = None, random_state: Any = 0
    ) -> None:
        self.n_neighbors = n_neighbors
        self.normalize = normalize
        self.cv = cv
        self.random_state = random_state

    _merges = False

    def fit(self, X: ArrayLike, y: ArrayLike) -> "HeadClassifier":
        """Keep features ``(n, d)`` and labels ``(n,)``; raise as the others do."""
        self._learn(X, y)
        return self

    def _plain(self, scores: Scores) -> Scores:
        return scores if self.head_.form == "neighbours" else softmax(scores)

    def _point(self, task: Problem) -> Params:
        return {"neighbours": positive("n_neighbors", self.n_neighbors)}


class Centroid(Centres, _Weighted):
    """The nearest class mean, as scikit-learn's ``NearestCentroid``.

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

    def _point(self, task: Problem) -> Params:
        return {}
