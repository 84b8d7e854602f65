from bottleneck.backbones.names import did_you_mean, nearest
from tests.variants import each


def test_the_nearest_come_first_and_three_at_most():
    assert nearest("resnet5O", ["vgg11", "resnet18", "resnet50", "resnet101", "resnet152"])[0] == "resnet50"
    assert len(nearest("resnet", [f"resnet{number}" for number in range(9)])) == 3


def test_a_nonsense_name_has_no_nearest():
    assert nearest("zzzz", ["resnet18", "vgg11"]) == []


@each(
    "names, words",
    [
        ([], ""),
        (["a"], "did you mean a?"),
        (["a", "b"], "did you mean a or b?"),
        (["a", "b", "c"], "did you mean a, b or c?"),
    ],
)
def test_names_are_listed_with_commas_and_or(names, words):
    assert did_you_mean(names) == words
