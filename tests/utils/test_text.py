import pytest

from bottleneck.utils.text import Spellings, is_unicode, look_alikes, normal


def test_names_have_one_form() -> None:
    spellings = Spellings()
    found = [spellings.normal(name) for name in ("e\u0301", "\u00e9", "cat", "o\u0308")]
    assert found == ["\u00e9", "\u00e9", "cat", "\u00f6"]
    assert spellings.several() == ["\u00e9"]
    assert normal("\ufb01sh") == "\ufb01sh"  # alike, and not the same


@pytest.mark.parametrize(
    ("names", "expected"),
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
