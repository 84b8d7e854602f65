"""What is known of a backbone before it is built, and the next plan where that was wrong."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bottleneck.backbones.request import Request
from bottleneck.backbones.spec import Spec
from bottleneck.backbones.spec_memo import recall
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.engines import choice, hardware
from bottleneck.engines.choice import EngineChoice, NoEngine
from bottleneck.engines.options import EngineOptions
from bottleneck.engines.parity import Sample
from bottleneck.engines.records import Check, EngineRecords
from bottleneck.errors import BottleneckWarning, ModelError, RunError
from bottleneck.extraction.extract import extract
from bottleneck.extraction.plan import Builders, Plan, plan_features, start_engine
from bottleneck.fitting.fit import fit
from bottleneck.images.dataset import Dataset
from bottleneck.images.file_index import FileIndex
from bottleneck.images.keys import as_digests
from bottleneck.prediction.predict import predict
from tests import tiny
from tests.conftest import photo
from tests.tiny import TinyEngine
from tests.variants import each


def sample(count: int = 2) -> Callable[[], np.ndarray]:
    return lambda: np.zeros((count, 12, 12, 3), np.uint8)


FILES = {f"{name}/{number}.jpg": 100 * place + number for place, name in enumerate("ab") for number in range(6)}
MORE = {f"{name}/{number}.jpg": 100 * place + number for place, name in enumerate("abc") for number in range(20)}


class Machine:
    """What the tests pretend of this machine: its CPU, the network, and which precisions its engines get right."""

    def __init__(self) -> None:
        self.bf16 = True
        self.loads: list[Request] = []
        self.chosen: list[str] = []  # precisions that an engine was looked for
        self.distant: set[str] = set()  # precisions in which no engine passes
        self.cosine: float | None = 0.9995  # of the user's images, in other precisions than fp32
        self.kept: float | None = None  # what was found before of other images
        self.sampled: list[int] = []  # images of the user's that an engine was tried on
        self.closed = 0  # engines that were not used
        self.spec = tiny.SPEC

    @property
    def builders(self) -> Builders:
        return Builders(self.load, lambda *given: self.choose(*given), self.precisions)

    def precisions(self, options: EngineOptions, precision: str) -> tuple[str, ...]:
        if precision != "auto":
            return (precision,)
        return ("bf16", "fp32") if self.bf16 else ("fp32",)

    def load(self, request: Request) -> object:
        self.loads.append(request)
        return SimpleNamespace(spec=self.spec, restored=None)

    def choose(self, wish: EngineOptions, spec: Spec, build, folder: Path, sample: Sample | None) -> EngineChoice:
        self.chosen.append(spec.precision)
        if spec.precision in self.distant:
            raise NoEngine(spec.precision, (f"too far in {spec.precision}",))
        build()
        engine = TinyEngine()
        engine.precision = spec.precision
        engine.close = self.close  # type: ignore[method-assign]
        check = Check("tiny", spec.precision, 1.0)
        if sample:
            images = sample()
            assert images.shape[1:] == (12, 12, 3)
            self.sampled.append(len(images))
            check = replace(check, own_cosine=self.cosine, own_images=len(images))
        elif self.kept:
            check = replace(check, own_cosine=self.kept, own_images=8)
        return EngineChoice(engine, check, ("a remark",))

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def machine(monkeypatch) -> Machine:
    found = Machine()
    planned = partial(plan_features, builders=found.builders)
    tiny.use(monkeypatch, plan_features=planned, start_engine=start_engine)
    return found


NO_IMAGES = FileIndex.of(
    Dataset(source=Path("images"), paths=(), digests=as_digests([]), labels=(), given_splits=(), groups=())
)


def planned(machine: Machine, engine: str = "auto") -> Plan:
    request, options = Request(precision="auto"), EngineOptions(engine=engine)
    return plan_features(request, options, FeatureCache("cache"), NO_IMAGES, builders=machine.builders)


def memo() -> Spec | None:
    """Return what the memo says to the next who asks, in any precision."""
    return recall(Request(), Path("cache"))


# --- the memo ---------------------------------------------------------------------------------------------------


def test_the_first_time_the_network_is_built_and_the_spec_remembered(machine):
    found = planned(machine)

    assert (found.spec, found.built, len(machine.loads)) == (replace(tiny.SPEC, precision="bf16"), True, 1)
    assert memo() == tiny.SPEC


def test_the_second_time_the_spec_is_read_from_the_memo_and_nothing_is_built(machine):
    first = planned(machine).spec
    machine.loads.clear()
    found = planned(machine)

    assert (found.spec, found.built, machine.loads) == (first, False, [])


def test_a_memo_hit_imports_no_torch(folder):
    images = folder(FILES)
    extract(images, engine="torch", precision="fp32")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from bottleneck.backbones.request import Request\n"
        "from bottleneck.cache.feature_cache import FeatureCache\n"
        "from bottleneck.engines.options import EngineOptions\n"
        "from bottleneck.extraction.plan import plan_features\n"
        "from bottleneck.images.file_index import index_files\n"
        "from bottleneck.images.splits import Shares\n"
        "images = index_files('images', labels=True, shares=Shares(), cache='cache', exclude=())\n"
        "options = EngineOptions(engine='torch')\n"
        "found = plan_features(Request(precision='fp32'), options, FeatureCache('cache'), images)\n"
        "print(found.built, found.spec.precision, [name for name in ('torch', 'openvino') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.split() == ["False", "fp32", "[]"]


def test_the_network_is_built_once_in_a_first_extraction_and_not_at_all_in_the_next(folder, machine):
    images = folder(FILES)
    done = extract(images)
    assert (done.computed, len(machine.loads), machine.chosen) == (12, 1, ["bf16"])
    again = extract(images)

    assert (again.computed, again.reused) == (0, 12)
    assert (len(machine.loads), machine.chosen) == (1, ["bf16"])


def test_the_network_is_built_once_where_the_memo_knows_it_and_an_engine_needs_it(folder, machine):
    extract(folder(FILES))
    machine.loads.clear()
    done = extract(folder({"a/x.jpg": 900, "b/y.jpg": 901}, name="new"))

    assert (done.computed, len(machine.loads)) == (2, 1)


def test_a_memo_of_another_spec_is_mended_and_nothing_is_stored_under_it(folder, machine):
    right = planned(machine).spec
    (path,) = Path("cache/specs").glob("*.json")
    path.write_text(json.dumps({**right.to_json(), "weights": "f" * 64}))
    machine.loads.clear()
    done = extract(folder(FILES))

    assert (done.computed, done.store.spec, len(machine.loads)) == (12, right, 1)
    assert [store.name for store in FeatureCache("cache").stores()] == [done.store.name]
    assert memo() == replace(right, precision="fp32")


def test_a_memo_that_is_wrong_says_so_before_an_engine_is_there(machine):
    planned(machine)
    machine.spec = replace(tiny.SPEC, weights="e" * 64)
    start = start_engine(planned(machine), sample())

    assert start.engine is None
    assert start.plan.spec == replace(machine.spec, precision="bf16")
    assert memo() == machine.spec
    assert start_engine(start.plan, sample()).engine.precision == "bf16"
    assert len(machine.loads) == 2


# --- the precision ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bf16", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_what_the_cpu_has(folder, machine, bf16, precision):
    machine.bf16 = bf16
    done = extract(folder(FILES))

    assert (done.store.spec.precision, machine.chosen) == (precision, [precision])
    assert (done.check.precision, done.engine) == (precision, "tiny")
    assert "a remark" in done.remarks


def test_on_another_machine_auto_is_another_spec(machine):
    first = planned(machine).spec
    machine.bf16 = False

    assert (first.precision, planned(machine).spec.precision) == ("bf16", "fp32")
    machine.bf16 = True
    assert planned(machine).spec == first


def test_where_no_engine_passes_in_bf16_auto_is_fp32(folder, machine):
    machine.distant = {"bf16"}
    images = folder(FILES)
    done = extract(images)

    assert (done.computed, done.store.spec, machine.chosen) == (12, tiny.SPEC, ["bf16", "fp32"])
    assert len(machine.loads) == 1
    assert done.remarks[:2] == ("too far in bf16", "a remark")
    assert memo() == tiny.SPEC
    assert [store.spec.precision for store in FeatureCache("cache").stores()] == ["fp32"]
    machine.chosen.clear()
    assert extract(images).reused == 12
    assert machine.chosen == []
    folder({"a/x.jpg": 900, "b/y.jpg": 901})
    assert extract(images).computed == 2
    assert machine.chosen == ["fp32"]


def test_where_no_engine_passes_at_all_it_is_an_error(folder, machine):
    machine.distant = {"bf16", "fp32"}
    with pytest.raises(ModelError, match="expected an engine for fp32, found none: too far in fp32"):
        extract(folder(FILES))

    assert machine.chosen == ["bf16", "fp32"]


def test_auto_is_fp32_too_where_the_engine_was_named_and_is_remembered_to_be_wrong_in_bf16(machine):
    module = pytest.importorskip("bottleneck.engines.openvino_engine")
    machine.choose = choice.choose
    found = planned(machine, "openvino")
    name = f"openvino-{module.VERSION}-{module.CONVERSION}-batch{module.BATCH}-{hardware.Machine().cpu_id()}"
    EngineRecords(FeatureCache("cache").store(found.spec).engines).keep_check(name, Check("openvino", "bf16", 0.5, 8))

    start = start_engine(found, sample())
    assert (start.engine, start.plan.spec.precision) == (None, "fp32")


# --- the first images of a spec ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cosine", [0.9989, None])
def test_where_the_images_themselves_change_too_much_in_bf16_auto_is_fp32(folder, machine, cosine):
    machine.cosine = cosine
    images = folder(FILES)
    done = extract(images)

    assert (done.computed, done.store.spec, machine.chosen) == (12, tiny.SPEC, ["bf16", "fp32"])
    assert (machine.sampled, machine.closed, len(machine.loads)) == ([8], 2, 1)
    found = "some features are not finite" if cosine is None else "lowest cosine 0.99890"
    assert done.remarks[0] == (
        f"tiny in bf16 is not used: {found}, expected 0.999 or more against torch in fp32 on 8 images"
    )
    assert done.check.own_images == 0
    machine.chosen.clear()
    assert extract(images).reused == 12
    assert machine.chosen == []


def test_what_has_features_in_bf16_takes_more_and_later_images_do_not_change_that(folder, machine):
    assert extract(folder(FILES)).store.spec.precision == "bf16"
    machine.cosine = 0.5
    done = extract(folder({"a/x.jpg": 900, "b/y.jpg": 901}, name="new"))

    assert (done.computed, done.store.spec.precision) == (2, "bf16")
    assert machine.sampled == [8]


def test_images_decide_on_the_precision_of_later_images_in_their_folder(folder, machine):
    machine.cosine = 0.9
    odd = folder({"a/x.jpg": 900, "b/y.jpg": 901}, name="odd")
    assert extract(odd).store.spec.precision == "fp32"
    machine.chosen.clear()
    assert (extract(odd).reused, machine.chosen) == (2, [])
    machine.cosine = 0.9995
    assert extract(folder(FILES)).store.spec.precision == "bf16"
    folder({"a/z.jpg": 902, "b/z.jpg": 903}, name="odd")
    more = extract(odd)

    assert (more.store.spec.precision, more.computed, more.reused) == ("fp32", 2, 2)
    assert "fp32, because images already have features in it; --precision bf16 may be faster" in more.remarks
    assert machine.sampled == [2, 8]


@pytest.mark.parametrize("cosine", [0.9, 0.9995])
def test_what_has_features_keeps_its_precision_where_the_memos_are_lost(folder, machine, cosine):
    machine.cosine = cosine
    images = folder(FILES)
    first = extract(images)
    shutil.rmtree("cache/specs")
    machine.cosine = 0.9 if cosine > 0.999 else 0.9995
    folder({"a/x.jpg": 900, "b/y.jpg": 901})
    again = extract(images, device="cpu", batch_size=2)

    assert first.store.spec.precision == ("bf16" if cosine > 0.999 else "fp32")
    assert (again.store.spec, again.computed, again.reused) == (first.store.spec, 2, 12)
    assert len(machine.sampled) == 1


def test_auto_continues_with_a_requested_precision(folder, machine):
    images = folder(FILES)
    extract(images, precision="fp32")
    folder({"a/x.jpg": 900, "b/y.jpg": 901})

    assert (extract(images).computed, machine.chosen) == (2, ["fp32", "fp32"])


def test_all_features_that_are_here_will_do_on_any_machine(folder, machine):
    images = folder(FILES)
    extract(images)
    machine.bf16 = False

    assert extract(images).store.spec.precision == "bf16"
    folder({"a/x.jpg": 900, "b/y.jpg": 901})
    done = extract(images)
    assert (done.store.spec.precision, done.computed) == ("fp32", 14)


def test_the_precision_in_which_most_images_have_features_is_continued(folder, machine):
    images = folder(MORE)
    extract(images, precision="fp32")
    part = {name: seed for name, seed in MORE.items() if name.startswith("a")}
    extract(folder(part, name="part"), precision="bf16", labels=False)
    folder({"a/x.jpg": 900, "b/y.jpg": 901})

    done = extract(images)
    assert (done.store.spec.precision, done.computed) == ("fp32", 2)


def test_each_extraction_remarks_that_features_are_less_exact(folder, machine):
    machine.cosine = 0.9
    images = folder(FILES)
    extract(images, precision="bf16")
    folder({"a/x.jpg": 900, "b/y.jpg": 901})
    machine.kept = 0.9
    done = extract(images)

    assert done.store.spec.precision == "bf16"
    assert done.remarks[0].endswith("on 8 images; features in fp32 have no such error")


def test_the_precision_of_another_process_that_began_first_stays(folder, machine):
    machine.cosine = 0.9
    choose = machine.choose

    def late(*given: object) -> EngineChoice:
        chosen = choose(*given)
        machine.cosine, machine.choose = 0.9995, choose
        extract(folder({"a/x.jpg": 900, "b/y.jpg": 901}, name="suits"))
        return chosen

    machine.choose = late
    done = extract(folder(FILES))

    assert (done.store.spec.precision, done.computed) == ("bf16", 12)
    assert done.remarks[0].endswith("on 8 images; features in fp32 have no such error")


def test_a_requested_precision_is_used_for_any_images_with_a_remark(folder, machine):
    machine.cosine = 0.9
    done = extract(folder(FILES), precision="bf16")

    assert (done.computed, done.store.spec.precision) == (12, "bf16")
    assert done.remarks[0] == (
        "tiny in bf16: lowest cosine 0.90000, expected 0.999 or more against torch in fp32 on 8 images; "
        "features in fp32 have no such error"
    )
    assert done.check.lowest == 0.9


def test_fp32_needs_no_images_to_be_trusted(folder, machine):
    machine.cosine = 0.9
    extract(folder(FILES), precision="fp32")

    assert machine.sampled == []


@each("precision", ["bf16", "fp16", "fp32"])
def test_a_requested_precision_is_not_replaced(folder, machine, precision):
    machine.distant = {precision}
    machine.chosen.clear()
    with pytest.raises(NoEngine, match=f"expected an engine for {precision}"):
        extract(folder(FILES), precision=precision)

    assert machine.chosen == [precision]
    assert not list(Path("cache").glob("features/*/shards/*.h5"))


@each("precision", ["bf16", "fp16", "fp32"])
def test_a_requested_precision_is_that_of_the_spec(folder, machine, precision):
    machine.bf16 = False
    machine.chosen.clear()
    done = extract(folder(FILES), precision=precision)

    assert (done.store.spec.precision, machine.chosen) == (precision, [precision])


def test_each_precision_has_its_own_features(folder, machine):
    images = folder(FILES)
    one, other = (extract(images, precision=precision) for precision in ("fp32", "bf16"))

    assert (one.computed, other.computed) == (12, 12)
    assert one.store.folder != other.store.folder


def test_auto_uses_features_of_the_precision_that_it_selects(folder, machine):
    images = folder(FILES)
    assert extract(images, precision="bf16").computed == 12

    assert extract(images).computed == 0


# --- what is asked for again ------------------------------------------------------------------------------------


@pytest.fixture
def run(folder, machine):
    machine.bf16 = False
    extract(folder(MORE))
    return fit(split="60/0/40")


def test_a_run_asks_for_the_precision_it_was_trained_in(folder, machine, run):
    assert run.card["request"]["precision"] == run.card["spec"]["precision"] == "fp32"
    machine.bf16 = True
    machine.chosen.clear()
    (item,) = predict(folder({"x.jpg": 900}, name="new"))

    assert machine.chosen == ["fp32"]
    assert item.digest == tiny.digest(photo(900)).tobytes().hex()
    assert [store.spec.precision for store in FeatureCache("cache").stores()] == ["fp32"]
    assert extract("images").store.spec.precision == "fp32"  # `auto` would begin with bf16


def test_a_card_of_the_time_before_precisions_means_that_of_its_spec(folder, machine, run):
    card = json.loads((run.path / "card.json").read_text())
    del card["request"]["precision"]
    (run.path / "card.json").write_text(json.dumps(card))
    machine.bf16 = True
    machine.chosen.clear()
    predict(folder({"x.jpg": 900}, name="new"), run=run.path)

    assert machine.chosen == ["fp32"]


def test_a_run_whose_precision_is_not_available_is_an_error(folder, machine, run):
    machine.distant = {"fp32"}
    machine.bf16 = True
    with pytest.raises((ModelError, RunError), match="fp32"):
        predict(folder({"x.jpg": 900}, name="new"))


def test_random_weights_are_warned_of_when_they_are_built_and_when_they_are_remembered(folder, machine):
    images = folder(FILES)
    machine.spec = replace(tiny.SPEC, weights="1" * 64)
    extract(images, weights="none")  # the network that the tests pretend warns of nothing
    with pytest.warns(BottleneckWarning, match="random weights") as warned:
        again = extract(images, weights="none")
    assert any("random weights" in str(one.message) for one in warned)
    assert again.computed == 0  # it is remembered, and warned of all the same
