import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from bottleneck.exploring.security import HEADERS, Guard, new_token
from tests.variants import each

TOKEN, PORT = "s3cret", 8766
HOME = f"http://127.0.0.1:{PORT}"
KNOWN = {"Authorization": f"Bearer {TOKEN}"}


def browser(base_url=HOME, **options):
    inside = Starlette(routes=[Route("/{path:path}", lambda _: PlainTextResponse("inside"), methods=["GET", "POST"])])
    return TestClient(Guard(inside, TOKEN, PORT), base_url=base_url, follow_redirects=False, **options)


def test_the_address_with_the_token_sets_a_cookie_that_opens_the_rest():
    client = browser()
    answer = client.get(f"/?token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"bottleneck-{PORT}={TOKEN};")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert client.get("/").text == client.post("/api/edits").text == "inside"


@each(
    "headers",
    [
        {},
        {"Authorization": "Bearer other"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {TOKEN}"},
        {"Cookie": f"bottleneck-{PORT}=other"},
        {"Cookie": f"bottleneck-8767={TOKEN}"},
        {"Cookie": f"bottleneck-{PORT}={TOKEN}x; bad"},
        {"Cookie": "\u00e9=\u00e9".encode()},
    ],
)
def test_without_the_token_nothing_is_inside(headers):
    for answer in (browser().get("/api/state", headers=headers), browser().post("/api/edits", headers=headers)):
        assert answer.status_code == 403
        assert "open the whole address" in answer.json()["error"]


@each("query", ["token=other", "token=", "token=%C3%A9", f"token=x&token={TOKEN}", "token"])
def test_a_wrong_token_is_answered_by_a_page_that_says_what_to_do(query):
    answer = browser().get(f"/?{query}", headers={"Accept": "text/html"})
    assert answer.status_code == 403
    assert "Open the whole address that" in answer.text
    assert "set-cookie" not in answer.headers


def test_the_token_counts_only_where_it_belongs():
    assert browser().get(f"/api/state?token={TOKEN}").status_code == 403
    assert browser().post(f"/?token={TOKEN}").status_code == 403


@each(
    "host, status",
    [
        (f"127.0.0.1:{PORT}", 200),
        (f"localhost:{PORT}", 200),
        ("127.0.0.1", 403),
        ("localhost:80", 403),
        (f"evil.example:{PORT}", 403),
        (f"127.0.0.1.evil.example:{PORT}", 403),
        (f"127.0.0.1:{PORT}@evil.example", 403),
        ("", 403),
    ],
)
def test_another_host_is_refused_even_with_the_token(host, status):
    assert browser(headers=KNOWN).get("/api/state", headers={"Host": host}).status_code == status


@each(
    "headers, status",
    [
        ({"Origin": HOME}, 200),
        ({"Origin": f"http://localhost:{PORT}"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": f"https://127.0.0.1:{PORT}"}, 403),
        ({"Origin": "http://127.0.0.1:8000"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_another_origin_is_refused_even_with_the_token(headers, status):
    client = browser(headers=KNOWN)
    assert client.post("/api/edits", headers=headers).status_code == status
    assert client.get("/api/state", headers=headers).status_code == status


@each("known", [True, False])
def test_every_answer_has_headers_that_keep_the_page_to_itself(known):
    answer = browser(headers=KNOWN if known else {}).get("/")
    assert answer.status_code == (200 if known else 403)
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"


def test_a_web_socket_is_closed():
    client = browser(headers=KNOWN)
    with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/"):
        pytest.fail("it was accepted")
    assert refused.value.code == 1008


def test_tokens_are_long_and_different():
    assert len({new_token() for _ in range(100)}) == 100
    assert len(new_token()) >= 43
