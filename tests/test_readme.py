import re
from pathlib import Path

import click
import pytest

from bottleneck.cli.main import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def options(group: click.Group = cli) -> set[str]:
    """Return the options of all commands, those of groups too."""
    found = {word for command in group.commands.values() for p in command.params for word in p.opts}
    return found.union(*(options(inner) for inner in group.commands.values() if isinstance(inner, click.Group)))


@pytest.mark.parametrize("name", list(cli.commands))
def test_every_command_has_its_heading(name):
    assert f"### `bottleneck {name}" in README


def test_every_option_that_is_named_exists():
    named = set(re.findall(r"(?<![\w-])--[A-Za-z][\w-]*", README))
    assert named - options() - {"--help", "--nproc-per-node"} == set()  # the last is torchrun's


def test_every_option_but_the_selfexplaining_ones_is_explained():
    known = {word for word in options() if word.startswith("--")}
    assert known - set(re.findall(r"--[A-Za-z][\w-]*", README)) == {"--top", "--dir"}


def test_the_python_example_runs(folder):
    classes = {f"{name}/{number}.jpg": 100 * place + number for place, name in enumerate("ab") for number in range(30)}
    folder(classes, name="photos")
    folder({"x.jpg": 901, "y.jpg": 902}, name="new-photos")
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert 8 <= len(example.strip().splitlines()) <= 12
    scope = {}
    exec(example, scope)
    assert scope["features"].shape == (60, 1280)
    assert scope["again"].card == scope["run"].card
    assert [store.spec.backbone for store in scope["stores"]] == ["efficientnet_lite0"]


def test_links_to_files_lead_somewhere():
    headings = {re.sub(r"[^\w -]", "", line.strip("# ")).lower().replace(" ", "-") for line in README.splitlines()}
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert target.removeprefix("#") in headings if target.startswith("#") else (ROOT / target).exists(), target


def test_the_cache_format_can_be_read_as_the_page_says(folder):
    from bottleneck.extraction.extract import extract

    done = extract(folder({f"{name}/{number}.jpg": 1000 * ord(name) + number for name in "ab" for number in range(3)}))
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "cache" / "README.md").read_text(), re.DOTALL)
    scope = {}
    exec(example.replace("efficientnet_lite0-...", done.store.name), scope)
    rows = done.store.read(done.dataset.digests)
    assert all((scope["features"][bytes(d)] == row).all() for d, row in zip(done.dataset.digests, rows, strict=True))
    assert len(scope["features"]) == 6
