"""What the decoder says of a file."""

from bottleneck.errors import ImageError
from bottleneck.images.decode import decode
from bottleneck.images.preprocessing import Preprocessing


def code(data: bytes, preprocessing: Preprocessing) -> str | None:
    """Return with which code a file is refused; None where it is decoded."""
    try:
        decode(data, preprocessing)
    except ImageError as error:
        return error.code
    return None
