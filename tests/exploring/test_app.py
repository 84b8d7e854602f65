import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bottleneck.errors import ImageError
from bottleneck.exploring import bodies
from tests.conftest import photo, write
from tests.exploring.conftest import browser, cosines
from tests.variants import each

N = 80


def edit(client, action, rows, value=None):
    return client.post("/api/edits", json={"action": action, "rows": rows, "value": value})


def column(client, name):
    entry = next(one for one in client.get("/api/state").json()["columns"] if one["name"] == name)
    data = client.get(f"/api/columns/{name}").content
    if entry["kind"] == "number":
        return np.frombuffer(data, "<f4")
    return [(*entry["values"], None)[min(code, len(entry["values"]))] for code in np.frombuffer(data, "<u2").tolist()]


def test_the_state_names_what_there_is(page, shown):
    state = page.get("/api/state").json()
    assert (state["title"], state["n"], state["classes"]) == ("images", N, ["ant", "bee"])
    assert [one["name"] for one in state["columns"]] == [
        *("label", "split", "prediction", "error", "confidence", "familiarity", "cluster", "tag", "excluded", "edited")
    ]
    assert state["layouts"] == [{"name": "pca", "title": "PCA", "state": "ready", "progress": 1.0, "error": None}]
    assert {name: task["state"] for name, task in state["tasks"].items()} == {
        "audit": "idle",
        "refit": "ready",
        "suggestions": "idle",
    }
    assert state["edits"] == {
        "file": str(shown.labels_file.path),
        "count": 0,
        "can_undo": False,
        "can_redo": False,
        "problem": None,
    }
    assert state["model"]["accuracy"] > 0.9
    assert "cross-validated" in state["model"]["text"]


def test_columns_have_a_value_for_each_image(page, shown):
    assert column(page, "label") == list(shown.images.labels)
    assert column(page, "split") == list(shown.images.splits)
    assert set(column(page, "error")) == {"right", "wrong"}
    confidence = column(page, "confidence")
    assert confidence.shape == (N,)
    assert confidence.min() >= 0.5
    assert set(column(page, "tag")) == {None}
    errors = [a != b for a, b in zip(column(page, "label"), column(page, "prediction"), strict=True)]
    assert [error == "wrong" for error in column(page, "error")] == errors


def test_a_column_is_sent_again_only_if_it_changed(client):
    tag = client.get("/api/columns/label").headers["etag"]
    assert client.get("/api/columns/label", headers={"If-None-Match": tag}).status_code == 304
    edit(client, "label", [0], "bee")
    assert client.get("/api/columns/label", headers={"If-None-Match": tag}).status_code == 200


def test_a_map_is_x_y_and_an_order_of_which_tiles_show_64_each(page):
    data = page.get("/api/layouts/pca").content
    assert len(data) == 12 * N
    assert sorted(np.frombuffer(data[8 * N :], "<u4").tolist()) == list(range(N))
    for number, size in ((0, 64), (1, 32)):
        answer = page.get(f"/api/layouts/pca/tiles/{number}?size={size}&v=1")
        assert answer.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(answer.content)).size == (8 * size, 8 * size)


def test_a_card_has_the_neighbours_that_numpy_computes(page, shown):
    card = page.get("/api/images/3").json()
    expected = cosines(shown.features.stored, 3)
    expected[3] = -np.inf
    assert [one["row"] for one in card["neighbours"]] == np.argsort(-expected)[:12].tolist()
    assert card["neighbours"][0]["cosine"] == pytest.approx(expected.max(), abs=1e-5)
    assert card["neighbours"][0]["label"] == shown.images.labels[card["neighbours"][0]["row"]]
    assert card["digest"] == hashlib.sha256(Path(shown.images.paths[3]).read_bytes()).hexdigest()
    assert card["path"] == "ant/003.jpg"
    assert (card["width"], card["height"], card["bytes"]) == (64, 48, Path(shown.images.paths[3]).stat().st_size)
    assert sum(share for _, share in card["probabilities"]) == pytest.approx(1)


@each("text", ["%20" * 64, "0" * 64, "A" * 64, "0" * 63])
def test_what_is_not_the_digest_of_an_image_is_not_found(client, text):
    assert client.get(f"/api/pictures/{text}?size=96").status_code == 404


def test_a_picture_is_fetched_by_its_digest(client, session):
    digest = session.images.digests[3].tobytes().hex()
    answer = client.get(f"/api/pictures/{digest}?size=96")
    assert Image.open(io.BytesIO(answer.content)).size == (64, 48)
    again = client.get(f"/api/pictures/{digest}?size=96", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
    write(Path(session.images.paths[3]), photo(12345))
    changed = client.get(f"/api/pictures/{digest}?size=96")
    assert (changed.status_code, changed.json()["error"]) == (
        410,
        "no picture: the file changed since it was scanned",
    )
    Path(session.images.paths[3]).unlink()
    assert client.get(f"/api/pictures/{digest}?size=96").status_code == 404
    card = client.get("/api/images/3").json()
    assert (card["width"], card["bytes"]) == (None, None)
    assert "No such file" in card["problem"]


@each(
    "path, status",
    [
        ("/nothing", 404),
        ("/api/columns/none", 404),
        ("/api/columns/..%2f..%2fsecret", 404),
        ("/api/layouts/umap", 404),
        ("/api/layouts/tsne", 404),
        ("/api/layouts/pca/tiles/2", 404),
        ("/api/layouts/pca/tiles/-1", 404),
        ("/api/layouts/pca/tiles/1e3", 404),
        ("/api/layouts/pca/tiles/0?size=65", 400),
        ("/api/images/80", 404),
        ("/api/images/..%2f..%2fsecret", 404),
        ("/api/images/\u0663", 404),
        ("/api/pictures/secret", 404),
        (f"/api/pictures/{'0' * 64}", 404),
        (f"/api/pictures/{'z' * 64}", 404),
        ("/api/pictures/..%2f..%2fsecret", 404),
        ("/api/pictures/%2fetc%2fpasswd", 404),
        ("/static/secret", 404),
        ("/static/..%2fsecret", 404),
        ("/static/%2e%2e/secret", 404),
        ("/static/..%5csecret", 404),
        ("/static/", 404),
        ("/api/suggestions?budget=x", 404),
        ("/api/edits", 405),
    ],
)
def test_what_is_not_there_is_an_error_in_words(page, path, status):
    Path("secret").write_text("secret")
    answer = page.get(path)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert "no-store" in answer.headers["cache-control"]


def test_only_built_files_are_served(shown, page, tmp_path):
    assert "make page" in page.get("/").text
    for name, text in (("index.html", "<p>page"), ("app.js", "1"), ("secret.txt", "secret")):
        write(tmp_path / "built" / name, text.encode())
    built = browser(shown, tmp_path / "built")
    assert built.get("/").text == "<p>page"
    assert built.get("/static/app.js").headers["content-type"].startswith("text/javascript")
    assert built.get("/static/secret.txt").status_code == 404


def test_edits_are_made_undone_and_redone(client):
    first = client.get("/api/state").json()["revision"]
    done = edit(client, "label", [0, 1, 79], "bee").json()
    assert done["changed"] == [0, 1]
    assert done["revision"] > first
    assert column(client, "label")[:2] == ["bee", "bee"]
    assert column(client, "edited")[:3] == ["edited", "edited", "original"]
    assert column(client, "error")[0] == "wrong"
    assert edit(client, "exclude", [5]).json()["changed"] == [5]
    assert column(client, "excluded")[5] == "excluded"
    assert edit(client, "tag", [6], "night").json()["changed"] == [6]
    assert column(client, "tag")[6] == "night"
    assert client.get("/api/state").json()["edits"]["count"] == 3
    assert client.post("/api/undo", json={}).json()["text"] == "tag 1 image night"
    client.post("/api/undo", json={})
    answer = client.post("/api/undo", json={}).json()
    assert answer["changed"] == [0, 1]
    assert column(client, "label")[0] == "ant"
    assert client.post("/api/undo", json={}).status_code == 409
    assert client.post("/api/redo", json={}).json()["changed"] == [0, 1]
    card = client.get("/api/images/0").json()
    assert (card["label"], card["original_label"]) == ("bee", "ant")


@each(
    "body, kind, status",
    [
        (b'{"rows":', "application/json", 400),
        (b"[1]", "application/json", 400),
        (b'{"rows":[0],"rows":[1],"action":"exclude"}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"action":"exclude"}', "application/json", 400),
        (b'{"rows":[0],"action":"exclude","path":"/etc"}', "application/json", 400),
        (b'{"rows":[80],"action":"exclude"}', "application/json", 400),
        (b'{"rows":[0],"action":"label","value":"a\\nb"}', "application/json", 400),
        (b'{"rows":[0],"action":"label","value":"\\ud800"}', "application/json", 400),
        (b'{"rows":[0],"action":"exclude"}', "text/plain", 415),
        (b'{"rows":[0],"action":"exclude"}', "application/x-www-form-urlencoded", 415),
    ],
)
def test_invalid_edits_change_nothing(page, body, kind, status):
    answer = page.post("/api/edits", content=body, headers={"Content-Type": kind})
    assert answer.status_code == status, answer.text
    assert "expected" in answer.json()["error"]
    assert page.get("/api/state").json()["edits"]["count"] == 0


def test_a_large_body_is_refused_while_it_comes(page, monkeypatch):
    monkeypatch.setattr(bodies, "MOST_JSON", 1 << 20)

    def endless():
        for _ in range(100):
            yield b" " * (1 << 18)

    json_type = {"Content-Type": "application/json"}
    assert page.post("/api/edits", content=endless(), headers=json_type).status_code == 413
    assert page.post("/api/edits", content=b"{}", headers={**json_type, "Content-Length": "x"}).status_code == 413
    assert page.post("/api/search", content=b"", headers={"Content-Length": str(1 << 30)}).status_code == 413


def test_findings_and_their_kinds_are_listed(client, session):
    assert client.get("/api/findings").json()["state"] in ("running", "ready")
    session.tasks["audit"].wait()
    found = client.get("/api/findings").json()
    wrong = [one for one in found["findings"] if one["kind"] == "label error"]
    assert {session.images.paths[one["row"]] for one in wrong} >= {"images/bee/010.jpg", "images/bee/020.jpg"}
    assert {one["suggested"] for one in wrong} <= {"ant", "bee"}
    assert found["kinds"][0] == {"kind": "label error", "title": "Probable label errors", "count": len(wrong)}
    assert column(client, "finding")[wrong[0]["row"]] == "label error"
    assert client.get(f"/api/images/{wrong[0]['row']}").json()["findings"][0]["kind"] == "label error"
    assert client.post("/api/audit", json={}).status_code == 202


def test_images_without_a_label_are_suggested(client, session):
    none = client.get("/api/suggestions").json()
    assert (none["suggestions"], none["text"]) == ([], "every image that is not excluded has a label")
    session.tasks["suggestions"].wait()
    edit(client, "label", [3, 4, 5, 50])
    client.get("/api/suggestions?budget=60")
    session.tasks["suggestions"].wait()
    found = client.get("/api/suggestions?budget=60").json()
    assert (found["state"], found["text"]) == ("ready", None)
    assert sorted(one["row"] for one in found["suggestions"]) == [3, 4, 5, 50]
    assert all(one["text"] for one in found["suggestions"])
    edit(client, "label", [4], "ant")
    assert 4 not in [one["row"] for one in client.get("/api/suggestions").json()["suggestions"]]


def test_a_head_is_trained_on_the_edited_labels(client, session):
    wrong = [row for row, path in enumerate(session.images.paths) if path.endswith(("bee/010.jpg", "bee/020.jpg"))]
    before = client.get("/api/state").json()["model"]
    edit(client, "label", wrong, "ant")
    assert client.post("/api/refit", json={}).status_code == 202
    session.tasks["refit"].wait()
    after = client.get("/api/state").json()["model"]
    assert (before["refitted"], after["refitted"]) == (False, True)
    assert after["accuracy"] > before["accuracy"]


def test_a_picture_is_searched_by_its_features(page, shown, monkeypatch):
    monkeypatch.setattr(shown, "embedder", lambda data: shown.features.take(slice(7, 8))[0])
    found = page.post("/api/search?layout=pca", content=b"picture").json()
    assert len(found["neighbours"]) == 24
    assert found["neighbours"][0] == {"row": 7, "cosine": 1.0, "label": shown.images.labels[7]}
    near = shown.maps.layouts["pca"].points[[one["row"] for one in found["neighbours"][:5]]]
    assert (found["x"], found["y"]) == pytest.approx(tuple(near.mean(axis=0).tolist()), abs=1e-5)
    assert found["prediction"] in ("ant", "bee")
    assert 0 < found["familiarity"] <= 1
    assert page.post("/api/search?layout=tsne", content=b"picture").json()["x"] is None


def bomb() -> bytes:
    head = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + (1 << 20).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    return head + b"\0" * 64


@each("data, status", [(b"", 400), (b"no picture", 422), (photo(1)[:300], 422), (bomb(), 422)])
def test_what_is_no_picture_is_refused(page, data, status):
    answer = page.post("/api/search", content=data)
    assert answer.status_code == status
    assert answer.json()["error"]


def test_errors_that_nobody_expects_show_nothing_of_the_inside(page, shown, monkeypatch):
    def fail(data):
        raise (ImageError("corrupt", "in words") if data == b"1" else KeyError("/home/secret"))

    monkeypatch.setattr(shown, "embedder", fail)
    assert page.post("/api/search", content=b"1").json() == {"error": "in words"}
    answer = page.post("/api/search", content=b"2")
    assert (answer.status_code, answer.json()) == (500, {"error": "unexpected KeyError. This is a bug"})


def test_names_with_markup_and_bytes_are_plain_json(client):
    edit(client, "label", [0], "<script>alert(1)</script>")
    answer = client.get("/api/state")
    assert "<script>alert(1)</script>" in answer.json()["classes"]
    assert answer.headers["content-type"] == "application/json"
    assert json.dumps("\udcff").encode() == bodies.PlainJson("\udcff").body
