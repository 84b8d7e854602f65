"""The commands of a comparison."""

from bottleneck.comparison.commands import compare_command, fit_command
from tests.comparison.boards import CURVE, ROWS, board, row


def test_the_best_row_is_fitted_on_its_spec_with_the_options_of_the_user():
    words = fit_command(board(), ["--split", "60/0/40"])

    assert " ".join(words) == ("bottleneck fit /home/me/bugs --model large-0123abcd --head logistic --split 60/0/40")


def test_an_svm_with_a_kernel_is_an_option_of_fit():
    assert fit_command(board(row("m", "svm-rbf")))[-4:] == ["--head", "svm", "--kernel", "rbf"]


def test_a_run_is_not_fitted_again():
    tuned = row("run:a", "logistic", cv_spread=None, cv_ci95=None)

    assert fit_command(board(tuned)) is None
    assert compare_command(board(tuned, *ROWS))[3:] == [
        "--models", "run:a,large,small,none", "--heads", "logistic,svm,ridge",
    ]  # fmt: skip


def test_a_comparison_is_repeated_with_its_learning_curve_and_options():
    words = compare_command(board(row("m", "svm"), curve=CURVE), ["--seed", "1"])

    assert words[3:] == ["--models", "m", "--heads", "svm", "--learning-curve", "--seed", "1"]
