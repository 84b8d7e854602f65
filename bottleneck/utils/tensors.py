"""Parse safetensors files from bytes in memory, which are the bytes that were hashed."""

import json
from typing import Any

from numpy.typing import NDArray
from safetensors.numpy import load


def parsed(data: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Parameters
    ----------
    data : bytes
        Content of the file.

    Returns
    -------
    dict of str to ndarray, dict of str to str

    Raises
    ------
    SafetensorError
        If it is not a safetensors file.
    KeyError, TypeError, ValueError
        If NumPy lacks a dtype, or the metadata is not a JSON object of texts.
    """
    tensors = load(data)  # checks the header
    size = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + size]).get("__metadata__") or {}
    return tensors, metadata
