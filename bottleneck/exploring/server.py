"""Serve the explorer on this machine alone until Ctrl-C."""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottleneck.auditing.subject import Subject, subject_of
from bottleneck.errors import BottleneckError, OutputError, RunError
from bottleneck.exploring.child_process import in_child
from bottleneck.exploring.projection import INSTALL
from bottleneck.exploring.session import ExplorerSession, name_of
from bottleneck.images.columns import Columns
from bottleneck.images.scan import Progress
from bottleneck.prediction.predict import run_for
from bottleneck.runs.run import Run
from bottleneck.utils.names import RUN
from bottleneck.utils.paths import expanded

if TYPE_CHECKING:
    from bottleneck.images.dataset import Dataset

PORT = 8766  # and the next free one
_NEXT = 50  # ports that are tried
_HOST = "127.0.0.1"
_WAITING = 128  # connections that are not accepted yet
_PATIENCE = 2  # seconds for requests that are answered while the server stops


def open_session(
    images: "str | os.PathLike[str] | Dataset | None" = None,
    *,
    run: "str | os.PathLike[str] | Run | None" = None,
    model: str | None = None,
    head: str | None = None,
    cache: str | os.PathLike[str] = "cache",
    runs: str | os.PathLike[str] = "runs",
    path_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    labels: str | os.PathLike[str] | None = None,
    no_labels: bool = False,
    tsne: bool = True,
    run_child: Callable[..., Any] = in_child,
    progress: Progress | None = None,
) -> ExplorerSession:
    """Find the images and the features to explore, and open the table of edited labels.

    Parameters
    ----------
    images : path or Dataset, optional
        Images whose features are cached; or a run, as ``run:NAME`` or as its folder. By default the images of `run`, or
        those that were last extracted in the current folder.
    run : path or Run, optional
        The run whose head predicts. By default a head is trained on the labels.
    model, head, path_column, label_column, split_column, group_column
        As for `bottleneck.audit`.
    cache, runs : path
    labels : path, optional
        The table of edited labels, by default ``labels-NAME.csv`` in the current folder with the name of the images.
    no_labels : bool
        Whether labels of folders or of the table are ignored.
    tsne : bool
        Whether there is a map by t-SNE, if openTSNE is installed.
    run_child : callable
        `bottleneck.exploring.child_process.in_child`, or one in its place.
    progress : callable, optional

    Raises
    ------
    ImagesError, CacheError, RunError
        See `bottleneck.audit`.
    OutputError
        If the table of labels is not one of these images, or another explorer uses it.
    """
    if run is None and _names_run(images):
        images, run = None, str(images)
    chosen = None if run is None else run_for(run, runs).run
    subject = subject_of(
        images,
        run=chosen,
        model=model,
        head=head,
        cache=cache,
        runs=runs,
        labels=False if no_labels else None,
        columns=Columns(path_column, label_column, split_column, group_column),
        progress=progress,
    )
    if chosen is not None and not _is_of(chosen, subject):
        raise RunError(
            f"expected features that the head of {chosen.name} can predict, found {subject.cached.store.short_name}: "
            f"leave out --model, or --run"
        )
    place = labels_path(subject) if labels is None else expanded(labels)
    if place.suffix.lower() != ".csv":
        raise OutputError(f"expected a table FILE.csv for the labels, got {place}")
    return ExplorerSession(
        subject,
        run=chosen,
        labels=place,
        cache=expanded(cache).absolute(),  # work in the background may outlast the current folder
        runs=expanded(runs).absolute(),
        tsne=tsne,
        run_child=run_child,
    )


def labels_path(subject: Subject) -> Path:
    """Return the default name of the table of edited labels, in the current folder."""
    name = name_of(subject.images.source)
    return Path(f"labels-{''.join(char if char.isalnum() or char in '-_.' else '-' for char in name)[:60]}.csv")


def _names_run(images: object) -> bool:
    """Return whether IMAGES is a run: ``run:NAME``, or a folder with a card."""
    if not isinstance(images, (str, os.PathLike)):
        return False
    text = os.fspath(images)
    return isinstance(text, str) and (text.startswith(RUN) or os.path.isfile(os.path.join(text, "card.json")))


def _is_of(run: Run, subject: Subject) -> bool:
    """Return whether the head of a run can predict the features of these images."""
    return bool(run.card["fingerprint"] == subject.cached.store.spec.fingerprint)


def bound_socket(port: int | None) -> socket.socket:
    """Return a listening socket of the loopback interface; None takes the first free port from 8766 on, 0 any free one.

    Raises
    ------
    BottleneckError
        If the port is in use.
    """
    tried = range(PORT, PORT + _NEXT) if port is None else (port,)
    for one in tried:
        found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if os.name == "posix":  # otherwise a port that was just closed stays in use for a minute
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((_HOST, one))
            found.listen(_WAITING)  # until then, another process may bind the port too
        except OSError as error:
            found.close()
            problem = error
            continue
        return found
    named = f"ports {PORT} to {PORT + _NEXT - 1}" if port is None else f"port {port}"
    raise BottleneckError(f"cannot listen on {named}: {problem.strerror or problem}. Name another one with --port")


def check_installed() -> None:
    """Check that the libraries of the server are installed.

    Raises
    ------
    BottleneckError
        If one is missing.
    """
    if not (find_spec("starlette") and find_spec("uvicorn")):
        raise BottleneckError(f"expected starlette and uvicorn, which serve the page: {INSTALL}")


def serve(session: ExplorerSession, started: Callable[[str], None], *, port: int | None = None) -> None:
    """Serve a session on the loopback interface until Ctrl-C; it is closed in the end.

    Parameters
    ----------
    session : ExplorerSession
    started : callable
        Called with the address that has the token, once the server listens.
    port : int, optional
        See `bound_socket`.

    Raises
    ------
    BottleneckError
        If libraries are missing, or the port is in use.
    """
    check_installed()
    import uvicorn

    from bottleneck.exploring.app import create_app
    from bottleneck.exploring.security import new_token

    try:
        listening = bound_socket(port)
        with listening:
            number, token = listening.getsockname()[1], new_token()
            config = uvicorn.Config(
                create_app(session, token, number),
                log_level="error",
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_graceful_shutdown=_PATIENCE,
                lifespan="off",
                ws="none",
                proxy_headers=False,
            )
            session.start()
            started(f"http://{_HOST}:{number}/?token={token}")
            with suppress(KeyboardInterrupt):
                uvicorn.Server(config).run(sockets=[listening])
    finally:
        session.close()
