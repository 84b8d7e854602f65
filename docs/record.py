"""Record the picture of the README: the real output of three commands on a folder of images, as in a terminal.

``python docs/record.py FOLDER`` copies FOLDER, works on the copy, and writes docs/assets/session.svg. FOLDER has class
folders below `train` and `val`, as the ants and bees of PyTorch's tutorial.
"""

import os
import re
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "assets" / "session.svg"
COLUMNS = 112
SHOWN = 5  # predictions
IMAGES = "hymenoptera"
# Use only fonts of the reader's machine, so that the picture downloads nothing.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace(
    "Fira Code, monospace", "ui-monospace, Menlo, Consolas, monospace"
)


def session(folder: Path) -> list[tuple[str, list[str]]]:
    """Return the commands and the lines that each prints, in an empty folder with a copy of the images."""
    with TemporaryDirectory() as home:
        shutil.copytree(folder, Path(home) / IMAGES)
        new = Path(home) / "new-photos"
        new.mkdir()
        photos = sorted((Path(home) / IMAGES / "val").rglob("*.jpg"))
        for number, photo in enumerate(photos[:: len(photos) // SHOWN][:SHOWN], 1):
            shutil.copy(photo, new / f"{number}.jpg")
        return [
            (f"bottleneck extract {IMAGES}/", run(home, "extract", f"{IMAGES}/")),
            ("bottleneck fit", run(home, "fit")),
            ("bottleneck predict new-photos/", run(home, "predict", "new-photos/")),
        ]


def run(home: str, *arguments: str) -> list[str]:
    """Return the lines that a command prints, on stderr and stdout, without the name of the temporary folder."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), *arguments],
        cwd=home,
        env=os.environ | {"COLUMNS": str(COLUMNS - 2)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
        text=True,
    )
    return done.stdout.replace(f"{home}/", "").splitlines()


def picture(commands: list[tuple[str, list[str]]]) -> str:
    """Return the commands and their output as SVG."""
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor")
    for command, lines in commands:
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
        for line in lines:
            console.print(Text(line))
        console.print()
    return console.export_svg(title="bottleneck", theme=MONOKAI, code_format=FORMAT, unique_id="session")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/record.py FOLDER")
    PICTURE.parent.mkdir(exist_ok=True)
    text = picture(session(Path(sys.argv[1])))
    PICTURE.write_text("".join(f"{line.rstrip()}\n" for line in text.splitlines()), encoding="utf-8")
