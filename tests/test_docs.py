"""The manual and the README: their commands and Python blocks run, page by page, and what they name exists."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import pytest
from click.testing import CliRunner

from bottleneck.cli.main import cli
from tests.conftest import write
from tests.variants import each

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in (README, *sorted(DOCS.rglob("*.md")))
}
FENCE = re.compile(r"^(?:<!-- not run: (?P<reason>.*?) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)
SHELL = re.compile(r"[|<>*;&$]")
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
FIRST = 1000  # a seed by which the hash gives each class images in all splits
COUNT = 12  # pictures of each class
QUICK = "--engine torch --precision fp32"  # what makes the features; pages find them and need choose no engine
# Features that pages find, besides those of photos/ and of the other folders with the default network.
FOUND = {
    "docs/guides/backbones.md": (
        "photos/ --model resnet18 --weights none",
        "photos/ --layer blocks.5 --pool avg",
        "photos/ --layer blocks.4 --layer blocks.6",
    ),
    "docs/guides/distributed.md": ("photos/ --cache shared-cache",),
    "docs/guides/fit.md": ("photos/ --model mobilenet_v3_small --weights none",),
    "docs/guides/notebook.md": ("photos/ --cache ../cache --runs ../runs",),
}
CLASSES = {"ants": (150, 60, 40), "bees": (200, 170, 60)}
OF_OTHERS = {"--nproc-per-node", "--x", "--y", "--neighbors", "--image"}  # of torchrun and embedding-atlas


class Block(NamedTuple):
    """A block of code, and why it does not run."""

    reason: str | None
    language: str
    code: str


def blocks(text: str) -> list[Block]:
    return [Block(*found.groups()) for found in FENCE.finditer(text)]


def runnable(text: str) -> list[Block]:
    return [block for block in blocks(text) if block.language in ("bash", "python") and block.reason is None]


# --- what the pages name ----------------------------------------------------------------------------------------------


def commands(group: click.Group = cli, name: str = "") -> dict[str, click.Command]:
    """Return all commands by name, those of groups too."""
    found: dict[str, click.Command] = {}
    for one, command in group.commands.items():
        found |= commands(command, f"{name}{one} ") if isinstance(command, click.Group) else {f"{name}{one}": command}
    return found


def options() -> set[str]:
    return {word for command in commands().values() for one in command.params for word in one.opts}


def named_options(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[A-Za-z][\w-]*", text))


WRITTEN = "\n".join(text for page, text in PAGES.items() if page != "docs/changelog.md")


def test_every_option_that_is_named_exists():
    assert named_options(WRITTEN) - options() - {"--help"} == OF_OTHERS


def test_every_option_is_explained():
    assert {word for word in options() if word.startswith("--")} <= named_options(WRITTEN)


def test_every_command_is_described():
    assert [name for name in commands() if f"bottleneck {name}" not in WRITTEN] == []


@each("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)", PAGES[page]):
        assert (ROOT / page).parent.joinpath(target).exists(), target


@each("page", PAGES)
def test_code_is_a_command_python_or_text(page):
    for block in blocks(PAGES[page]):
        assert block.language in ("bash", "python", "text"), block
        assert not (block.language == "text" and re.search(r"^\$? ?bottleneck [a-z]", block.code, re.M)), block


def test_the_modules_that_the_manual_names_exist():
    folders = ("bottleneck", "tests", "benchmarks", "docs")
    files = {path.relative_to(ROOT).as_posix() for folder in folders for path in (ROOT / folder).rglob("*.py")}
    files |= {path.name for path in ROOT.glob("*.py")}
    named = {(page, name) for page, text in PAGES.items() for name in re.findall(r"`([a-z_0-9/]+\.py)", text)}

    assert len(named) > 50
    assert [
        (page, name) for page, name in sorted(named) if not any(f"/{file}".endswith(f"/{name}") for file in files)
    ] == []


def test_each_page_is_in_the_navigation():
    listed = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M))
    assert listed == {page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")}


# --- what the pages do ------------------------------------------------------------------------------------------------


def picture(seed: int, colour: tuple[int, int, int]) -> bytes:
    """Return a small image of one colour with coarse and fine noise: PPM bytes, as no library writes them."""
    random = np.random.default_rng(seed)
    coarse = random.normal(colour, 40, (6, 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
    pixels = coarse + random.normal(0, 30, coarse.shape)
    return b"P6 64 48 255\n" + pixels.clip(0, 255).astype(np.uint8).tobytes()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """Return a folder with the images and tables that pages use, and a cache with their features."""
    home = tmp_path_factory.mktemp("manual")
    for place, (name, colour) in enumerate(CLASSES.items()):
        for number in range(COUNT + 4):
            kind = "photos" if number < COUNT else "test-photos"
            write(home / kind / name / f"{number}.jpg", picture(FIRST + 100 * place + number, colour))
        for number in range(2):
            write(home / "new-photos" / f"{3 * place + number}.jpg", picture(1000 * place + number, colour))
    rows = [
        (f"photos/{name}/{number}.jpg", name, "test" if number >= 8 else "train", f"{name}-{number // 4}")
        for name in CLASSES
        for number in range(COUNT)
    ]
    table(home / "animals.csv", [("path", "label", "split", "group"), *rows])
    others = [(path, label, "yes" if split == "test" else "no", group) for path, label, split, group in rows]
    table(home / "insects.csv", [("file", "species", "is_valid", "nest"), *others])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for images in ("photos/", "new-photos/", "test-photos/"):
            invoke(f"extract {images} --no-labels {QUICK}")
    shutil.rmtree(home / "cache" / "last")
    return home


def table(path: Path, rows: list[tuple[str, ...]]) -> None:
    path.write_text("".join(",".join(row) + "\n" for row in rows), encoding="utf-8")


def invoke(line: str) -> int:
    done = CliRunner().invoke(cli, shlex.split(line, comments=True))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, f"{line}\n{done.output}"
    return done.exit_code


def run_line(line: str) -> int:
    """Run a command in this process, where torch is imported, or in a shell if it needs one; return its exit code."""
    if not shlex.split(line, comments=True):
        return 0
    if SHELL.search(QUOTED.sub("", line.partition("  #")[0])):
        shell = f'bottleneck() {{ "{sys.executable}" -m bottleneck "$@"; }}\n{line}'
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(["bash", "-eo", "pipefail", "-c", shell], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        return done.returncode
    name, _, rest = line.partition(" ")
    assert name == "bottleneck", f"expected a command of bottleneck or a mark <!-- not run: REASON -->, got {line}"
    return invoke(rest)


def lines(text: str) -> list[str]:
    """Return the commands that a page runs, without comments."""
    code = "\n".join(block.code for block in runnable(text) if block.language == "bash")
    return [words for line in code.splitlines() if (words := shlex.join(shlex.split(line, comments=True)))]


LONG = {line for line in lines(PAGES["README.md"]) if line.startswith(("bottleneck compare", "bottleneck finetune"))}


def needs_a_run(page: str) -> bool:
    """Return whether a page shows a command that the README does not show."""
    is_python = any(block.language == "python" for block in runnable(PAGES[page]))
    return page == "README.md" or is_python or not set(lines(PAGES[page])) <= set(lines(PAGES["README.md"]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bottleneck.errors.BottleneckWarning")
@pytest.mark.parametrize("page", [page for page in PAGES if needs_a_run(page)])
def test_a_page_does_what_it_shows(page, prepared, tmp_path, monkeypatch):
    home = shutil.copytree(prepared, tmp_path / "manual")  # its files keep their time stamps
    monkeypatch.chdir(home)
    for words in FOUND.get(page, ()):
        invoke(f"extract {words} {QUICK}")
    scope: dict[str, object] = {}
    for block in runnable(PAGES[page]):
        if block.language == "python":
            exec(compile(block.code, page, "exec"), scope)
        else:
            for line in block.code.splitlines():
                if page == "README.md" or shlex.join(shlex.split(line, comments=True)) not in LONG:
                    assert run_line(line) == 0, line


# --- the site ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mkdocs") is None, reason="MkDocs is not installed: pip install '.[docs]'")
def test_the_site_has_every_command_option_and_public_name(tmp_path):
    import bottleneck

    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    page = text_of(tmp_path / "site" / "reference" / "cli.html")
    for name, command in commands().items():
        start = page.index(f"bottleneck {name} [OPTIONS]")
        section = page[start : page.find("Usage:", start) if "Usage:" in page[start:] else None]
        assert {word for one in command.params if isinstance(one, click.Option) for word in one.opts} <= set(
            re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", section)
        ), name
    assert "path,label[,split][,group]" in page
    assert "\n  bottleneck" not in page  # a list of commands that was run together
    names = text_of(tmp_path / "site" / "reference" / "api.html")
    assert all(re.search(rf"\b{name}\b", names) for name in bottleneck.__all__ if not name.startswith("_"))


def text_of(page: Path) -> str:
    return unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))
