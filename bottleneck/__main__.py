"""``python -m bottleneck`` is the command ``bottleneck``."""

import os
import sys


def main() -> None:
    """Run the command line. Ctrl-C while it is still being imported ends it as later."""
    try:
        from bottleneck.cli.main import main as run
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr, flush=True)
        os._exit(130)  # after an interrupt in `exec`, of which dataclasses are made, sys.exit ends by the signal
    run()


if __name__ == "__main__":
    main()
