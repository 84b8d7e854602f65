from bottleneck.diagnostics.diagnosis import OK, WRONG
from bottleneck.diagnostics.engines import Engines
from bottleneck.engines.speed import EngineSpeed


def speed(seconds):
    return EngineSpeed("torch 2.6, cpu", "fp32", 1234.5)


def broken(seconds):
    raise RuntimeError("illegal instruction")


def look(engines):
    return [found for probe in engines.probes() for found in probe.symptoms()]


def test_each_engine_has_a_line_with_its_speed_and_precision():
    (found,) = look(Engines(has_openvino=False, torch=speed))

    assert (found.name, found.value) == ("torch engine", "1,234 images/s in fp32 (torch 2.6, cpu)")


def test_a_broken_engine_does_not_hide_the_other():
    torch, openvino = look(Engines(has_openvino=True, torch=speed, openvino=broken))

    assert (torch.state, openvino.state) == (OK, WRONG)
    assert "illegal instruction" in openvino.value
    assert "--engine torch" in openvino.remedy
