import numpy as np

from bottleneck.finetuning.head_comparison import MIN_DISCORDANT, compare_with_head
from bottleneck.runs.ranking import LEVEL
from tests.variants import each


def test_only_images_correct_on_one_side_count():
    tuned = np.array([True, True, True, False, False, True])
    head = np.array([True, False, False, True, False, True])
    found = compare_with_head(tuned, head)
    assert (found["n"], found["only_tuned"], found["only_head"]) == (6, 2, 1)
    assert (found["p_value"], found["verdict"]) == (1.0, "cannot tell")


@each("gained, lost, verdict", [(9, 1, "better"), (1, 9, "worse"), (9, 3, "cannot tell")])
def test_the_verdict_follows_the_p_value(gained, lost, verdict):
    tuned, head = np.ones(40, bool), np.ones(40, bool)
    head[:gained] = tuned[gained : gained + lost] = False
    assert compare_with_head(tuned, head)["verdict"] == verdict


def test_fewer_discordant_images_are_never_significant():
    counts = (MIN_DISCORDANT, MIN_DISCORDANT - 1)
    p_values = [compare_with_head(np.ones(n, bool), np.zeros(n, bool))["p_value"] for n in counts]
    assert p_values[0] < LEVEL <= p_values[1]
