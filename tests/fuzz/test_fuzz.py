"""A short form of ``make fuzz``, and tests of the fuzzer: that it finds what there is to be found."""

import io
import os

import pytest
from PIL import Image

from bottleneck.images.decode import formats
from tests.fuzz.kinds import KINDS, class_of, target_of
from tests.fuzz.supervisor import fuzz
from tests.fuzz.target import Case
from tests.variants import each

pytest.importorskip("resource", reason="limits of memory are POSIX's")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_mutated_file_does_harm(kind):
    cases = class_of(kind).short
    report = fuzz(kind, cases)

    assert report.findings == []
    assert report.codes.total() == cases
    assert report.codes["accepted"] > cases / 50  # or the mutations are too rude to get anywhere
    assert report.codes["accepted"] < cases


@each("kind", KINDS)
def test_sound_files_are_accepted(kind, tmp_path):
    target = target_of(kind, tmp_path)
    codes = {name: target.read(Case(name, data, ())) for name, data in target.seeds.items()}

    assert set(codes.values()) == {"accepted"}, codes


@each("kind", KINDS)
def test_a_case_is_made_again_by_its_number(kind, tmp_path):
    one, other = (target_of(kind, tmp_path / name) for name in ("one", "other"))
    numbers = range(0, 300, 7)

    assert one.seeds == other.seeds
    assert [one.case(number, 1) for number in numbers] == [other.case(number, 1) for number in numbers]
    assert [one.case(number, 1) for number in numbers] != [one.case(number, 2) for number in numbers]


def test_every_format_that_is_read_is_mutated(tmp_path):
    images = target_of("images", tmp_path).seeds.values()
    found = {Image.open(io.BytesIO(data), formats=formats()).format for data in images}
    assert found >= {"JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000"}


# --- what the fuzzer finds ----------------------------------------------------------------------------------------


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="the time of another process is not told")
def test_crashes_hangs_memory_and_exceptions_are_found_and_the_rest_is_read():
    report = fuzz("trap", 40, workers=2, longest=1.5, largest=300 << 20)
    found = {number: finding.what for number, finding in report.findings}

    assert found == {3: "wrong", 7: "exception", 11: "crash", 15: "hang", 19: "memory", 23: "exception"}
    assert report.codes.total() == 40
    assert report.memory > 300 << 20


def test_a_finding_says_where(tmp_path):
    from tests.fuzz.worker import judged

    code, finding = judged(target_of("trap", tmp_path), Case("number", b"7", ()))

    assert code == "exception"
    assert "ZeroDivisionError" in finding.detail
    assert "trap.py" in finding.detail
