import json
from dataclasses import FrozenInstanceError, replace

import pytest

from bottleneck.errors import ModelError
from bottleneck.images.view import AUGMENTATIONS, View

DIGEST = bytes(range(32))


@pytest.fixture
def view() -> View:
    return View(augmentation="standard", seed=3, number=7)


def beginning(view: View, digest: bytes = DIGEST) -> list[float]:
    return view.random(digest).random(4).tolist()


def test_only_listed_augmentations_are_taken() -> None:
    for augmentation in ["light", "standard", "strong"]:
        assert augmentation in AUGMENTATIONS
        assert View(augmentation=augmentation, seed=0, number=0).augmentation == augmentation

    for augmentation in ["none", "", "Light", "heavy", None, 1]:
        with pytest.raises(ModelError, match=f"of light, standard, strong .*got augmentation {augmentation!r}"):
            View(augmentation=augmentation, seed=0, number=0)


def test_a_seed_and_a_number_count_from_0(view: View) -> None:
    for value in [-1, -(10**30), 1.0, "1", None, True]:
        for name in ["seed", "number"]:
            with pytest.raises(ModelError, match=f"expected .*at least 0 as a view's {name}, got {value!r}"):
                replace(view, **{name: value})

    for value in [0, 1, 2**31, 10**30]:
        for name in ["seed", "number"]:
            assert beginning(replace(view, **{name: value})) == beginning(replace(view, **{name: value}))


def test_a_view_survives_json_is_a_key_and_cannot_change(view: View) -> None:
    value = json.loads(json.dumps(view.to_json()))
    assert value == {"augmentation": "standard", "seed": 3, "number": 7}
    assert View.from_json(value) == view

    assert len({view, replace(view)}) == 1
    with pytest.raises(FrozenInstanceError):
        view.seed = 1  # type: ignore[misc]


def test_the_random_numbers_of_a_view_stay_what_they_were_in_earlier_releases(view: View) -> None:
    assert beginning(view) == beginning(replace(view))

    assert beginning(view) == [0.9782181119322361, 0.8864197876528771, 0.37345904328138024, 0.735124485939826]


def test_every_part_of_the_view_and_of_the_digest_counts(view: View) -> None:
    views = [replace(view, augmentation=augmentation) for augmentation in AUGMENTATIONS[1:]]
    views += [replace(view, seed=seed) for seed in (0, 1, 37)] + [replace(view, number=number) for number in (0, 3, 77)]
    views += [View(augmentation="standard", seed=37, number=7), View(augmentation="standard", seed=7, number=3)]
    others = [bytes([*DIGEST[:place], 255, *DIGEST[place + 1 :]]) for place in range(32)]
    found = {tuple(beginning(one)) for one in set(views)} | {tuple(beginning(view, other)) for other in others}
    assert len(found) == len(set(views)) + 32
