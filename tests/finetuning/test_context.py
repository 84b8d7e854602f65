from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.finetuning.activations import clean_store
from bottleneck.finetuning.boundary import find_boundary
from bottleneck.finetuning.initial import InitialState
from bottleneck.finetuning.outline import Outline
from bottleneck.finetuning.recipe import Recipe
from tests.finetuning.small import context_of, dataset, pixels, small

RECIPE = Recipe(unfreeze=("last",), augment="light", views=2, precision="fp32")


def test_folds_with_augmentation_also_need_the_training_images_without_it(tmp_path):
    network = small()
    plain, images = context_of(network, RECIPE), dataset(tmp_path / "images")
    calls = network.trace()
    context = replace(
        plain,
        cache=FeatureCache(tmp_path / "cache"),
        boundary=find_boundary(network, plain.plan, calls),
        partition=SimpleNamespace(train=images.subset([0, 1, 2, 3]), val=images.subset([4, 5])),
    )
    clean, views = clean_store(context.cache, network, context.boundary), context.view_stores()
    for folds, augment, expected in (
        (None, "light", [(clean, 2), (views[0], 4), (views[1], 4)]),
        (3, "light", [(clean, 2), (views[0], 4), (views[1], 4), (clean, 4)]),
        (3, "none", [(clean, 2), (clean, 4)]),
    ):
        config = replace(context.config, folds=folds, recipe=replace(RECIPE, augment=augment))
        required = replace(context, config=config).required_activations()
        found = [(one.store.name, len(one.dataset)) for one in required]
        assert found == [(store.name, count) for store, count in expected], (folds, augment)


def test_without_a_boundary_the_whole_network_reads_images(tmp_path):
    images = dataset(tmp_path)
    ((rows, values),) = context_of(small(), RECIPE).clean_loader(images).batches(0, 8, None, slice(None))
    assert rows.tolist() == list(range(6))
    assert values.shape == pixels(small(), 6).shape
    assert len(np.unique(values.numpy(), axis=0)) == 6


def test_an_outline_without_a_boundary_has_no_activations(tmp_path):
    outline = Outline.of(context_of(small(), RECIPE), tmp_path, resumed=3)
    assert (outline.recipe, outline.resumed, outline.folds, outline.views) == (RECIPE, 3, 0, 0)
    assert (outline.bytes, outline.missing, outline.boundary, outline.wide) == (0, 0, None, False)


def test_a_repr_is_one_line_with_what_distinguishes_it(tmp_path):
    context = context_of(small(), RECIPE)
    outline = Outline.of(context, tmp_path, resumed=None)
    assert repr(outline) == f"<Outline: {tmp_path}, {RECIPE!r}, 0 views, fp32>"
    assert repr(context.plan) == f"<TrainablePlan: last, {context.plan.trained} parameters trained, 284 frozen>"
    for run, start in ((None, "a random last layer"), (SimpleNamespace(name="a-run"), "a-run")):
        cached = SimpleNamespace(dataset="six images")
        state = InitialState(run=run, request=None, cached=cached, classes=("a",), heldout="test")
        assert repr(state) == f"<InitialState: {start}, 'six images'>"
