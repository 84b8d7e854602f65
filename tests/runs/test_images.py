import numpy as np
import pytest

from bottleneck.errors import RunError
from bottleneck.images.keys import as_digests
from bottleneck.runs.images import IMAGES, Role, RunImages, load_run_images, with_correctness
from tests.variants import each


def digests(*numbers):
    return as_digests([number.to_bytes(32, "big") for number in numbers])


def images(roles, first=0, complete=True):
    return RunImages(
        digests=digests(*range(first, first + len(roles))),
        roles=np.array(roles, np.uint8),
        right=np.full(len(roles), -1, np.int8),
        complete=complete,
    )


@each("complete", [True, False])
def test_images_are_read_back(tmp_path, complete):
    kept = with_correctness(images([0, 1, 2, 3], complete=complete), digests(3, 0), [True, False])
    (tmp_path / IMAGES).write_bytes(kept.to_bytes())
    found = load_run_images(tmp_path)
    assert np.array_equal(found.digests, kept.digests)
    assert found.roles.tolist() == [0, 1, 2, 3]
    assert found.right.tolist() == [0, -1, -1, 1]
    assert found.complete is complete


def test_a_run_of_an_earlier_version_has_no_images(tmp_path):
    assert load_run_images(tmp_path) is None


def test_a_damaged_file_and_a_newer_one_are_refused(tmp_path, monkeypatch):
    (tmp_path / IMAGES).write_bytes(b"\x08\0\0\0\0\0\0\0nonsense")
    with pytest.raises(RunError, match="cannot read"):
        load_run_images(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("bottleneck.runs.images.VERSION", 2)
        (tmp_path / IMAGES).write_bytes(images([0]).to_bytes())
    with pytest.raises(RunError, match="version 1"):
        load_run_images(tmp_path)


def test_mismatched_shapes_are_refused(tmp_path):
    found = RunImages(digests=digests(1, 2), roles=np.zeros(1, np.uint8), right=np.zeros(2, np.int8))
    (tmp_path / IMAGES).write_bytes(found.to_bytes())
    with pytest.raises(RunError, match="expected"):
        load_run_images(tmp_path)


@each("role, right", [(4, 0), (255, 0), (0, 2), (0, -2)])
def test_unknown_values_are_refused(tmp_path, role, right):
    found = RunImages(digests=digests(1), roles=np.array([role], np.uint8), right=np.array([right], np.int8))
    (tmp_path / IMAGES).write_bytes(found.to_bytes())
    with pytest.raises(RunError, match="expected roles"):
        load_run_images(tmp_path)


def test_an_image_that_is_not_in_the_run_is_unused():
    assert images([0, 1]).role_of(digests(1, 7, 0)).tolist() == [Role.SELECTED, Role.UNUSED, Role.TRAINED]
    assert images([]).role_of(digests(1)).tolist() == [Role.UNUSED]


def test_training_images_of_an_earlier_run_count_as_trained_on():
    earlier = images([Role.TRAINED, Role.TRAINED, Role.HELD_OUT, Role.SELECTED], first=10)
    later = with_correctness(images([Role.HELD_OUT, Role.UNUSED, Role.UNUSED], first=11), digests(12, 13), [True, True])
    found = later.after(earlier)
    roles = dict(zip((int.from_bytes(row.tobytes(), "big") for row in found.digests), found.roles, strict=True))
    assert roles == {10: Role.TRAINED, 11: Role.TRAINED, 12: Role.UNUSED, 13: Role.SELECTED}
    assert found.complete
    unknown = later.after(None)
    assert not unknown.complete
    assert (unknown.right == -1).all()
