"""The images of a run that is handed back, and runs and caches that lack what a fine-tuning needs."""

import json

import pytest

from bottleneck.errors import BottleneckWarning, RunError, TuningError
from bottleneck.finetuning.handback import refit_or_keep
from bottleneck.finetuning.initial import default_head, from_head, from_weights
from bottleneck.fitting.fit import fit
from bottleneck.images.scan import scan
from tests.finetuning.conftest import change_card

FOLDERS = {"cache": "cache", "runs": "runs", "progress": None}


def test_the_head_of_the_latest_fit_on_the_given_images_is_the_default(home, run, original):
    images = original / "images"
    other = fit(head="centroid")
    elsewhere = {"source": "/elsewhere", "place": None, "digest": "0", "images_digest": "0"}
    change_card(other, dataset={**other.card["dataset"], **elsewhere})
    for given, expected in (
        (None, other), ("/elsewhere", other), (images, run), (scan(images), run), (home / "unknown", other),
    ):  # fmt: skip
        assert default_head("runs", given).run.name == expected.name, given


def test_a_run_without_the_options_of_its_head_is_refused(run):
    card = json.loads((run.path / "card.json").read_text())
    del card["params"], card["dataset"]["shares"]
    (run.path / "card.json").write_text(json.dumps(card))
    with pytest.raises(RunError, match=r"^expected params, dataset\.shares in .*card\.json, found none: fit again$"):
        from_head(None, None, **FOLDERS)


def test_features_of_an_unknown_backbone_are_refused(home, run):
    store = from_weights(None, None, **FOLDERS).cached.store
    assert store.asked().model == run.card["model"]
    (store.folder / "request.json").unlink()
    with pytest.raises(TuningError, match="does not record how its backbone was built: extract again"):
        from_weights(None, None, **FOLDERS)


def test_a_head_is_kept_if_a_class_has_no_image_left(run):
    initial = from_head(None, None, **FOLDERS)
    train, store = initial.cached.usable, initial.cached.store
    refitted = refit_or_keep(run, train, store)
    assert refitted is not run.head
    assert refitted.classes == run.head.classes
    two = train.subset(row for row, label in enumerate(train.labels) if label != "red")
    with pytest.warns(BottleneckWarning, match="cannot be fitted without the validation images .a class has no image"):
        assert refit_or_keep(run, two, store) is run.head
