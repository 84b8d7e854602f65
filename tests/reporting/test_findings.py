"""The audit of a run, or why there is none."""

from dataclasses import replace
from pathlib import Path

from bottleneck.errors import CacheError
from bottleneck.reporting.findings import DECODED, audit_of, clean_kinds, heading_of
from bottleneck.reporting.located import LocatedImages, locate
from tests.variants import each


def audited(run, search, located=None):
    found = located or locate(run, Path("cache"), Path("runs"))
    return audit_of(run, found, cache=Path("cache"), runs=Path("runs"), progress=None, search=search)


def called(**arguments):
    return arguments


def test_a_run_is_audited_with_its_own_features_and_nothing_is_trained_again(run):
    found = audited(run, called).found
    assert (found["run"], found["refit"], found["pictures"]) == (run, False, True)
    assert len(found["images"]) == 48


def test_a_fine_tuning_is_audited_with_the_features_before_it(other):
    run = other(kind="finetune", **{"from": {"run": "first", "features": other().card["spec"]}})
    found = audited(run, called).found
    assert found["model"] == f"resnet18-{run.card['fingerprint'][:8]}"
    assert len(found["images"]) == 48


def test_many_pictures_are_decoded_only_if_they_are_remembered(run, tmp_path):
    located = locate(run, Path("cache"), Path("runs"))
    many = located.dataset.subset([*range(48)] * (DECODED // 48 + 1))
    many = LocatedImages(located.source, many)
    found = audit_of(run, many, cache=tmp_path, runs=Path("runs"), progress=None, search=called).found
    assert not found["pictures"]


def refuses(**_):
    raise CacheError("no features in /home/me/private")


def test_an_audit_that_fails_leaves_a_sentence(run):
    found = audited(run, refuses)
    assert found.found is None
    assert found.remark == "The images could not be audited: `bottleneck audit` says why."
    assert "private" not in found.remark
    assert "were not found" in audited(run, refuses, LocatedImages(Path("x"), None)).remark


def test_kinds_that_were_not_searched_for_are_not_called_clean(run):
    from bottleneck.auditing.audit import audit

    found = replace(audited(run, audit).found, findings=(), has_pictures=False)
    assert "outliers" in clean_kinds(found)
    assert "bad pictures" not in clean_kinds(found)
    assert "probable label errors" not in clean_kinds(replace(found, has_labels=False))
    assert "near copies" not in clean_kinds(replace(found, near_threshold=None, thumbnail_threshold=None))


@each("kind", ["label error", "exact duplicate", "near duplicate", "outlier", "bad picture"])
def test_each_kind_has_a_heading_and_a_meaning(kind):
    assert all(heading_of(kind))
