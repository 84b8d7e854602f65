"""``python -m bottleneck`` is the command ``bottleneck``."""

import sys


def main() -> None:
    """Run the command line. Ctrl-C while it is still being imported ends it as later."""
    try:
        from bottleneck.cli.main import main as run
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
