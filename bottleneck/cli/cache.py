"""``bottleneck cache``."""

from __future__ import annotations

import click

from bottleneck.cli.common import InOrder, at_home, check_out, command, give_up, is_file, layout_of, progress_bar
from bottleneck.cli.defaults import images_line
from bottleneck.cli.memory_option import memory_option
from bottleneck.cli.numbers import RealNumber, WholeNumber
from bottleneck.cli.output import put_json, say, show
from bottleneck.utils.text import counted

_PARTS = ("map", "neighbours", "pictures")


def _parts(ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> tuple[str, ...]:
    """Read ``--with map --with pictures`` and ``--with map,pictures`` alike."""
    given = [part.strip() for text in texts for part in text.split(",")]
    if unknown := [part for part in given if part not in _PARTS]:
        raise click.BadParameter(f"expected {', '.join(_PARTS)}, got {unknown[0]!r}", ctx, parameter)
    return tuple(dict.fromkeys(given))


@click.group("cache", cls=InOrder, short_help="Manage the cache: info, verify, merge, compact, export, rm, gc.")
def cache() -> None:
    """Manage the feature cache."""


@command("info", short_help="List the contents of the cache.")
def info(as_json: bool, cache: str, runs: str) -> None:
    """List the specs with their images, sizes and dates, and the activations that fine-tuning has cached."""
    from bottleneck.cache.feature_cache import FeatureCache
    from bottleneck.cache.maintain import empty_message
    from bottleneck.cache.maintain import info as look
    from bottleneck.cli.show import activations_list, specs_list

    home = FeatureCache(cache)
    features, activations = (look(room) for room in home.rooms())
    specs_list(features)
    total, rows = sum(spec.bytes for spec in features), sum(spec.images for spec in features)
    show(f"{counted(len(features), 'spec')}, {counted(rows, 'row')}, {total / 1e6:,.1f} MB in {cache}")
    if not features and not activations:
        say(empty_message(home))
    if activations:
        activations_list(activations)
    if as_json:
        stores = {"specs": features, "activations": activations}
        listed = {name: [spec.to_json() for spec in found] for name, found in stores.items()}
        put_json({"cache": cache, "bytes": total, **listed})


@command("verify", short_help="Verify all checksums; exit 1 if any fails.")
def verify(as_json: bool, cache: str, runs: str) -> None:
    """Read every shard and verify its checksum. Damaged shards move to quarantine; `extract` computes them again."""
    from bottleneck.cache.feature_cache import FeatureCache
    from bottleneck.cache.maintain import verify as check

    with progress_bar(hidden=as_json) as progress:
        found = check(FeatureCache(cache), progress)
    if as_json:
        put_json({"cache": cache, **found.to_json()})
    for problem in found.damage:
        show(problem)
    shards = counted(found.shards, "shard")
    if found.damage:
        give_up(f"expected {found.shards} intact shards, found {counted(len(found.damage), 'problem')}")
    show(f"{shards}, all intact" if found.shards else f"{shards}: there is nothing to verify in {cache}")


@command("merge", short_help="Copy the features of other caches.")
@click.argument("sources", nargs=-1, required=True, metavar="SRC...")
@click.option(
    "--recompute",
    type=WholeNumber(0),
    default=3,
    show_default=True,
    metavar="N",
    help="Recompute N random images of each spec, if they are on this machine, and refuse specs that differ.",
)
def merge(sources: tuple[str, ...], recompute: int, as_json: bool, cache: str, runs: str) -> None:
    """Copy features that this cache lacks from the caches SRC, which may come from other machines and do not change."""
    from bottleneck.cache.feature_cache import FeatureCache
    from bottleneck.cache.merge import merge as join
    from bottleneck.extraction.recompute import Recomputation

    done, home = [], FeatureCache(cache)
    with progress_bar(hidden=as_json) as progress:
        for source in sources:
            inspect = Recomputation(home, source, recompute) if recompute else None
            done.append(found := join(home, source, progress, inspect=inspect))
            added, scans = counted(found.added, "image"), counted(found.scans, "scan")
            show(f"{source}: {added} added, {found.known} already present, {scans}; {found.recomputed} recomputed")
            for note in found.notes:
                say(note)
    problems = [problem for merged in done for problem in merged.problems]
    if as_json:
        put_json({"cache": cache, "merged": [merged.to_json() for merged in done]})
    for problem in problems:
        say(problem)
    if problems:
        give_up(f"{counted(len(problems), 'item')} could not be merged; all others were merged")


@command("compact", short_help="Join small shards.")
@click.argument("spec", required=False)
def compact(spec: str | None, as_json: bool, cache: str, runs: str) -> None:
    """Join small shards of SPEC, or of all specs, into larger ones. Other processes can read and extract meanwhile."""
    from bottleneck.cache.compact import compact as join
    from bottleneck.cache.feature_cache import FeatureCache, find_anywhere
    from bottleneck.cache.maintain import expect_folder

    home = FeatureCache(cache)
    expect_folder(home)
    done: dict[str, dict[str, dict[str, int]]] = {room.room: {} for room in home.rooms()}
    for store in [find_anywhere(home, spec)] if spec else [store for room in home.rooms() for store in room.stores()]:
        sizes = join(store)
        done[store.folder.parent.name][store.name] = sizes.to_json()
        show(f"{store.short_name}: {counted(sizes.before, 'shard')} before, {sizes.after} after")
    if not any(done.values()):
        show(f"0 specs: there is nothing to compact in {cache}")
    if as_json:
        put_json({"cache": cache, "specs": done["features"], "activations": done["activations"]})


@command("export", short_help="Write features to a file for other programs.")
@click.argument("images", required=False)
@click.option(
    "--format",
    "layout",
    type=click.Choice(["npz", "h5", "parquet"]),
    help="Format of the file.  [default: by the ending of --out]",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, readable=False),
    callback=at_home,
    metavar="FILE",
    help="The file to write: .npz, .h5, .hdf5 or .parquet.",
)
@click.option("--model", help="Write the features of this model.  [default: the last extracted from IMAGES]")
@click.option("--no-labels", is_flag=True, help="Use every image in IMAGES, without labels.")
@click.option(
    "--with",
    "parts",
    multiple=True,
    callback=_parts,
    metavar="PART[,PART...]",
    help="Add columns for maps of images to a Parquet file. map: x and y, the first two principal components; "
    "neighbours: the 15 most similar images; pictures: JPEGs of at most 96 pixels.",
)
@memory_option(
    "Memory for the features that --with computes from, such as 2G or 500M.  [default: half of the free memory]"
)
def export(
    images: str | None,
    layout: str | None,
    out: str,
    model: str | None,
    no_labels: bool,
    parts: tuple[str, ...],
    memory: int | None,
    as_json: bool,
    cache: str,
    runs: str,
) -> None:
    """Write digest, path, label, split and features of IMAGES to one file.

    IMAGES defaults to the images last extracted in this folder.
    """
    from bottleneck.cache.export import LAYOUTS
    from bottleneck.cli.show import failures_list
    from bottleneck.fitting.inputs import select
    from bottleneck.reporting.atlas_table import export_atlas

    layout = layout_of(out, layout, LAYOUTS)
    if not is_file(out):
        raise click.UsageError(f"expected --out FILE, got {out!r}: features cannot be written to stdout")
    if parts and layout != "parquet":
        raise click.UsageError(f"expected --out FILE.parquet for --with {','.join(parts)}, got {out!r}")
    check_out(out, [images] if images else [])
    images_line(images, cache, model)
    with progress_bar(hidden=as_json) as progress:
        labels = False if no_labels else None
        chosen = select(images, model=model, cache=cache, runs=runs, labels=labels, progress=progress)
        hidden = export_atlas(chosen.store, chosen.usable, out, layout, parts=parts, memory=memory, progress=progress)
    failures_list(chosen.failures + hidden)
    more, lacking = f" with {', '.join(parts)}" * bool(parts), f", {len(hidden)} without a picture" * bool(hidden)
    rows = f"{counted(len(chosen.usable), 'row')} written to {out} ({layout}){more}"
    show(f"{rows}, {len(chosen.failures)} failed{lacking}")
    if as_json:
        counts = {"rows": len(chosen.usable), "failed": len(chosen.failures), "without_picture": len(hidden)}
        put_json({"out": out, "format": layout, "with": list(parts), "spec": chosen.store.name, **counts})


@command("rm", short_help="Delete all features, or activations, of a spec.")
@click.argument("spec")
def rm(spec: str, as_json: bool, cache: str, runs: str) -> None:
    """Delete SPEC, named as in `bottleneck cache info`: the model, or the beginning of MODEL-FINGERPRINT.

    If features and activations have the same name, write features/SPEC or activations/SPEC.
    """
    from bottleneck.cache.feature_cache import FeatureCache
    from bottleneck.cache.maintain import remove

    gone = remove(FeatureCache(cache), spec)
    show(f"deleted {gone.short_name}: {counted(gone.images, 'image')}, {gone.bytes / 1e6:,.1f} MB")
    if as_json:
        put_json({"cache": cache, "deleted": gone.to_json()})


@command("gc", short_help="Delete what is no longer needed; try --dry-run first.")
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@click.option(
    "--days",
    default=14.0,
    show_default=True,
    type=RealNumber(0, 999_999),
    help="Keep files that are younger than this number of days: a running extraction may need them.",
)
def gc(dry_run: bool, days: float, as_json: bool, cache: str, runs: str) -> None:
    """Delete unfinished files, quarantined shards, and features of images that no dataset lists any more.

    Activations are deleted in the same way. All activations of a spec are deleted if it was not used for --days days.
    """
    from bottleneck.cache.feature_cache import FeatureCache
    from bottleneck.cache.maintain import gc as sweep

    found = sweep(FeatureCache(cache), days=days, dry_run=dry_run)
    for path in found.paths:
        show(f"  {path}")
    for path in found.left:
        show(f"  {path} is kept: it is a link, or not a file of bottleneck")
    old = f"activations of {counted(found.activations, 'spec')}, " if found.activations else ""
    more = f"{counted(found.young, 'other row')} {'is' if found.young == 1 else 'are'}"
    young = f"; {more} not needed, but younger than {days:g} days" if found.young else ""
    show(
        f"{'would delete' if dry_run else 'deleted'} features of {counted(found.images, 'image')}, {old}"
        f"{counted(found.temporaries, 'unfinished file')}, {found.quarantined} in quarantine, "
        f"{counted(found.memos, 'memo')}: {found.bytes / 1e6:,.1f} MB{young}"
    )
    if as_json:
        put_json({"cache": cache, "dry_run": dry_run, **found.to_json()})


for _command in (info, verify, merge, compact, export, rm, gc):
    cache.add_command(_command)
