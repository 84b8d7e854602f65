"""Read the bodies of requests: of bounded size, and of the expected kind."""

import json
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from bottleneck.utils.files import parse_json

MOST_JSON = 32 << 20  # bytes
MOST_PICTURE = 50 << 20


class PlainJson(Response):
    """JSON in ASCII: names of files that are not UTF-8 stay what they are."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the bytes of a JSON value; NaN and infinity are refused."""
        return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()


async def read_body(request: Request, most: int) -> bytes:
    """Return the body of a request.

    Raises
    ------
    HTTPException
        With 413 as soon as it has more than `most` bytes, or its header says so.
    """
    too_large = HTTPException(413, f"expected at most {most >> 20} MB")
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > most:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise too_large
        parts.append(part)
    return b"".join(parts)


async def read_object(request: Request) -> dict[str, Any]:
    """Return the JSON object of a request; an empty body is an empty object.

    Raises
    ------
    HTTPException
        With 413, 415 if it is not declared as JSON, or 400 if it is no JSON object.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # other pages could send other types without being asked
        raise HTTPException(415, "expected Content-Type: application/json")
    data = await read_body(request, MOST_JSON)
    try:
        value = parse_json(data) if data else {}
    except ValueError as error:
        raise HTTPException(400, f"expected JSON: {error}") from error
    if not isinstance(value, dict):
        raise HTTPException(400, "expected a JSON object")
    return value
