"""Record the SHA-256 of published weights in a cache at their first use, and verify it later.

The name of a torchvision file contains only eight digits of its hash, so another file can be forged to match them. A
cache therefore records the whole hash, and all users of the cache reject other bytes under the same name.
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
    """Record the hash of published weights in a cache, or compare it with the recorded one.

    Parameters
    ----------
    published : Published, optional
        If None, the function does nothing.
    cache : Path
        Folder of the cache.

    Raises
    ------
    ModelError
        If the hashes differ.
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
            f"expected the weights {published.name} that this cache recorded at first use, SHA-256 {before}; found "
            f"{published.sha256}. Download them again; if the publisher changed them, delete {cache / FILE}"
        )


def _known_hashes(cache: Path) -> dict[str, str]:
    """Return the recorded hashes by name; ignore invalid entries."""
    with suppress(OSError, ValueError):
        found = Tree(cache).read_json(cache / FILE)
        if isinstance(found, dict):
            return {name: sha for name, sha in found.items() if isinstance(sha, str) and _SHA256.fullmatch(sha)}
    return {}
