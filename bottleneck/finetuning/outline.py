"""The outline of a fine-tuning, which is reported before it starts, and the callback that receives reports."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bottleneck.finetuning.activations import all_bytes, missing_bytes
from bottleneck.finetuning.context import FineTuningContext
from bottleneck.finetuning.folds import Fold
from bottleneck.finetuning.history import Epoch
from bottleneck.finetuning.verify import Start
from bottleneck.utils.text import one_line


@dataclass(frozen=True, kw_only=True)
class Outline:
    """The outline of a fine-tuning.

    Parameters
    ----------
    path : Path
        The run's folder.
    resumed : int or None
        The last epoch of the checkpoint from which it continues.
    context : FineTuningContext
    bytes, missing : int
        The size of all activations, and of those that are not cached yet.
    """

    path: Path
    resumed: int | None
    context: FineTuningContext
    bytes: int
    missing: int

    @classmethod
    def of(cls, context: FineTuningContext, path: Path, resumed: int | None) -> "Outline":
        """Return the outline of a fine-tuning."""
        boundary, required = context.boundary, context.required_activations()
        if boundary is None or context.stats is None:
            return cls(path=path, resumed=resumed, context=context, bytes=0, missing=0)
        return cls(
            path=path,
            resumed=resumed,
            context=context,
            bytes=all_bytes(required, boundary, context.stats.width),
            missing=missing_bytes(required, boundary, context.stats.width),
        )

    @property
    def views(self) -> int:
        """How many views of each training image are cached."""
        return len(self.context.view_stores())

    def __repr__(self) -> str:
        context = self.context
        return one_line(self, str(self.path), repr(context.recipe), f"{self.views} views", context.precision)


Watch = Callable[["Outline | Start | Epoch | Fold"], None]
