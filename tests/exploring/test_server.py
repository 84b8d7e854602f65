import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from bottleneck.errors import BottleneckError
from bottleneck.exploring.server import PORT, bound_socket, open_session
from bottleneck.fitting.fit import fit
from bottleneck.images.scan import scan
from tests.exploring.conftest import here

CHECKOUT = Path(__file__).parents[2]


class Running:
    """The real server in another process."""

    def __init__(self) -> None:
        command = [
            sys.executable,
            str(CHECKOUT / "cli.py"),
            "explore",
            "images",
            "--head",
            "ridge",
            "--no-open",
            "--json",
        ]
        self.process = subprocess.Popen(
            [*command, "--port", "0", "--labels", "labels.csv"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        self.url, _, self.token = json.loads(line)["url"].partition("?token=")

    def ask(self, path, body=None):
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers)) as answer:
            return json.loads(answer.read())

    def end(self, number):
        self.process.send_signal(number)
        code = self.process.wait(10)
        self.process.stdout.close()
        self.process.stderr.close()
        return code


@pytest.fixture
def run_server():
    started = []

    def start():
        started.append(Running())
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.end(signal.SIGKILL)


def test_edits_survive_a_kill_and_fit_reads_them_while_the_server_runs_and_after(images, run_server):
    server = run_server()
    server.ask("api/edits", {"action": "exclude", "rows": [5]})
    done = server.ask("api/edits", {"action": "label", "rows": [0, 1], "value": "bee"})
    assert done["changed"] == [0, 1]
    table = scan("labels.csv")
    assert len(table) == 79
    assert (table.labels.count("ant"), table.labels.count("bee")) == (36, 43)
    fitted = fit("labels.csv", head="centroid", model="tiny")
    assert (fitted.card["n_train"], fitted.card["n_heldout"]) == (
        table.splits.count("train"),
        table.splits.count("test"),
    )

    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    Path("labels.csv").unlink()  # as if it had been killed before it wrote the table
    with open("labels.csv.log", "ab") as log:
        log.write(b'{"action":"label","value":"wasp","dig')
    again = run_server()
    assert scan("labels.csv").labels == table.labels
    assert again.ask("api/images/0")["label"] == "bee"
    assert again.ask("api/state")["edits"]["count"] == 2
    assert again.ask("api/undo", {})["changed"] == [0, 1]
    assert again.end(signal.SIGINT) == 0
    assert scan("labels.csv").labels.count("ant") == 38


def test_the_port_is_the_next_free_one_unless_it_is_named():
    with bound_socket(None) as first, bound_socket(None) as second:
        ports = first.getsockname()[1], second.getsockname()[1]
        assert PORT <= ports[0] < ports[1]
        assert first.getsockname()[0] == "127.0.0.1"
        with pytest.raises(BottleneckError, match=f"cannot listen on port {ports[0]}.*--port"):
            bound_socket(ports[0])


def test_a_run_may_take_the_place_of_images(images):
    run = fit("images", head="centroid", model="tiny")
    for name in (f"run:{run.name}", f"runs/{run.name}"):
        session = open_session(name, run_child=here, tsne=False)
        assert session.run.name == run.name
        assert len(session.images) == 80
        assert session.title == "images"
        session.close()
        assert not os.path.exists("labels-images.csv.log")
