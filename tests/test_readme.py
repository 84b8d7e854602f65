import re
from pathlib import Path

from bottleneck.cli.main import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LONGEST = 150  # lines


def test_it_is_one_page():
    assert len(README.splitlines()) <= LONGEST


def test_every_command_is_in_its_table():
    assert set(re.findall(r"^\| `bottleneck (\w+)", README, re.MULTILINE)) == set(cli.commands)


def test_links_have_no_anchors():
    assert not re.findall(r"\]\([^)]*#[^)]*\)", README)


def test_the_picture_fetches_nothing():
    picture = (ROOT / "docs" / "assets" / "session.svg").read_text(encoding="utf-8")
    assert "url(http" not in picture
    assert "href" not in picture


def test_the_cache_format_can_be_read_as_the_page_says(folder):
    from bottleneck import extract

    images = folder({f"{name}/{number}.jpg": 1000 * ord(name) + number for name in "ab" for number in range(3)})
    done = extract(images, engine="torch", precision="fp32", resize=32, crop=32)
    (example,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "cache" / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    scope = {}
    exec(example.replace("efficientnet_lite0-...", done.store.name), scope)
    rows = done.store.read(done.dataset.digests)
    assert all((scope["features"][bytes(d)] == row).all() for d, row in zip(done.dataset.digests, rows, strict=True))
    assert len(scope["features"]) == 6
