from dataclasses import replace

import numpy as np
import pytest

from bottleneck.errors import RunError
from bottleneck.evaluation.conformal import Conformal
from bottleneck.evaluation.familiarity import familiarity
from bottleneck.runs.uncertainty import UNCERTAINTY, Uncertainty, load_uncertainty
from bottleneck.utils.files import sha256_hex
from tests.variants import each

X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
KNOWN = Uncertainty(familiarity(X, ["a", "b"] * 20), Conformal(np.array([0.1, 0.2], np.float32)))


def test_it_is_read_back(tmp_path):
    data = KNOWN.to_bytes()
    (tmp_path / UNCERTAINTY).write_bytes(data)
    found = load_uncertainty(tmp_path, sha256_hex(data), 6)
    new = np.random.default_rng(1).normal(size=(9, 6)).astype(np.float32)
    assert np.array_equal(found.familiarity.p_values(new), KNOWN.familiarity.p_values(new))
    assert found.conformal.scores.tolist() == KNOWN.conformal.scores.tolist()
    assert found.familiarity.unseen is False
    assert found.to_bytes() == data


def test_a_missing_a_changed_and_a_damaged_file_are_refused(tmp_path):
    with pytest.raises(RunError, match=r"cannot read .*uncertainty.safetensors.* Fit again"):
        load_uncertainty(tmp_path)
    (tmp_path / UNCERTAINTY).write_bytes(KNOWN.to_bytes())
    with pytest.raises(RunError, match=r"it has changed\. Fit again"):
        load_uncertainty(tmp_path, "0" * 64)
    with pytest.raises(RunError, match="expected shapes"):
        load_uncertainty(tmp_path, dim=7)
    for data in (KNOWN.to_bytes()[:-5], b"\x08\0\0\0\0\0\0\0nonsense", b""):
        (tmp_path / UNCERTAINTY).write_bytes(data)
        with pytest.raises(RunError, match="cannot read"):
            load_uncertainty(tmp_path)
    (tmp_path / UNCERTAINTY).write_bytes(KNOWN.to_bytes().replace(b'"format_version":"1"', b'"format_version":"2"'))
    with pytest.raises(RunError, match=r"expected format version 1 .* found 2"):
        load_uncertainty(tmp_path)


@each(
    "name, value, message",
    [
        ("location", np.zeros(3, np.float32), "expected shapes"),
        ("spread", np.zeros(2, np.float32), "spread above 0"),
        ("calibration", np.array([2, 1], np.float32), "sorted"),
        ("calibration", np.array([np.nan], np.float32), "finite"),
        ("references", KNOWN.familiarity.references[:0], "references"),
        ("references", KNOWN.familiarity.references.astype(np.float32), "float16"),
        ("directions", KNOWN.familiarity.directions[:, :2], "expected shapes"),
        ("directions", KNOWN.familiarity.directions[0], "cannot read"),
    ],
)
def test_values_that_do_not_fit_are_refused(tmp_path, name, value, message):
    wrong = replace(KNOWN, familiarity=replace(KNOWN.familiarity, **{name: value}))
    (tmp_path / UNCERTAINTY).write_bytes(wrong.to_bytes())
    with pytest.raises(RunError, match=message):
        load_uncertainty(tmp_path)
