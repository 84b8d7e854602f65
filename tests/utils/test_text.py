from bottleneck.errors import printable
from bottleneck.utils.text import Spellings, counted, is_unicode, look_alikes, normal, one_line
from tests.variants import each


def test_names_have_one_form() -> None:
    spellings = Spellings()
    found = [spellings.normal(name) for name in ("e\u0301", "\u00e9", "cat", "o\u0308")]
    assert found == ["\u00e9", "\u00e9", "cat", "\u00f6"]
    assert spellings.several() == ["\u00e9"]
    assert normal("\ufb01sh") == "\ufb01sh"  # alike, and not the same


@each(
    "names, expected",
    [
        (["cat", "dog"], []),
        (["Cat", "cat", "CAT", "dog"], [("CAT", "Cat", "cat")]),
        (["red fox", "red_fox", "redfox", "red-fox"], [("red fox", "red-fox", "red_fox", "redfox")]),
        (["1_1", "11", "1 1"], [("1 1", "1_1")]),
        (["Wald\u00adkauz", "Waldkauz"], [("Waldkauz", "Wald\u00adkauz")]),
        (["STRASSE", "stra\u00dfe"], [("STRASSE", "stra\u00dfe")]),
        (["\uff21", "a"], [("a", "\uff21")]),
        (["a.b", "ab", "c++", "c"], []),
    ],
)
def test_names_that_look_alike(names: list[str], expected: list[tuple[str, ...]]) -> None:
    assert look_alikes(names) == expected


def test_what_is_unicode() -> None:
    assert is_unicode("\u200d\ue000\x00")
    assert not is_unicode(b"caf\xe9".decode("utf-8", "surrogateescape"))


@each(
    "count, noun, expected",
    [
        (1, "image", "1 image"),
        (0, "image", "0 images"),
        (2, "head", "2 heads"),
        (1, "class", "1 class"),
        (40, "class", "40 classes"),
        (2, "box", "2 boxes"),
        (1, "training image", "1 training image"),
    ],
)
def test_a_count_and_its_noun_agree(count, noun, expected):
    assert counted(count, noun) == expected


def test_a_plural_can_be_given():
    assert [counted(count, "copy", "copies") for count in (1, 2)] == ["1 copy", "2 copies"]


@each(
    "text, expected",
    [
        ("photos/café 猫.jpg", "photos/café 猫.jpg"),
        ("[bold]\\", "[bold]\\"),
        ("a\x1b[31mred", "a\\x1b[31mred"),
        ("a\nerror: no", "a\\nerror: no"),
        ("a\r\tb\x7f\x9b", "a\\r\\tb\\x7f\\x9b"),
        ("gpj\u202e.exe", "gpj\\u202e.exe"),
        ("a\u2028b\ufeff", "a\\u2028b\\ufeff"),
        ("caf\udce9.jpg", "caf\\xe9.jpg"),  # a byte that is no UTF-8
        ("\ud800", "\\ud800"),
        ("a\u200db", "a\\u200db"),  # invisible
    ],
)
def test_what_would_not_print_is_escaped_and_nothing_else(text, expected):
    assert printable(text) == expected


def test_what_is_shown_at_the_prompt_is_one_line_without_control_characters():
    class Result:
        pass

    assert one_line(Result(), "2 images", "", "ph\notos\x1b[31m") == r"<Result: 2 images, ph\notos\x1b[31m>"
