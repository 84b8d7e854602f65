"""Run bottleneck from a checkout without installing it: ``python cli.py extract photos/``."""

from bottleneck.__main__ import main

if __name__ == "__main__":
    main()
