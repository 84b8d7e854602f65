from dataclasses import replace
from pathlib import Path

import numpy as np

from bottleneck.auditing.duplicates import EXACT, NEAR, find_duplicates
from bottleneck.evaluation.neighbours import NOBODY, nearest_neighbours, unit_rows
from bottleneck.images.thumbnails import Thumbnails
from tests.auditing.test_pictures import images
from tests.evaluation.test_near_duplicates import edited, photographs
from tests.evaluation.test_perceptual_hash import scene
from tests.evaluation.test_perceptual_hash import thumbnails as shrunk


def labelled(count, label="x"):
    return images(count, (label,) * count)


def changed(dataset, column, **values):
    """Return the dataset with values of some rows, given as row_12=value."""
    found = list(getattr(dataset, column))
    for name, value in values.items():
        found[int(name[4:])] = value
    return replace(dataset, **{column: tuple(found)})


def names(group):
    return [Path(path).stem for path in group.paths]


def test_exact_copies_are_found_with_all_their_paths_and_ranked_by_what_they_cross():
    dataset = labelled(50)
    dataset.digests[[10, 11]], dataset.digests[20], dataset.digests[30] = dataset.digests[9], dataset.digests[19], 99
    dataset.digests[31] = 99
    dataset = changed(changed(dataset, "labels", row_31="y"), "given_splits", row_20="test")
    features = photographs(50)
    features[[10, 11]], features[20], features[31] = features[9], features[19], features[30]
    found = find_duplicates(dataset, features)
    assert [(group.kind, names(group)) for group in found.groups] == [
        (EXACT, ["30", "31"]),
        (EXACT, ["19", "20"]),
        (EXACT, ["09", "10", "11"]),
    ]
    labels, splits, within = found.groups
    assert (labels.across_labels, labels.across_splits, labels.labels) == (True, False, ("x", "y"))
    assert (splits.across_labels, splits.across_splits, splits.splits) == (False, True, ("train", "test"))
    assert within.reason == "the same bytes at 3 paths"
    assert (within.cosine, within.bits) == (None, None)
    assert within.digests[0] == within.digests[2] == dataset.digests[9].tobytes().hex()


def test_near_copies_are_groups_of_all_images_that_are_linked():
    dataset = labelled(60)
    features = photographs(60)
    features[40], features[41], features[50] = edited(features[3]), edited(features[3], 0.2), edited(features[8])
    dataset.digests[55], features[55] = dataset.digests[50], features[50]  # an exact copy of a near copy
    dataset = changed(dataset, "labels", row_50="y", row_55="y")
    found = find_duplicates(dataset, features)
    assert [(group.kind, names(group)) for group in found.groups] == [
        (NEAR, ["08", "50", "55"]),
        (EXACT, ["50", "55"]),
        (NEAR, ["03", "40", "41"]),
    ]
    assert found.threshold < found.groups[0].cosine <= 1
    assert found.groups[0].reason == f"features with a cosine similarity of up to {found.groups[0].cosine:.2f}"
    assert (found.thumbnail_threshold, found.remarks) == (None, ())
    assert found.groups[0].across_labels


def test_the_result_does_not_depend_on_the_order_of_the_images():
    dataset, features = labelled(60), photographs(60)
    features[40], features[41] = edited(features[3]), edited(features[20])
    dataset.digests[30], features[30] = dataset.digests[5], features[5]
    order = np.random.default_rng(0).permutation(60)
    assert find_duplicates(dataset.subset(order.tolist()), features[order]) == find_duplicates(dataset, features)


def test_known_neighbours_give_the_same_groups():
    dataset, features = labelled(60), photographs(60)
    features[40], features[41] = edited(features[3]), edited(features[3], 0.15)
    dataset.digests[30], features[30] = dataset.digests[41], features[41]
    order = np.random.default_rng(0).permutation(60)
    shuffled, rows = dataset.subset(order.tolist()), features[order]
    expected = find_duplicates(dataset, features)
    assert len(expected.groups) == 2
    known = nearest_neighbours(unit_rows(rows, rows.mean(axis=0)), k=2).rows
    assert find_duplicates(shuffled, rows, neighbours=known) == expected
    nobody = find_duplicates(shuffled, rows, neighbours=np.full((60, 3), NOBODY))
    assert [group.kind for group in nobody.groups] == [EXACT]


def test_images_of_one_given_group_come_last():
    dataset, features = labelled(60), photographs(60)
    features[40], features[41] = edited(features[3], 0.05), edited(features[20], 0.2)
    dataset = changed(dataset, "groups", row_3="nest", row_40="nest")
    found = find_duplicates(dataset, features)
    assert [(names(group), group.grouped) for group in found.groups] == [(["20", "41"], False), (["03", "40"], True)]


def test_hashes_find_copies_that_features_do_not_show():
    pictures = [scene(seed) for seed in range(40)]
    pictures += [pictures[2], pictures[7].transpose(0), scene(99), scene(98)]
    thumbnails = Thumbnails(shrunk(pictures), np.full((44, 2), 100))
    features = photographs(44)
    features[43] = edited(features[11])
    features[40] = edited(features[2])
    found = find_duplicates(labelled(44), features, thumbnails)
    assert sorted((names(group), group.bits, group.cosine is None) for group in found.groups) == [
        (["02", "40"], 0, False),
        (["07", "41"], 0, True),  # mirrored
        (["11", "43"], None, False),
    ]
    both = next(group for group in found.groups if names(group) == ["02", "40"])
    assert both.reason.endswith("and perceptual hashes that differ by 0 of 64 bits")
    assert 0.3 <= found.thumbnail_threshold < 0.98

    thumbnails.sizes[41] = 0  # unknown
    assert ["07", "41"] not in [names(group) for group in find_duplicates(labelled(44), features, thumbnails).groups]
    alone = find_duplicates(labelled(44), None, Thumbnails(thumbnails.pixels, np.full((44, 2), 100)))
    assert sorted(map(names, alone.groups)) == [["02", "40"], ["07", "41"]]
    assert (alone.threshold, alone.remarks) == (None, ())


def test_sets_that_tell_little_say_so():
    few = find_duplicates(labelled(3), photographs(3), Thumbnails(shrunk([scene(1)] * 3), np.full((3, 2), 9)))
    assert few.groups == ()
    assert [remark.partition(":")[0] for remark in few.remarks] == [
        "near copies were not searched for by features",
        "near copies were not searched for by thumbnails",
    ]
    same = find_duplicates(labelled(30), np.ones((30, 8), np.float32))
    assert (same.groups, len(same.remarks)) == ((), 1)

    features = photographs(60)
    video = find_duplicates(labelled(120), np.concatenate([features, edited(features, 0.15)]))
    assert "like the frames of a video" in video.remarks[0]
    assert all(abs(int(b) - int(a)) == 60 for a, b in map(names, video.groups))
    assert find_duplicates(labelled(0), np.zeros((0, 8), np.float32)).groups == ()


def test_all_paths_may_be_one_image():
    dataset = labelled(25)
    dataset.digests[:] = 7
    (group,) = find_duplicates(dataset, np.ones((25, 8), np.float32)).groups
    assert (group.kind, len(group.paths)) == (EXACT, 25)


def test_each_image_of_a_chain_has_its_own_closest_image():
    dataset = labelled(60)
    features = photographs(60)
    features[41], features[42] = edited(features[40], 0.05), edited(features[40], 0.3)
    (group,) = find_duplicates(dataset, features).groups
    assert names(group) == ["40", "41", "42"]
    closest = dict(zip(names(group), (Path(path).stem for path in group.closest), strict=True))
    assert (closest["40"], closest["41"]) == ("41", "40")
    assert closest["42"] in ("40", "41")
    assert group.reasons[0] == group.reasons[1] != group.reasons[2]
