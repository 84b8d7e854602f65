"""MkDocs hooks for features that its plugins lack.

A line ``<!-- include: ../README.md -->`` of a page is replaced by that file of the repository, with its links adapted,
and without its title if the page has other text. Help texts of commands are not Markdown, so they
are escaped before mkdocs-click reads them.
"""

import re
from functools import cache
from inspect import cleandoc
from os.path import normpath, relpath
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = {  # files of the repository that are included in a page
    "README.md": "docs/index.md",
    "CHANGELOG.md": "docs/changelog.md",
    "SECURITY.md": "docs/reference/security.md",
    "benchmarks/README.md": "docs/benchmarks.md",
    "cache/README.md": "docs/reference/cache-format.md",
}
INCLUDE = re.compile(r"^<!-- include: (\S+) -->$", re.MULTILINE)
TITLE = re.compile(r"\A# .*\n+")
CELL = re.compile(r"^\|.*$", re.MULTILINE)  # GitHub wants \| in the code of a table's row, Python-Markdown |
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")
MARKUP = re.compile(r"[\\\[\]*_<]")
AS_IT_IS = "\b\n"  # click's mark of a paragraph that is not wrapped


def on_config(config: Any) -> Any:
    """Write the help of all commands as Markdown."""
    write_help_as_markdown()
    return config


@cache
def write_help_as_markdown() -> None:
    """Escape Markdown markup in the help of all commands, once per process."""
    from click import Group

    from bottleneck.cli.main import cli

    commands = [cli]
    for command in commands:  # grows as groups are found
        commands += command.commands.values() if isinstance(command, Group) else ()
        command.help = "\n\n".join(map(as_markdown, cleandoc(command.help or "").split("\n\n")))


def as_markdown(paragraph: str) -> str:
    """Return a paragraph of a help text as Markdown: a block of code, or text with its markup escaped."""
    if paragraph.startswith(AS_IT_IS):
        return f"```text\n{paragraph.removeprefix(AS_IT_IS)}\n```"
    parts = paragraph.split("`")
    return "`".join(part if place % 2 else MARKUP.sub(r"\\\g<0>", part) for place, part in enumerate(parts))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the page with the files that it includes."""
    here = f"docs/{page.file.src_uri}"

    def included(match: re.Match[str]) -> str:
        source = normpath(PurePosixPath(here).parent / match[1])
        text = with_links_from(here, source, (ROOT / source).read_text(encoding="utf-8"))
        return text if markdown.strip() == match[0] else TITLE.sub("", text)

    return CELL.sub(lambda match: match[0].replace(r"\|", "|"), INCLUDE.sub(included, markdown))


def on_page_content(html: str, **_: Any) -> str:
    """Return the page without the double colons by which numpydoc begins a block of code."""
    return html.replace("<p>::</p>", "").replace("::</p>", ":</p>")


def with_links_from(page: str, source: str, text: str) -> str:
    """Return the text of `source` with its relative links written as `page` writes them."""

    def moved(match: re.Match[str]) -> str:
        target = normpath(PurePosixPath(source).parent / match[1])
        target = PAGES.get(target, target)
        return f"]({relpath(target, PurePosixPath(page).parent)}{match[2] or ''})"

    return LINK.sub(moved, text)
