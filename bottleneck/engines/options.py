"""Options of an engine."""

from dataclasses import dataclass

from bottleneck.errors import ModelError
from bottleneck.utils.arguments import Arguments

ENGINES = ("auto", "torch", "openvino")


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """The engine that a user requests.

    Parameters
    ----------
    engine : str
        One of `ENGINES`.
    device : str, optional
        As in ``torch.device``; by default a GPU if there is one.
    batch_size : int, optional
        Images per batch; by default 8 on a CPU and 128 on a GPU.
    compile : bool
        Whether to compile the network first (``torch.compile``), which can take minutes.

    Raises
    ------
    ModelError
        If there is no such engine, or the options exclude each other.
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
            raise ModelError(f"expected --device cpu for the engine openvino, got {self.device!r}")
        if self.compile and self.engine == "openvino":
            raise ModelError("expected --engine torch with --compile, got --engine openvino")
