"""What a user may ask of an engine."""

from dataclasses import dataclass

from bottleneck.errors import ModelError
from bottleneck.utils.arguments import Arguments

ENGINES = ("auto", "torch", "openvino")


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Which engine a user asks for.

    Parameters
    ----------
    engine : str
        One of `ENGINES`.
    device : str, optional
        As in ``torch.device``; by default a GPU where there is one.
    batch_size : int, optional
        Images that pass the network at once; by default 8 on a CPU and 128 on a GPU.
    compile : bool
        Whether torch compiles the network first (``torch.compile``), which takes up to some minutes.

    Raises
    ------
    ModelError
        If there is no such engine, or the wishes exclude each other.
    """

    engine: str = "auto"
    device: str | None = None
    batch_size: int | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        check = Arguments(ModelError)
        object.__setattr__(self, "engine", check.text("--engine", self.engine))
        object.__setattr__(self, "device", check.optional(check.text, "--device", self.device))
        object.__setattr__(self, "batch_size", check.optional(check.whole, "--batch-size", self.batch_size, least=1))
        object.__setattr__(self, "compile", check.flag("compile", self.compile))
        if self.engine not in ENGINES:
            raise ModelError(f"expected --engine {', '.join(ENGINES)}, got {self.engine!r}")
        if self.engine == "openvino" and self.device not in (None, "cpu"):
            raise ModelError(f"expected --device cpu, on which the engine openvino runs, got {self.device!r}")
        if self.compile and self.engine == "openvino":
            raise ModelError("--compile is about the engine torch, got --engine openvino")
