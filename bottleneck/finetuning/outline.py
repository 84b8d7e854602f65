"""The outline of a fine-tuning, which is reported before it starts, and the callback that receives reports."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bottleneck.finetuning.activations import all_bytes, missing_bytes
from bottleneck.finetuning.boundary import Boundary
from bottleneck.finetuning.context import FineTuningContext
from bottleneck.finetuning.folds import Fold
from bottleneck.finetuning.history import Epoch
from bottleneck.finetuning.recipe import Recipe
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
    def recipe(self) -> Recipe:
        """The options of training."""
        return self.context.recipe

    @property
    def precision(self) -> str:
        """The precision of training."""
        return self.context.precision

    @property
    def folds(self) -> int:
        """The number of folds in which fine-tuning is compared with its head; 0 if it is not."""
        return self.context.config.folds or 0

    @property
    def boundary(self) -> Boundary | None:
        """Where activations are cached; None if the whole network runs."""
        return self.context.boundary

    @property
    def wide(self) -> bool:
        """Whether activations are stored as float32, because float16 loses information."""
        return bool(self.context.stats and self.context.stats.wide)

    @property
    def views(self) -> int:
        """Number of cached views of each training image."""
        return len(self.context.view_stores())

    def __repr__(self) -> str:
        context = self.context
        return one_line(self, str(self.path), repr(context.recipe), f"{self.views} views", context.precision)


Watch = Callable[["Outline | Start | Epoch | Fold"], None]
