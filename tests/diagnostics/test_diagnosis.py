from bottleneck.diagnostics.diagnosis import NOTE, WRONG, Diagnosis, Symptom, SymptomGroup
from tests.variants import each

FINE = Symptom("torch", "2.6")
SLOW = Symptom("threads", "1", NOTE, "Unset X.")
BROKEN = Symptom("h5py", "ImportError", WRONG, "Reinstall it.")


def diagnosis(*symptoms):
    return Diagnosis((SymptomGroup("Versions", symptoms),), 1.25)


def test_the_text_is_a_markdown_list_that_says_what_to_do():
    assert str(diagnosis(FINE, SLOW, BROKEN)).splitlines() == [
        "### Versions",
        "",
        "- torch: 2.6",
        "- threads: note: 1. Unset X.",
        "- h5py: WRONG: ImportError. Reinstall it.",
        "",
        "fix what is marked WRONG: h5py (1.2 s)",
    ]


@each(
    "symptoms, works, verdict",
    [
        ([FINE], True, "bottleneck works here (1.2 s)"),
        ([FINE, SLOW], True, "bottleneck works here; see the note above (1.2 s)"),
        ([SLOW, SLOW], True, "bottleneck works here; see 2 notes above (1.2 s)"),
        ([BROKEN, SLOW], False, "fix what is marked WRONG: h5py (1.2 s)"),
    ],
)
def test_it_works_unless_something_must_be_fixed(symptoms, works, verdict):
    found = diagnosis(*symptoms)

    assert (found.works, found.verdict()) == (works, verdict)


def test_control_characters_are_escaped():
    assert "\x1b" not in str(diagnosis(Symptom("a\x1b[31m", "b\x1b", NOTE, "c\x1b")))


def test_json_has_each_symptom_by_its_section():
    found = diagnosis(BROKEN).to_json()

    assert found["works"] is False
    assert found["found"]["Versions"] == [
        {"name": "h5py", "value": "ImportError", "state": "wrong", "remedy": "Reinstall it."}
    ]
