"""What an audit, familiarity, prediction sets and suggestions find, against alternatives; one section for each claim.

python benchmarks/bench_audit.py --work DIR [--images ANTS_AND_BEES] [--only SECTION,...] [--quick]

Sets are the ants and bees of PyTorch's transfer-learning tutorial, the digits of the demo, and the solar cells of the
package elpv-dataset; features are those of EfficientNet-Lite0 unless a section says otherwise. Everything is seeded.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import audit_conformal
import audit_copies
import audit_labels
import audit_next
import audit_size
import audit_unknowns

Section = Callable[..., Iterator[str]]

SECTIONS: dict[str, Section] = {
    "unknowns": audit_unknowns.section,
    "labels": audit_labels.section,
    "copies": audit_copies.section,
    "conformal": audit_conformal.section,
    "next": audit_next.section,
    "size": audit_size.section,
}


def main() -> None:
    """Print the tables of the sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of images, caches and features")
    parser.add_argument("--images", type=Path, help="the ants and bees of PyTorch's transfer-learning tutorial")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"some of {', '.join(SECTIONS)}")
    parser.add_argument("--quick", action="store_true", help="fewer seeds and smaller sizes")
    given = parser.parse_args()
    names = given.only.split(",")
    if unknown := set(names) - set(SECTIONS):
        parser.error(f"expected some of {', '.join(SECTIONS)}, got {', '.join(sorted(unknown))}")
    given.work.mkdir(parents=True, exist_ok=True)
    for name in names:
        started = time.perf_counter()
        print(f"\n## {name}\n", flush=True)
        for line in SECTIONS[name](given.work, given.images, quick=given.quick):
            print(line, flush=True)
        print(f"\n{name}: {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
