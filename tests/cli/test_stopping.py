"""Signals: exit codes 130 and 143, a sentence, no traceback; whenever they come."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import EXTRACT
from tests.variants import each

HERE = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
LISTENS = "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # where these tests are in the background, too
SAYS = "Stopped. Committed work is kept; run the same command again to continue.\n"


def in_the_command(body: str, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run `bottleneck cache info` with another body in a process of its own."""
    code = (
        "import os, signal, sys\n"
        f"{LISTENS}"
        "from bottleneck.cache import maintain\n"
        "from bottleneck.cli import main\n"
        "def send(number=signal.SIGINT): os.kill(os.getpid(), number)\n"
        f"def body(*_):\n    {body}\n    return []\n"
        "maintain.info = body\n"
        f"sys.argv[1:] = ['cache', 'info', *{words!r}]\n"
        "main.main()"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**HERE, **settings})


@each(
    "body",
    [
        "send()",
        "exec('try: send()\\nexcept KeyboardInterrupt: raise ImportError')",  # as imports of extensions do
        "raise KeyboardInterrupt",
        "import time, weakref; x = set(); r = weakref.ref(x, lambda _: send()); del x; time.sleep(5)",
        "open('interrupted.py', 'w').write('import os; os.kill(os.getpid(), 2)'); import interrupted",
    ],
)
def test_ctrl_c_exits_with_130_and_a_message(body):
    done = in_the_command(body)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", SAYS)


@each("body", ["send()", "__import__('interrupted')"])
def test_with_json_it_is_an_object(body):
    Path("interrupted.py").write_text("import os; os.kill(os.getpid(), 2)")
    done = in_the_command(body, "--json")
    assert done.returncode == 130
    assert done.stdout == f'{{"error": {{"type": "interrupted", "message": "{SAYS.strip()}"}}}}\n'


def test_sigterm_exits_with_143(tmp_path):
    done = in_the_command("send(signal.SIGTERM)")
    assert (done.returncode, done.stderr) == (143, SAYS)


def test_a_second_signal_at_once_is_the_same_one_and_later_it_ends_everything(tmp_path):
    at_once = "exec('try: send()\\nexcept KeyboardInterrupt: send(); raise')"
    assert in_the_command(at_once).returncode == 130
    patiently = "exec('try: send()\\nexcept KeyboardInterrupt: import time; time.sleep(1.1); send(); print(1)')"
    done = in_the_command(patiently)
    assert (done.returncode, done.stdout) == (130, "")


def test_an_ignored_sigint_stays_ignored(tmp_path):
    command = f'trap "" INT; exec "{sys.executable}" -c "$0"'
    code = (
        "import os, signal, sys; from bottleneck.cli import main, stopping; stopping.listen(lambda: 1 / 0)\n"
        "os.kill(os.getpid(), signal.SIGINT); print('goes on')"
    )
    done = subprocess.run(["bash", "-c", command, code], capture_output=True, text=True, env=HERE)
    assert (done.returncode, done.stdout) == (0, "goes on\n")


@pytest.mark.slow
def test_from_the_first_import_to_the_last_line_there_is_never_a_traceback(folder):
    images = folder({f"{name}/{place}.jpg": 100 * ord(name) + place for name in "ab" for place in range(20)})
    command = [sys.executable, "-m", "bottleneck", *EXTRACT, str(images)]
    for number, moments in ((signal.SIGINT, (0.15, 0.6, 1.5)), (signal.SIGTERM, (0.3, 1.0, 2.0))):
        for moment in moments:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=HERE)
            time.sleep(moment)
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
            assert process.returncode in (128 + number, -number, 0), (number, moment, err)  # or before Python began
            assert "Traceback" not in err, (number, moment, err)
