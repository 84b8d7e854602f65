"""``bottleneck runs``."""

from __future__ import annotations

import click

from bottleneck.cli.common import InOrder, command
from bottleneck.cli.output import put_json, say, show

_LIST = "list"


class _ListsByDefault(InOrder):
    """Runs ``list`` if no subcommand is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert ``list`` before options, except for those of the help."""
        is_bare = not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names)
        return super().parse_args(ctx, [_LIST, *args] if is_bare else args)


@click.group("runs", cls=_ListsByDefault, short_help="List and manage runs: list, show, compare, rm.")
def runs_group() -> None:
    """List the runs, describe one, compare several, or delete some. Without a subcommand, list them."""


@command(_LIST, short_help="List the runs with their accuracy and size.")
def list_(as_json: bool, cache: str, runs: str) -> None:
    """List the runs and the unfinished fine-tunings in --runs, oldest first.

    Each accuracy is followed by its 95 % interval, which applies to a single run: `bottleneck runs compare` compares
    runs image by image.
    """
    from bottleneck.cli.show_runs import runs_list
    from bottleneck.runs.listing import summaries

    found = summaries(runs)
    show(*runs_list(found, runs))
    if as_json:
        put_json({"folder": runs, "bytes": sum(run.bytes for run in found), "runs": [run.to_json() for run in found]})


@command("show", short_help="Describe a run: what, on what, how well, its files.")
@click.argument("name", required=False, metavar="[RUN]")
def show_(name: str | None, as_json: bool, cache: str, runs: str) -> None:
    """Describe RUN: what was trained on what, how well it predicts, how to make it again, and its files.

    RUN is NAME or run:NAME in --runs, or ./PATH. It defaults to the run that `bottleneck predict` uses.
    """
    from bottleneck.cli.show_runs import run_card
    from bottleneck.prediction.predict import run_for
    from bottleneck.reporting.run_description import describe_run

    chosen = run_for(name, runs)
    if name is None:
        say(str(chosen))
    found = describe_run(chosen.run)
    show(*run_card(found))
    if as_json:
        put_json(found.to_json())


@command("compare", short_help="Compare runs on the held-out images that they share.")
@click.argument("names", nargs=-1, required=True, metavar="RUN RUN...")
def compare_(names: tuple[str, ...], as_json: bool, cache: str, runs: str) -> None:
    """Compare each later RUN with the first one: their settings, and their predictions for held-out images.

    Only images that both were tested on and neither was trained on are compared, one by one, by McNemar's test. Nothing
    is computed again. For runs that were not tested on the same images, use `bottleneck evaluate --against`.
    """
    from bottleneck.cli.show_runs import side_by_side_lines
    from bottleneck.runs.pairs import side_by_side
    from bottleneck.runs.run import find_run

    found = side_by_side([find_run(runs, name) for name in names])
    show(*side_by_side_lines(found))
    if as_json:
        put_json(found.to_json())


@command("rm", short_help="Delete runs, unless others need them; try --dry-run first.")
@click.argument("names", nargs=-1, required=True, metavar="RUN...")
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@click.option("--force", is_flag=True, help="Also delete runs that other runs, or features in the cache, need.")
def rm(names: tuple[str, ...], dry_run: bool, force: bool, as_json: bool, cache: str, runs: str) -> None:
    """Delete runs and unfinished fine-tunings. If one of them must be kept, none is deleted.

    A run is needed if its fine-tuned weights computed features in --cache or are the network of another run, or if an
    unfinished fine-tuning begins with its head. Only files of bottleneck are deleted; others stay, and are listed.
    """
    from bottleneck.cli.show_runs import removed_lines
    from bottleneck.runs.removal import remove_runs

    gone = remove_runs(names, runs=runs, cache=cache, dry_run=dry_run, force=force)
    show(*removed_lines(gone, dry_run=dry_run))
    if as_json:
        put_json({"folder": runs, "dry_run": dry_run, "deleted": [run.to_json() for run in gone]})


for _command in (list_, show_, compare_, rm):
    runs_group.add_command(_command)
