"""What a fuzzer needs to know of a kind of file: how it looks, how it is mutated, and what reads it."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import ClassVar

from tests.fuzz.mutate import Mutated, Mutator, mutated


class Wrong(Exception):
    """A reader took a file that it must not take, or gave of it what it must not give."""


@dataclass(frozen=True)
class Case:
    """One mutated file.

    Parameters
    ----------
    seed : str
        The name of the file that was mutated.
    data : bytes
    how : tuple of str
        The mutations.
    """

    seed: str
    data: bytes
    how: tuple[str, ...]


class Target(ABC):
    """A kind of file.

    Parameters
    ----------
    folder : Path
        Empty, for the files that the readers need.

    Attributes
    ----------
    name : str
    cases : int
        How many the long form reads.
    short : int
        How many the tests read.
    """

    name: ClassVar[str]
    cases: ClassVar[int] = 50_000
    short: ClassVar[int]

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    @abstractmethod
    def seeds(self) -> dict[str, bytes]:
        """Sound files, by name. Equal programs make equal ones."""

    @abstractmethod
    def special(self, seed: str, data: bytes) -> Sequence[Mutator]:
        """Return the mutations that know the format of a file."""

    @abstractmethod
    def read(self, case: Case) -> str:
        """Return ``accepted``, or the name of the error with which the product refused the file.

        Raises
        ------
        Wrong
            If it was accepted, and may not be.
        Exception
            Whatever escapes from the product.
        """

    def case(self, number: int, seed: int) -> Case:
        """Return one of the cases of a seed, always the same."""
        random = Random(zlib.crc32(f"{self.name} {seed} {number}".encode()))
        names = list(self.seeds)
        name = names[number % len(names)]
        found: Mutated = mutated(
            random, self.seeds[name], list(self.seeds.values()), self.special(name, self.seeds[name])
        )
        return Case(name, found.data, found.how)
