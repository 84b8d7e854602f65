from collections.abc import Iterator

import click
from click.testing import CliRunner

from bottleneck.cli.main import cli
from bottleneck.cli.numbers import RealNumber, WholeNumber
from tests.variants import each

NO_NUMBERS = ("nan", "NaN", "-nan", "inf", "-inf", "infinity", "1e400", "-1e400", "1e308", "-1", "", "1_0e", "0x10")
OTHERS = ("C", "lr_mult", "max_failures", "split")  # texts that hold numbers, which a function reads


def commands(group: click.Group, *above: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, *above, name)
        else:
            yield (*above, name), command


OPTIONS = [(path, option) for path, command in commands(cli) for option in command.params]
NUMBERS = [(path, option) for path, option in OPTIONS if isinstance(option.type, (RealNumber, WholeNumber))]
NAMES = [f"{' '.join(path)} {option.name}" for path, option in NUMBERS]


def test_every_option_that_is_a_number_is_finite_and_in_a_range():
    kinds = (click.types.IntParamType, click.types.FloatParamType, click.types.IntRange, click.types.FloatRange)
    offenders = [
        f"{' '.join(path)} {option.name}"
        for path, option in OPTIONS
        if isinstance(option.type, kinds) and not isinstance(option.type, (RealNumber, WholeNumber))
    ]

    assert offenders == []
    assert len(NUMBERS) > 30


def given(path: tuple[str, ...], option: click.Parameter, value: str) -> list[str]:
    """Return the words of a command with one option, and with arguments where it needs some."""
    return [*path, f"{option.opts[0]}={value}"]


@each("path, option", NUMBERS, ids=NAMES)
def test_a_number_that_is_not_finite_or_out_of_range_is_a_usage_error(path, option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in NO_NUMBERS:
        result = CliRunner().invoke(cli, given(path, option, value))
        assert result.exit_code == 2, (value, result.output)
        assert option.opts[0] in result.output
    assert list(tmp_path.iterdir()) == []


@each("name", OTHERS)
def test_numbers_within_texts_are_finite_too(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, option = next((path, option) for path, option in OPTIONS if option.name == name)
    texts = {"lr_mult": "layer4={}", "max_failures": "{}%", "split": "80/{}/10"}
    for value in ("nan", "inf", "-inf", "1e400", "-1"):
        result = CliRunner().invoke(cli, given(path, option, texts.get(name, "{}").format(value)))
        assert result.exit_code == 2, (value, result.output)


@each(
    "kind, text, value",
    [(RealNumber(0), "1e30", 1e30), (RealNumber(0, 1), "1", 1.0), (WholeNumber(1), "9223372036854775807", 2**63 - 1)],
)
def test_numbers_up_to_the_bounds_are_taken(kind, text, value):
    assert kind.convert(text, None, None) == value


def test_the_help_shows_only_meaningful_bounds():
    assert RealNumber(0)._describe_range() == "x>=0"
    assert RealNumber(0, min_open=True)._describe_range() == "x>0"
    assert RealNumber(0, 1, max_open=True)._describe_range() == "0<=x<1"
    assert WholeNumber(1)._describe_range() == "x>=1"
    assert WholeNumber(1, 4)._describe_range() == "1<=x<=4"
