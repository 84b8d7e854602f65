"""What a fine-tuning is about to do, and who is told of that and of what comes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bottleneck.finetuning import activations as views
from bottleneck.finetuning.boundary import Boundary
from bottleneck.finetuning.context import Setting
from bottleneck.finetuning.folds import Fold
from bottleneck.finetuning.freeze import Plan
from bottleneck.finetuning.history import Epoch
from bottleneck.finetuning.initial import InitialState
from bottleneck.finetuning.partition import Parts
from bottleneck.finetuning.recipe import Recipe
from bottleneck.finetuning.verify import Start
from bottleneck.utils.text import one_line


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What is about to be done.

    Parameters
    ----------
    path : Path
        The run's folder.
    resumed : int or None
        The last epoch that was done before.
    origin : InitialState
    recipe : Recipe
    plan : Plan
    parts : Parts
    boundary : Boundary or None
        Where activations are cached; None where the whole network runs.
    views : int
        How many of each training image.
    bytes, missing : int
        Of activations: all, and those that have yet to be computed.
    wide : bool
        Whether they are stored as float32, as float16 loses a part of them.
    precision : str
        Of training.
    folds : int
        Of the training images, on which fine-tuning is compared with its head; 0 for no such comparison.
    """

    path: Path
    resumed: int | None
    origin: InitialState
    recipe: Recipe
    plan: Plan
    parts: Parts
    boundary: Boundary | None
    views: int
    bytes: int
    missing: int
    wide: bool
    precision: str
    folds: int

    def __repr__(self) -> str:
        return one_line(self, str(self.path), repr(self.recipe), f"{self.views} views", self.precision)


Watch = Callable[["Outline | Start | Epoch | Fold"], None]


def outline(setting: Setting, path: Path, resumed: int | None, wanted: list[views.Wanted]) -> Outline:
    """Return what a fine-tuning is about to do; `resumed` is the last epoch that was done before."""
    boundary, recipe = setting.boundary, setting.recipe
    width = setting.measured.width if setting.measured else 0
    return Outline(
        path=path,
        resumed=resumed,
        origin=setting.origin,
        recipe=recipe,
        plan=setting.plan,
        parts=setting.parts,
        boundary=boundary,
        views=len(setting.views()),
        bytes=views.all_bytes(wanted, boundary, width) if boundary else 0,
        missing=views.missing_bytes(wanted, boundary, width) if boundary else 0,
        wide=bool(setting.measured and setting.measured.wide),
        precision=setting.precision,
        folds=setting.settings.folds or 0,
    )
