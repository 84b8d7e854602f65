"""``python -m bottleneck`` is the command ``bottleneck``."""

from bottleneck.cli.main import main

if __name__ == "__main__":
    main()
