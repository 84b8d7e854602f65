"""Charts as SVG text, from numbers: no library, no network, no script."""
