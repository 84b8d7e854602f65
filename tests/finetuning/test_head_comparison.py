import numpy as np
import pytest

from bottleneck.finetuning.head_comparison import LEAST, against_head
from bottleneck.runs.ranking import LEVEL


def test_an_image_counts_that_only_one_of_the_two_has_right():
    tuned = np.array([True, True, True, False, False, True])
    head = np.array([True, False, False, True, False, True])
    found = against_head(tuned, head)
    assert (found["n"], found["only_tuned"], found["only_head"]) == (6, 2, 1)
    assert (found["p_value"], found["verdict"]) == (1.0, "cannot tell")


@pytest.mark.parametrize(("gained", "lost", "verdict"), [(9, 1, "better"), (1, 9, "worse"), (9, 3, "cannot tell")])
def test_the_verdict_is_that_of_the_test(gained, lost, verdict):
    tuned, head = np.ones(40, bool), np.ones(40, bool)
    head[:gained] = tuned[gained : gained + lost] = False
    assert against_head(tuned, head)["verdict"] == verdict


def test_fewer_images_than_the_least_can_tell_nothing():
    p_values = [against_head(np.ones(count, bool), np.zeros(count, bool))["p_value"] for count in (LEAST, LEAST - 1)]
    assert p_values[0] < LEVEL <= p_values[1]
