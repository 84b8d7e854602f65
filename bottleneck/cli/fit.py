"""``bottleneck fit``."""

import click

from bottleneck.cli.common import command, progress_bar, put_json
from bottleneck.garbage import no_collection


def _shares(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    from bottleneck.images.splits import Shares

    try:
        return str(Shares.parse(value))
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, parameter) from error


@command("fit", short_help="Train a head on cached features and test it.")
@click.argument("images", required=False)
@click.option("--head", default="logistic", show_default=True, type=click.Choice(["logistic", "svm", "softmax"]))
@click.option("--model", help="Whose features: a model, or a spec of `cache info`.  [default: the last extracted]")
@click.option(
    "--split",
    default="80/10/10",
    show_default=True,
    callback=_shares,
    help="Percentages train/val/test, where none are given.",
)
@click.option(
    "--C",
    "values",
    type=click.FloatRange(0, 1e30, min_open=True),
    multiple=True,
    help="Fix C, or search these values (repeat the option).",
)
@click.option("--cv", "folds", default=5, show_default=True, type=click.IntRange(2), help="Folds of the search.")
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0, 2**32 - 1), help="Equal seeds give equal heads."
)
@click.option("--allow-duplicates", is_flag=True, help="Let an image or a group stand in more than one split.")
def fit(
    images: str | None,
    head: str,
    model: str | None,
    split: str,
    values: tuple[float, ...],
    folds: int,
    seed: int,
    allow_duplicates: bool,
    as_json: bool,
    cache: str,
    runs: str,
) -> None:
    """Choose C by cross-validation on the training part, train, and test once on the held-out part.

    IMAGES is what was extracted; by default the last. The held-out part is test where there is one, else val.
    """
    with no_collection():
        from bottleneck.cli.show import run_report
        from bottleneck.fitting import fit as run

    with progress_bar(hidden=as_json) as progress:
        done = run(
            images,
            head=head,
            model=model,
            cache=cache,
            runs=runs,
            split=split,
            C=values or None,
            folds=folds,
            seed=seed,
            allow_duplicates=allow_duplicates,
            progress=progress,
        )
    run_report(done)
    if as_json:
        card, metrics = done.card, done.metrics
        put_json(
            {
                "run": str(done.path),
                "head": card["head"],
                "model": card["model"],
                "params": card["params"],
                "classes": card["classes"],
                "n_train": card["n_train"],
                "n_heldout": card["n_heldout"],
                "heldout": card["heldout"],
                "cv_accuracy": done.cv_accuracy,
                "accuracy": metrics["accuracy"],
                "accuracy_ci95": metrics["accuracy_ci95"],
                "balanced_accuracy": metrics["balanced_accuracy"],
                "macro_f1": metrics["macro_f1"],
                "failed": len(card["failures"]),
                "failures": card["failures"],
                "seconds": round(card["seconds"], 3),
            }
        )
