import hashlib
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from bottleneck.backbones.downloads import check_download, check_reachable, unreachable
from bottleneck.errors import ModelError, WeightsUnavailable
from tests.conftest import write
from tests.variants import each

DIGEST = hashlib.sha256(b"weights").hexdigest()


class Server(HTTPServer):
    status = 200
    asked: list[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/w.pth"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _direct(monkeypatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.asked = []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def closed() -> str:
    """Return an address at which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}/w.pth"


@each("digits", [8, 10, 64])
def test_a_downloaded_file_with_the_expected_hash_is_accepted(tmp_path, digits):
    check_download(write(tmp_path / "w.pth", b"weights"), DIGEST[:digits])


@each("wanted", ["0" * 8, DIGEST[:-1] + "g", DIGEST[1:9]])
def test_a_downloaded_file_with_another_hash_is_refused_and_kept(tmp_path, wanted):
    path = write(tmp_path / "w.pth", b"weights")

    with pytest.raises(ModelError, match=rf"begins with {wanted} in .*w\.pth, found other weights: delete the file"):
        check_download(path, wanted)

    assert path.read_bytes() == b"weights"


def test_nothing_is_checked_without_a_file(tmp_path):
    check_download(tmp_path / "w.pth", "0" * 8)


@each("status", [200, 204, 401, 403, 404, 405, 500, 503])
def test_a_server_is_reachable_if_it_answers_with_any_status(server, status):
    server.status, server.asked = status, []

    check_reachable("w.pth", server.url)

    assert server.asked == ["/w.pth"]


def test_a_closed_port_is_not_reachable(closed):
    with pytest.raises(WeightsUnavailable, match=r"expected w\.pth; .*Connection refused") as caught:
        check_reachable("w.pth", closed, "timm/some")

    assert closed in str(caught.value)
    assert "--model timm/some --weights PATH" in str(caught.value)


def test_an_unknown_host_is_not_reachable():
    with pytest.raises(WeightsUnavailable, match=r"/w\.pth cannot be reached .*not known"):
        check_reachable("w.pth", "http://[fe80::1%nosuch]/w.pth")  # no name server is needed to refuse this one


def test_a_server_that_hangs_up_is_not_reachable():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=lambda: listening.accept()[0].close())
        thread.start()
        with pytest.raises(WeightsUnavailable, match=r"expected w\.pth"):
            check_reachable("w.pth", f"http://127.0.0.1:{listening.getsockname()[1]}/w.pth")
        thread.join()


@each("url", ["hub.example/w.pth", "gopher://127.0.0.1/w.pth", "http://127.0.0.1:port/w.pth"])
def test_an_invalid_address_is_not_reachable(url):
    with pytest.raises(WeightsUnavailable, match=r"expected w\.pth"):
        check_reachable("w.pth", url)


def test_a_server_of_another_protocol_is_not_reachable():
    def answer() -> None:
        with listening.accept()[0] as other:
            other.recv(1000)
            other.sendall(b"220 mail.example ESMTP\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            with pytest.raises(WeightsUnavailable, match=r"expected w\.pth"):
                check_reachable("w.pth", f"http://127.0.0.1:{listening.getsockname()[1]}/w.pth")
        finally:
            thread.join()


def test_a_server_that_does_not_answer_in_time_is_not_reachable():
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        pytest.raises(WeightsUnavailable, match="timed out"),
    ):
        check_reachable("w.pth", f"http://127.0.0.1:{listening.getsockname()[1]}/w.pth", timeout=0.2)


def test_the_error_names_the_file_its_address_the_reason_and_what_to_do():
    error = unreachable("w.pth, the weights of x", "http://h/w.pth", urllib.error.URLError("no route"))

    assert isinstance(error, WeightsUnavailable)
    assert str(error) == (
        "expected w.pth, the weights of x; it is not on this machine and http://h/w.pth cannot be reached (no route). "
        "Download that file on a machine with a network and pass it with --weights PATH, or use --weights none for "
        "random weights"
    )


def test_the_model_is_named_where_it_matters():
    error = unreachable("w.pth", "http://h/w.pth", OSError("gone"), "timm/some.tag")

    assert "pass it with --model timm/some.tag --weights PATH" in str(error)


def test_the_first_line_of_a_long_reason_is_enough():
    assert "cannot be reached (one)." in str(unreachable("w.pth", "http://h", OSError("one\ntwo\nthree")))


@each("error", [OSError(), TimeoutError(), ConnectionResetError("")])
def test_an_error_without_a_message_is_named_by_its_class(error):
    assert type(error).__name__ in str(unreachable("w.pth", "http://h/w.pth", error))
