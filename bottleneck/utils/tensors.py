"""Tensors and metadata of a safetensors file that was read whole: what was hashed is what is parsed."""

import json
from typing import Any

from numpy.typing import NDArray
from safetensors.numpy import load


def parsed(data: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Parameters
    ----------
    data : bytes
        All of the file.

    Returns
    -------
    dict of str to ndarray, dict of str to str

    Raises
    ------
    SafetensorError
        If it is no such file.
    KeyError, TypeError, ValueError
        If NumPy has no such type, or the metadata is no JSON object of texts.
    """
    tensors = load(data)  # which checks the header
    size = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + size]).get("__metadata__") or {}
    return tensors, metadata
