"""Tables and sentences at any width: no line is wider, and nothing of them is lost."""

import itertools
import re
import shlex

from bottleneck.cli.layout import Column, Command, TextTable, cells, fold, right
from tests.variants import each

WIDTHS = [24, 40, 60, 80, 100, 120, 200]
LONG = "timm/vit_so400m_patch14_siglip_gap_896.pali2_10b_pt"
PATH = "/data/photographs/2024-05-17 garden/" + "deep/" * 20 + "IMG_0001.jpg"
ROWS = [
    [LONG, "logistic", "95.2% ± 2.8%", "91.7% to 98.2%", "3.1e-12", "not told apart"],
    ["resnet18@none", "svm", "66.2% ± 4.8%", "56.2% to 71.2%", "", "worse"],
]
FIGURES = sorted(cell for row in ROWS for cell in row if cell[:1].isdigit())


def table() -> TextTable:
    made = TextTable("model", Column("head", optional=True), *right("cross-validated", "95 % interval", "p"), "")
    for row in ROWS:
        made.add_row(*row)
    return made


def squeezed(lines: list[str]) -> str:
    return re.sub(r"\s+", "", "".join(lines))


@each("width", WIDTHS[1:])
def test_no_line_of_a_table_is_too_wide_and_no_number_is_truncated(width):
    lines = table().lines(width)
    assert max(map(cells, lines)) <= width
    assert all(any(figure in line for line in lines) for figure in FIGURES)
    assert all(squeezed([row[0]]) in squeezed(lines) for row in ROWS)
    assert "…" not in "".join(lines)


def test_a_table_that_fits_has_columns():
    header, rule, first, second, last = table().lines()
    assert header.split() == ["model", "head", "cross-validated", "95", "%", "interval", "p"]
    assert set(rule.strip()) == {"─"}
    assert re.split(r" {2,}", first.strip()) == ROWS[0]
    assert first.index("98.2%") + 5 == second.index("71.2%") + 5  # numbers end at the same place
    assert last == ""
    assert max(map(len, [header, rule, first, second])) == len(first)
    assert table().lines(len(first)) == table().lines()


def test_an_optional_column_is_dropped_first():
    room = max(map(len, table().lines()))
    header, _, first, *_ = table().lines(room - 1)
    assert "head" not in header
    assert "logistic" not in first
    assert "95.2% ± 2.8%" in first


def test_a_table_that_does_not_fit_is_a_list_with_all_columns():
    lines = table().lines(60)
    assert lines[0] == f" {LONG}"
    assert lines[1].split("   ")[1:] == ["head: logistic", "cross-validated: 95.2% ± 2.8%"]
    assert "not told apart" in "".join(lines)  # of a column without a name
    assert "p: \n" not in "\n".join(lines)  # nothing is said of an empty cell
    assert lines.index(" resnet18@none") > 1


def test_a_confusion_matrix_of_many_names_lists_what_was_predicted():
    names = [f"species number {number} of the garden" for number in range(12)]
    made = TextTable("label \\ predicted", *right(*names), nothing=("·",))
    for place, name in enumerate(names):
        made.add_row(name, *("5" if other == place else "2" if other == 3 else "·" for other in range(12)))
    lines = made.lines(80)
    assert max(map(len, lines)) <= 80
    assert lines[:2] == [f" {names[0]}", f"   {names[0]}: 5   {names[3]}: 2"]
    assert "·" not in "".join(lines)
    assert len(made.lines()) == 2 + 12 + 1


def test_wide_characters_count_for_two():
    made = TextTable("class", *right("images"))
    made.add_row("猫猫猫", "7")
    made.add_row("dog", "12")
    _, _, *rows, _ = made.lines()
    assert [cells(row) for row in rows] == [cells(rows[0])] * 2
    assert max(map(cells, fold("猫" * 30, 24))) <= 24


def test_a_rule_can_be_drawn_in_ascii():
    assert set(table().lines(rule="-")[1].strip()) == {"-"}


def test_no_cell_breaks_a_line_or_moves_a_cursor():
    made = TextTable("class", "a\nb")
    made.add_row("x\n\x1b[2J", "1")
    assert made.lines()[0].split() == ["class", "a\\nb"]
    assert made.lines()[2].split() == ["x\\n\\x1b[2J", "1"]
    assert len(made.lines(24)) == 4


@each(
    "text, width",
    itertools.product(
        [
            "accuracy 96.1% on 153 held-out images (val), 95 % interval 91.7% to 98.2%; balanced 95.9%, macro F1 0.960",
            f"warning: 27 held-out images have a near copy: {PATH} is like {PATH} (0.98); and 24 more, in card.json",
            "  1.0 GB, 49.6 MB of them to be computed, once, at blocks.4 (112 x 14 x 14) (63.6% ± 6.0%) in 12.5 s",
            "a" * 300,
        ],
        WIDTHS,
    ),
)
def test_a_sentence_is_folded_between_words_and_whole(text, width):
    lines = fold(text, width)
    assert max(map(len, lines)) <= width
    assert squeezed(lines) == squeezed([text])
    assert all(line.startswith(text[: len(text) - len(text.lstrip())]) for line in lines)
    words = set(text.split())
    broken = [word for line in lines for word in line.split() if word not in words]
    assert all(len(word) <= width and (PATH.split()[0][:5] in text or "aaa" in word) for word in broken)


@each("figure", ["95 %", "12.5 s", "49.6 MB", "1.0 GB", "63.6% ± 6.0%", "112 x 14 x 14", "(64, 64, 3, 3)"])
def test_a_number_stays_with_its_unit(figure):
    for width in range(24, 60):
        assert any(figure in line for line in fold(f"{'word ' * 6}{figure} and more words after it", width))


def test_a_path_longer_than_a_line_is_folded_at_its_separators():
    first, *others = fold("seen in /data/photographs/garden/flowers/2024/IMG_0001.jpg", 30)
    assert first == "seen in"
    assert [line.strip() for line in others] == ["/data/photographs/garden/", "flowers/2024/IMG_0001.jpg"]


def test_the_rest_of_a_long_word_is_indented_like_other_lines():
    assert fold(" /data/photographs/garden/IMG_0001.jpg", 30) == [" /data/photographs/garden/", "   IMG_0001.jpg"]


def test_a_path_that_fits_into_a_line_is_never_folded():
    assert "/data/photographs/IMG_0001.jpg" in [
        line.strip() for line in fold("it was seen in /data/photographs/IMG_0001.jpg", 34)
    ]


@each("width", [34, 50, 80])
def test_a_command_is_continued_after_backslashes(width):
    words = ["bottleneck", "fit", "/data/my photos", "--model", "efficientnet_lite0-002c64fa", "--head", "logistic"]
    lines = Command("to save the best as a run:", *words).lines(width)
    assert lines[0] == "to save the best as a run:"
    assert shlex.split("\n".join(lines[1:]).replace("\\\n", "")) == words
    assert max(map(len, lines)) <= width


def test_a_command_that_fits_is_in_the_line_of_its_sentence():
    assert Command("next:", "bottleneck", "fit", "a b").lines() == ["next: bottleneck fit 'a b'"]
