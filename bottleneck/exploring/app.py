"""The web application: what each address of the explorer answers."""

import re
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bottleneck.errors import BottleneckError, ImageError, ImagesError, OutputError
from bottleneck.exploring import atlas, pictures
from bottleneck.exploring.bodies import MOST_PICTURE, PlainJson, read_body, read_object
from bottleneck.exploring.card import card_of, search_result
from bottleneck.exploring.layout import Layout
from bottleneck.exploring.security import Guard
from bottleneck.exploring.session import ExplorerSession

STATIC = Path(__file__).parent / "static"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_MOST_BUDGET = 1000
_DIGEST = re.compile("[0-9a-f]{64}")
_BLOCK = 4096  # digests in one answer
_REVALIDATED = {"Cache-Control": "private, no-cache"}
_FOR_AN_HOUR = {"Cache-Control": "private, max-age=3600"}
_NO_PAGE = b"<!doctype html><title>bottleneck</title><p>The page was not built: run <code>make page</code>.</p>"

Answer = Response


def create_app(session: ExplorerSession, token: str, port: int, static: Path = STATIC) -> Guard:
    """Return the guarded application.

    Parameters
    ----------
    session : ExplorerSession
    token : str
        What a browser must know.
    port : int
        Of the server.
    static : Path
        The folder of the built page.
    """
    site = _Site(session, static)
    get, post = partial(Route, methods=["GET"]), partial(Route, methods=["POST"])
    routes = [
        get("/", site.page),
        get("/static/{name}", site.static),
        get("/api/state", site.state),
        get("/api/columns/{name}", site.column),
        get("/api/layouts/{name}", site.layout),
        get("/api/layouts/{name}/tiles/{number}", site.tile),
        get("/api/images/{row}", site.image),
        get("/api/digests/{block}", site.digests),
        get("/api/pictures/{digest}", site.picture),
        get("/api/findings", site.findings),
        get("/api/suggestions", site.suggestions),
        post("/api/search", site.search),
        post("/api/edits", site.edit),
        post("/api/undo", site.undo),
        post("/api/redo", site.redo),
        post("/api/refit", site.refit),
        post("/api/audit", site.audit),
    ]
    handlers: dict[Any, Callable[..., Answer]] = {
        HTTPException: _http_error,
        ImageError: partial(_error, 422),
        ImagesError: partial(_error, 400),
        OutputError: partial(_error, 507),
        BottleneckError: partial(_error, 409),
        Exception: partial(_error, 500),
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return Guard(app, token, port)


def _http_error(_: Request, error: HTTPException) -> Answer:
    plain = {404: "there is nothing at this address", 405: "expected another method"}
    usual = error.detail == HTTPException(error.status_code).detail
    text = plain.get(error.status_code, error.detail) if usual else error.detail
    return PlainJson({"error": text}, error.status_code, headers=error.headers)


def _error(status: int, _: Request, error: Exception) -> Answer:
    text = str(error) if isinstance(error, BottleneckError) else f"unexpected {type(error).__name__}. This is a bug"
    return PlainJson({"error": text}, status)


def _missing(what: str) -> HTTPException:
    return HTTPException(404, f"there is no such {what}")


def _whole(text: str, what: str, below: int) -> int:
    """Return a number of an address, from 0 to below `below`; anything else is not found."""
    if not (text.isascii() and text.isdigit() and len(text) < 12 and int(text) < below):
        raise _missing(what)
    return int(text)


class _Site:
    """The answers; those that compute or read files run in threads.

    Parameters
    ----------
    session : ExplorerSession
    static : Path
    """

    def __init__(self, session: ExplorerSession, static: Path) -> None:
        self._session = session
        self._start = secrets.token_hex(4)  # revisions begin anew with each start
        self._static = {file.name: file for file in static.glob("*") if file.suffix in _TYPES}

    def page(self, _: Request) -> Answer:
        file = self._static.get("index.html")
        return Response(file.read_bytes() if file else _NO_PAGE, media_type="text/html", headers=_REVALIDATED)

    def static(self, request: Request) -> Answer:
        file = self._static.get(request.path_params["name"])
        if file is None:
            raise _missing("file")
        return Response(file.read_bytes(), media_type=_TYPES[file.suffix], headers=_REVALIDATED)

    def state(self, _: Request) -> Answer:
        return PlainJson(self._session.state())

    def column(self, request: Request) -> Answer:
        column = self._session.column(request.path_params["name"])
        if column is None:
            raise _missing("column")
        return self._binary(request, column.to_bytes, f"{column.name}-{column.revision}")

    def layout(self, request: Request) -> Answer:
        name = request.path_params["name"]
        return self._binary(request, self._layout(name).to_bytes, f"layout-{name}")

    def tile(self, request: Request) -> Answer:
        name = request.path_params["name"]
        order = self._layout(name).order
        number = _whole(request.path_params["number"], "tile", -(-len(order) // atlas.TILE))
        size = self._size(request, atlas.SIZES)
        rows = order[number * atlas.TILE : (number + 1) * atlas.TILE]
        tag = f'"{self._start}-{name}-{number}-{size}"'
        return self._jpeg(request, lambda: self._session.atlas.tile(rows, size), tag, _REVALIDATED)

    def image(self, request: Request) -> Answer:
        row = _whole(request.path_params["row"], "image", len(self._session.images))
        return PlainJson(card_of(self._session, row))

    def digests(self, request: Request) -> Answer:
        digests = self._session.images.digests
        block = _whole(request.path_params["block"], "block", -(-len(digests) // _BLOCK))
        found = digests[block * _BLOCK : (block + 1) * _BLOCK]
        return self._binary(request, found.tobytes, f"digests-{block}")

    def picture(self, request: Request) -> Answer:
        text = request.path_params["digest"]
        row = self._session.row_of(bytes.fromhex(text)) if _DIGEST.fullmatch(text) else -1
        if row < 0:
            raise _missing("image")
        size = self._size(request, pictures.SIZES)
        try:
            return self._jpeg(request, partial(self._whole_picture, row, size), f'"{text}-{size}"')
        except ImageError as error:
            raise HTTPException(410 if error.code == "changed" else 404, f"no picture: {error}") from error

    def findings(self, _: Request) -> Answer:
        task = self._session.tasks["audit"]
        task.start_once()
        found = self._session.findings
        listed = {"findings": [], "kinds": [], "remarks": []} if found is None else found.to_json()
        return PlainJson({**task.to_json(), **listed})

    def suggestions(self, request: Request) -> Answer:
        budget = _whole(request.query_params.get("budget", "50"), "budget", _MOST_BUDGET + 1)
        found = self._session.suggestions(budget)
        text = None if self._session.has_unlabelled else "every image that is not excluded has a label"
        return PlainJson({**self._session.tasks["suggestions"].to_json(), "suggestions": found, "text": text})

    async def search(self, request: Request) -> Answer:
        data = await read_body(request, MOST_PICTURE)
        if not data:
            raise HTTPException(400, "expected the bytes of a picture, found none")
        name = request.query_params.get("layout", "pca")
        return PlainJson(await run_in_threadpool(search_result, self._session, data, name))

    async def edit(self, request: Request) -> Answer:
        body = await read_object(request)
        unknown = body.keys() - {"rows", "action", "value"}
        if unknown or not {"rows", "action"} <= body.keys():
            raise HTTPException(400, "expected rows and action, and perhaps a value")
        changed = await run_in_threadpool(self._session.edit, body["action"], body.get("value"), body["rows"])
        return PlainJson({"revision": self._session.revision, "changed": list(changed)})

    async def undo(self, request: Request) -> Answer:
        return await self._step(request, "undo")

    async def redo(self, request: Request) -> Answer:
        return await self._step(request, "redo")

    async def refit(self, request: Request) -> Answer:
        await read_object(request)
        await run_in_threadpool(self._session.refit)
        return PlainJson(self._session.tasks["refit"].to_json(), 202)

    async def audit(self, request: Request) -> Answer:
        await read_object(request)
        self._session.tasks["audit"].start()
        return PlainJson(self._session.tasks["audit"].to_json(), 202)

    async def _step(self, request: Request, action: str) -> Answer:
        await read_object(request)
        found = await run_in_threadpool(self._session.step, action)
        if found is None:
            raise HTTPException(409, f"there is nothing to {action}")
        text, changed = found
        return PlainJson({"revision": self._session.revision, "changed": list(changed), "text": text})

    def _layout(self, name: str) -> Layout:
        found = self._session.maps.layouts.get(name)
        if found is None:
            raise _missing("layout" if name not in self._session.maps.tasks else "layout yet")
        return found

    def _size(self, request: Request, sizes: tuple[int, ...]) -> int:
        text = request.query_params.get("size", str(sizes[-1] if len(sizes) < 3 else sizes[1]))
        if text not in map(str, sizes):
            raise HTTPException(400, f"expected a size of {', '.join(map(str, sizes))}")
        return int(text)

    def _whole_picture(self, row: int, size: int) -> bytes:
        return self._session.pictures.whole(int(self._session.first_rows[row]), size)

    def _jpeg(
        self, request: Request, data: Callable[[], bytes], tag: str, caching: dict[str, str] = _FOR_AN_HOUR
    ) -> Answer:
        headers = {**caching, "ETag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(data(), media_type="image/jpeg", headers=headers)

    def _binary(self, request: Request, data: Callable[[], bytes], version: str) -> Answer:
        tag = f'"{self._start}-{version}"'
        headers = {**_REVALIDATED, "ETag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(data(), media_type="application/octet-stream", headers=headers)
