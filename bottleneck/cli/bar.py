"""The progress bar: one line per stage, with images/s and the remaining time."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_WIDTH = 40  # columns of the bar itself, if there is room
_OTHER = 48  # columns of the other parts of the line


class Bar:
    """Draws the progress of stages on stderr.

    Parameters
    ----------
    names : dict of str to str
        The displayed name of each stage.
    width : int
        Width of the terminal in columns.
    """

    def __init__(self, names: dict[str, str], width: int) -> None:
        self._names = names
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description:<11}"),
            BarColumn(bar_width=max(4, min(_WIDTH, width - _OTHER))),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True, width=width),
            transient=True,
            redirect_stdout=False,  # only stderr has the bar
        )

    def update(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` items are done; hide a stage that is complete."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(self._names.get(stage, stage), total=total)
        self._progress.update(self._tasks[stage], completed=done, total=total, visible=done < total)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Hide the bar, and draw it again below what is printed meanwhile."""
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()

    def close(self) -> None:
        """Remove the bar, and show the cursor again."""
        self._progress.stop()

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Rate(ProgressColumn):
    """Items per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.0f}/s" if speed else "", style="cyan")
