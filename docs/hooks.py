"""Let pages of the manual include Markdown files of the repository, such as the README, with links that still lead there.

A line ``<!-- include: ../README.md -->`` is replaced by that file.
"""

import re
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
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the page with the files that it includes."""
    here = f"docs/{page.file.src_uri}"

    def included(match: re.Match[str]) -> str:
        source = normpath(PurePosixPath(here).parent / match[1])
        return with_links_from(here, source, (ROOT / source).read_text(encoding="utf-8"))

    return INCLUDE.sub(included, markdown)


def with_links_from(page: str, source: str, text: str) -> str:
    """Return the text of `source` with its relative links written as `page` writes them."""

    def moved(match: re.Match[str]) -> str:
        target = normpath(PurePosixPath(source).parent / match[1])
        target = PAGES.get(target, target)
        return f"]({relpath(target, PurePosixPath(page).parent)}{match[2] or ''})"

    return LINK.sub(moved, text)
