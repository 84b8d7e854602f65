import os

from bottleneck.diagnostics.privacy import Person, Privacy
from tests.variants import each

HIDE = Privacy(Person(places=("/home/ann lee", "work/secret client"), names=("ann", "ann-laptop.example")))


@each(
    "text, expected",
    [
        ("cannot read /home/ann lee/x/1.h5: gone", "cannot read <path>: gone"),
        ("found in work/secret client/cache", "found in <path>"),
        ("'/opt/venv/lib/x.so'", "'<path>'"),
        (r"C:\Users\ann\x.dll and \\server\share", "<path> and <path>"),
        ("(/etc/fstab)", "(<path>)"),
        ("/dev/shm/x/y.h5", "<path>"),
        ("by ann on ann-laptop.example", "by <name> on <name>"),
        ("/home/ann leeds/x", "<path> leeds/x"),  # another folder that begins alike
    ],
)
def test_paths_and_names_are_replaced(text, expected):
    assert HIDE(text) == expected


@each(
    "text",
    [
        "220 images/s in fp32 (torch 2.14.1, cpu)",
        "see https://pytorch.org/get-started",
        "64 MB in /dev/shm",
        "run `pip install 'bottleneck-vision[openvino]'`",
        "annual, cannot",
        "features/efficientnet_lite0-002c64fa",
    ],
)
def test_what_is_public_stays(text):
    assert HIDE(text) == text


def test_a_current_folder_that_was_deleted_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()

    assert "x/cache" in Person.here("x/cache").places


def test_the_places_of_this_process_are_known_by_each_of_their_spellings(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    places = Person.here("link/cache", "cache").places

    assert {"link/cache", str(tmp_path / "link/cache"), os.path.realpath("real/cache")} <= set(places)
    assert os.path.expanduser("~") in places
    assert "cache" not in places  # an ordinary word
