"""The SHA-256 of published weights, kept in a cache from their first use on.

The name of a file of torchvision has eight digits of its hash, which others can be made to have. What a cache has
features of is known by all of it: other bytes under that name are refused, by everybody who shares the cache.
"""

import re
from contextlib import suppress
from pathlib import Path

from bottleneck.backbones.downloads import Published
from bottleneck.errors import ModelError
from bottleneck.utils.tree import Tree

FILE = "weights.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_first_use(published: Published | None, cache: Path) -> None:
    """Keep the hash of published weights in a cache, or compare it with the one that is kept.

    Parameters
    ----------
    published : Published, optional
        Nothing is done without.
    cache : Path
        Its folder.

    Raises
    ------
    ModelError
        If it is another.
    """
    if published is None:
        return
    known = _known_hashes(cache)
    before = known.get(published.name)
    if before is None:
        with suppress(OSError):
            Tree(cache).write_json(cache / FILE, {**known, published.name: published.sha256})
    elif before != published.sha256:
        raise ModelError(
            f"expected the weights {published.name} that were used first with this cache, SHA-256 {before}; found "
            f"{published.sha256}. Fetch them again; if their makers have changed them, delete {cache / FILE}"
        )


def _known_hashes(cache: Path) -> dict[str, str]:
    """Return the hashes by names; what is none of ours is passed over."""
    with suppress(OSError, ValueError):
        found = Tree(cache).read_json(cache / FILE)
        if isinstance(found, dict):
            return {name: sha for name, sha in found.items() if isinstance(sha, str) and _SHA256.fullmatch(sha)}
    return {}
