import hashlib
import io
import os
import stat
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bottleneck.demo.download import ARCHIVES, Archive, fetch_images
from bottleneck.errors import DownloadError
from tests.variants import each


def tgz(files, kind=tarfile.REGTYPE):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.size = kind, len(data) if kind == tarfile.REGTYPE else 0
            entry.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


FILES = {"photos/a/1.jpg": b"one" * 1000, "photos/b/2.jpg": b"two" * 1000, "photos/LICENSE.txt": b"free"}


@pytest.fixture
def server():
    """Return a function that serves bytes at an address on this machine; ``ranges`` lists what was asked for."""
    started = []

    def serve(data, *, ranges=True, cut=None, status=None):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                wanted = self.headers.get("Range")
                asked.append(wanted)
                if status:
                    self.send_error(status)
                    return
                start = int(wanted.removeprefix("bytes=").rstrip("-")) if ranges and wanted else 0
                body = data[start:]
                self.send_response(206 if start or (ranges and wanted) else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[:cut])

            def log_message(self, *_):
                pass

        asked = []
        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=http.serve_forever, daemon=True).start()
        started.append(http)
        return f"http://127.0.0.1:{http.server_port}", asked

    yield serve
    for http in started:
        http.shutdown()
        http.server_close()


def archive(address, data, name="photos.tgz"):
    return Archive(f"{address}/{name}", len(data), hashlib.sha256(data).hexdigest(), "photos")


@each("name, pack", [("photos.tgz", tgz), ("photos.zip", zipped)])
def test_images_are_fetched_checked_and_unpacked_once(server, tmp_path, name, pack):
    data = pack(FILES)
    address, asked = server(data)
    wanted = archive(address, data, name)
    assert fetch_images(wanted, tmp_path) == tmp_path / "photos"
    assert {str(p.relative_to(tmp_path)): p.read_bytes() for p in (tmp_path / "photos").rglob("*.*")} == FILES
    fetch_images(wanted, tmp_path)
    assert len(asked) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos", name]


def test_an_interrupted_download_continues_where_it_stopped(server, tmp_path):
    data = tgz(FILES)
    (tmp_path / "photos.tgz.part").write_bytes(data[:100])
    address, asked = server(data)
    fetch_images(archive(address, data), tmp_path)
    assert asked == ["bytes=100-"]


def test_a_server_that_knows_no_ranges_sends_all_of_it_again(server, tmp_path):
    data = tgz(FILES)
    (tmp_path / "photos.tgz.part").write_bytes(b"x" * 100)
    address, _ = server(data, ranges=False)
    assert (fetch_images(archive(address, data), tmp_path) / "a/1.jpg").exists()


def test_a_connection_that_breaks_keeps_what_came_and_says_so(server, tmp_path):
    data = tgz(FILES)
    address, _ = server(data, cut=120)
    with pytest.raises(DownloadError, match="run the command again"):
        fetch_images(archive(address, data), tmp_path)
    assert (tmp_path / "photos.tgz.part").read_bytes() == data[:120]


@each("wrong", [b"?" * 50, None])
def test_what_is_not_the_expected_file_is_deleted(server, tmp_path, wrong):
    data = tgz(FILES)
    served = data + wrong if wrong else bytes(len(data))
    address, _ = server(served)
    with pytest.raises(DownloadError, match="SHA-256"):
        fetch_images(archive(address, data), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_cannot_be_reached_says_what_to_do(tmp_path):
    data = tgz(FILES)
    with pytest.raises(DownloadError, match=r"cannot be reached.*put it at .*photos\.tgz.*bottleneck demo"):
        fetch_images(archive("http://127.0.0.1:9", data), tmp_path)


def test_a_refusal_says_its_code(server, tmp_path):
    address, _ = server(b"", status=404)
    with pytest.raises(DownloadError, match="404"):
        fetch_images(archive(address, b"x"), tmp_path)


def test_a_file_put_there_by_hand_is_used_without_a_network(tmp_path):
    data = zipped(FILES)
    (tmp_path / "photos.zip").write_bytes(data)
    assert (fetch_images(archive("http://127.0.0.1:9", data, "photos.zip"), tmp_path) / "b/2.jpg").exists()


@each("name", ["../evil.jpg", "/tmp/evil.jpg", "photos/../../evil.jpg", "photos\\..\\evil.jpg"])
@pytest.mark.parametrize(("file", "pack"), [("photos.tgz", tgz), ("photos.zip", zipped)], ids=["tar", "zip"])
def test_names_that_lead_elsewhere_are_refused(tmp_path, file, pack, name):
    data = pack({"photos/a/1.jpg": b"x", name: b"evil"})
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / file).write_bytes(data)
    with pytest.raises(DownloadError, match=r"leads outside|not a regular file"):
        fetch_images(archive("http://127.0.0.1:9", data, file), inner)
    assert [path.name for path in inner.iterdir()] == [file]
    assert not list(tmp_path.rglob("evil*"))


@each("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    data = tgz({"photos/a/1.jpg": b""}, kind)
    (tmp_path / "photos.tgz").write_bytes(data)
    with pytest.raises(DownloadError, match="not a regular file"):
        fetch_images(archive("http://127.0.0.1:9", data), tmp_path)


def test_a_damaged_archive_leaves_no_half_folder(tmp_path):
    data = tgz(FILES)[:-30]
    (tmp_path / "photos.tgz").write_bytes(data)
    with pytest.raises(DownloadError, match="cannot unpack"):
        fetch_images(archive("http://127.0.0.1:9", data), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["photos.tgz"]


def test_the_classic_sets_are_named_with_size_and_hash():
    for known in ARCHIVES.values():
        assert known.url.startswith("https://")
        assert known.size > 1 << 20
        assert len(known.sha256) == 64


@each("name", ["photos", "photos.tgz", "photos.tgz.part"])
def test_what_is_linked_is_neither_used_nor_written_through(server, tmp_path, name):
    data = tgz(FILES)
    address, _ = server(data)
    mine, inner = tmp_path / "mine", tmp_path / "inner"
    inner.mkdir()
    if name == "photos":
        mine.mkdir()
    else:
        mine.write_bytes(data[:100])
    (inner / name).symlink_to(mine)
    with pytest.raises(DownloadError, match="found a link"):
        fetch_images(archive(address, data), inner)
    assert list(mine.iterdir()) == [] if name == "photos" else mine.read_bytes() == data[:100]
    assert (inner / name).is_symlink()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
@each("name", ["photos.tgz", "photos.tgz.part"])
def test_a_fifo_in_place_of_a_file_is_refused_at_once(server, tmp_path, name):
    data = tgz(FILES)
    address, _ = server(data)
    os.mkfifo(tmp_path / name)
    with pytest.raises(DownloadError, match="found a FIFO"):
        fetch_images(archive(address, data), tmp_path)


def test_a_link_in_a_zip_is_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        entry = zipfile.ZipInfo("photos/a/1.jpg")
        entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        packed.writestr(entry, "/etc/passwd")
    (tmp_path / "photos.zip").write_bytes(buffer.getvalue())
    with pytest.raises(DownloadError, match="not a regular file"):
        fetch_images(archive("http://127.0.0.1:9", buffer.getvalue(), "photos.zip"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["photos.zip"]


def leftover(folder, files, age):
    """Make what a process that was killed would have left."""
    for name, data in files.items():
        path = folder / ".tmp-9-0123abcd" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    when = time.time() - age
    os.utime(folder / ".tmp-9-0123abcd", (when, when))


@each(
    "more, age, stays",
    [({}, 100_000, False), ({}, 0, True), ({"photos/thesis.tex": b"mine"}, 100_000, True)],
)
def test_what_a_killed_process_has_unpacked_goes_if_it_is_old_and_of_this_archive(tmp_path, more, age, stays):
    data = zipped(FILES)
    (tmp_path / "photos.zip").write_bytes(data)
    leftover(tmp_path, {"photos/a/1.jpg": b"half", **more}, age)
    fetch_images(archive("http://127.0.0.1:9", data, "photos.zip"), tmp_path)
    assert (tmp_path / ".tmp-9-0123abcd" / "photos/a/1.jpg").exists() == stays
    assert all((tmp_path / ".tmp-9-0123abcd" / name).exists() for name in more)
