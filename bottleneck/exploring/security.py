"""Who may talk to the explorer: only pages of its own origin, and only with the token."""

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

CSP = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>bottleneck explore</title>
<h1>This page needs its token</h1>
<p>Open the whole address that <code>bottleneck explore</code> printed in its terminal: it ends in
<code>?token=...</code>. Each start has a new token.</p></html>"""
_NO_TOKEN = "expected the token of this server: open the whole address that `bottleneck explore` printed"


def new_token() -> str:
    """Return a random token."""
    return secrets.token_urlsafe(32)


class Guard:
    """Refuses requests of other pages and without the token, and adds headers that keep the page to itself.

    A page of another site can make a browser send requests here, even by a name that it makes resolve to this machine
    (DNS rebinding). So the Host must be this one, an Origin too if there is one, and a cookie or header must have the
    token. ``/?token=...`` sets the cookie.

    Parameters
    ----------
    app : ASGI application
    token : str
    port : int
    """

    def __init__(self, app: Application, token: str, port: int) -> None:
        self._app, self._token = app, token.encode()
        self.cookie = f"bottleneck-{port}"  # cookies of one host are shared by its ports
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        if port == 80:
            self._hosts |= {"127.0.0.1", "localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
                message["headers"] = headers.raw
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a request that must not reach the application; None if it may."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if host not in self._hosts or len(headers.getlist("host")) != 1:
            return _refused("expected the host 127.0.0.1 or localhost with the port of this server")
        origins = headers.getlist("origin")
        if any(origin not in {f"http://{name}" for name in self._hosts} for origin in origins):
            return _refused("expected a request of the page of this server, found one of another origin")
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and scope["path"] != "/":
            return _refused("expected a request of the page of this server, found one of another site")
        if scope["path"] == "/" and scope["method"] in ("GET", "HEAD"):
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token")
            if given is not None:
                return self._enter(given[0])
        if self._is_known(headers):
            return None
        if scope["path"] == "/" and "text/html" in headers.get("accept", ""):
            return HTMLResponse(_PAGE, 403)
        return _refused(_NO_TOKEN)

    def _enter(self, given: str) -> Response:
        if not self._matches(given):
            return HTMLResponse(_PAGE, 403)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self.cookie, self._token.decode(), httponly=True, samesite="strict", path="/")
        return answer

    def _is_known(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._matches(given.strip()):
            return True
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(headers.get("cookie", ""))
        except CookieError:
            return False
        return self.cookie in cookies and self._matches(cookies[self.cookie].value)

    def _matches(self, given: str) -> bool:
        return secrets.compare_digest(given.encode("utf-8", "surrogatepass"), self._token)


def _refused(message: str) -> Response:
    return JSONResponse({"error": message}, 403)
