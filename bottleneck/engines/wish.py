"""What a user may ask of an engine."""

from dataclasses import dataclass

from bottleneck.errors import ModelError

ENGINES = ("auto", "torch", "openvino")


@dataclass(frozen=True, kw_only=True)
class Wish:
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
        if self.engine not in ENGINES:
            raise ModelError(f"expected --engine {', '.join(ENGINES)}, got {self.engine!r}")
        if self.engine == "openvino" and self.device not in (None, "cpu"):
            raise ModelError(f"expected --device cpu, on which the engine openvino runs, got {self.device!r}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ModelError(f"expected at least one image at once, got a batch size of {self.batch_size}")
        if self.compile and self.engine == "openvino":
            raise ModelError("--compile is about the engine torch, got --engine openvino")
