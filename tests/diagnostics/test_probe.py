from bottleneck.diagnostics.diagnosis import NOTE, WRONG, Symptom
from bottleneck.diagnostics.probe import Probe, reason
from tests.variants import each


def _half():
    yield Symptom("a", "1")
    raise OSError("no b")


def test_a_probe_that_fails_is_a_symptom_after_those_that_it_found():
    found = list(Probe("b", _half, "Mend b.").symptoms())

    assert found == [Symptom("a", "1"), Symptom("b", "OSError: no b", WRONG, "Mend b.")]


@each("error", [SystemExit(3), MemoryError(), RuntimeError("x")])
def test_whatever_a_probe_raises_is_caught(error):
    def look():
        raise error

    (found,) = Probe("b", look, state=NOTE).symptoms()

    assert (found.state, found.value) == (NOTE, reason(error))


def test_a_reason_is_one_line_of_limited_length():
    assert reason(ValueError("\n first\nsecond")) == "ValueError: first"
    assert reason(MemoryError()) == "MemoryError"
    assert len(reason(ValueError("x" * 5000))) < 400
