"""Comparisons that were never run, for pages and notebooks."""

from bottleneck.comparison.leaderboard import Comparison
from bottleneck.comparison.leaderboard_row import LeaderboardRow
from bottleneck.heads.forecast import PowerLaw
from bottleneck.heads.learning_curve import Curve, Point
from bottleneck.images.dataset import Failure

CURVE = Curve(
    (Point(20, (0.9, 0.92)), Point(200, (0.95, 0.97))), 2, PowerLaw(200, (-3.0, -0.3), ((0.01, 0), (0, 0.01)))
)


def row(model: str = "small", head: str = "svm", **changes: object) -> LeaderboardRow:
    """Return a row whose numbers do not matter, with changes."""
    made = {
        "spec": f"{model}-0123abcd",
        "params": {"C": 0.01},
        "cv_accuracy": 0.95,
        "cv_ci95": (0.9, 0.98),
        "cv_spread": 0.01,
        "accuracy": 0.9,
        "accuracy_ci95": (0.8, 0.95),
        "resolution": 0.07,
        "balanced_accuracy": 0.9,
        "log_loss": 0.3,
        "ece": 0.02,
        "extracted": 400,
        "extract_seconds": 6.0,
        "fit_seconds": 1.0,
        "dim": 100,
        "feature_bytes": 2_000_000,
        **changes,
    }
    return LeaderboardRow(model=model, head=head, **made)


ROWS = (
    row("large", "logistic"),
    row("small", "svm", cv_accuracy=0.94, p_value=0.7, verdict="not told apart", fit_seconds=0.5, feature_bytes=10**6),
    row("none", "ridge", cv_accuracy=0.6, accuracy=0.55, accuracy_ci95=(0.4, 0.7), p_value=0.0001, verdict="worse"),
)


def board(*rows: LeaderboardRow, **changes: object) -> Comparison:
    """Return a comparison of rows, by default of three, with changes."""
    made = {
        "curve": None,
        "source": "/home/me/bugs",
        "classes": ("ants", "bees"),
        "heldout": "val",
        "n_train": 240,
        "n_heldout": 150,
        "failures": (),
        "remarks": (),
        **changes,
    }
    return Comparison(rows=rows or ROWS, **made)


HOSTILE = board(
    row("<script>alert(1)</script>", "svm"),
    row("شجرة", "svm", p_value=0.5, verdict="not told apart"),
    row("網路" * 40, "ridge", p_value=0.001, verdict="worse", accuracy=0.5, cv_accuracy=0.6, extract_seconds=None),
    curve=CURVE,
    source="/home/me/<b>bugs",
    remarks=("knn on <i> is left out: too few images",),
    failures=(Failure("/home/me/<b>bugs/a/<u>\x1b.jpg", "corrupt", "not <an> image"),),
)
