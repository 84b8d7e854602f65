"""The commands that repeat a comparison, and that fit its best row."""

from collections.abc import Sequence

from bottleneck.comparison.leaderboard import Comparison

_RBF = "-rbf"  # ends the name of an SVM with that kernel


def fit_command(found: Comparison, options: Sequence[str] = ()) -> list[str] | None:
    """Return the words of the command that fits the best row; None if the best row is a run.

    Parameters
    ----------
    found : Comparison
    options : sequence of str
        Words of the options that the user gave.
    """
    best = found.best
    if best.cv_spread is None:
        return None
    kernel = ["--kernel", "rbf"] if best.head.endswith(_RBF) else []
    head = best.head.removesuffix(_RBF)
    return ["bottleneck", "fit", found.source, "--model", best.spec, "--head", head, *kernel, *options]


def compare_command(found: Comparison, options: Sequence[str] = ()) -> list[str]:
    """Return the words of the command that repeats a comparison.

    Parameters
    ----------
    found : Comparison
    options : sequence of str
        Words of the options that the user gave, except ``--models``, ``--heads`` and ``--learning-curve``.
    """
    models = dict.fromkeys(row.model for row in found.rows)
    heads = dict.fromkeys(row.head for row in found.rows if row.cv_spread is not None)
    words = ["bottleneck", "compare", found.source, "--models", ",".join(models)]
    words += ["--heads", ",".join(heads)] if heads else []
    return [*words, *(["--learning-curve"] if found.curve else []), *options]
