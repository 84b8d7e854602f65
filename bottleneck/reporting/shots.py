"""Pictures with their captions, as the templates show them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from bottleneck.auditing.findings import Finding
from bottleneck.reporting.album import Album, SmallPicture
from bottleneck.reporting.held_out import HeldOutImage
from bottleneck.reporting.located import LocatedImages
from bottleneck.reporting.similar import SimilarTraining


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A picture with its caption.

    Parameters
    ----------
    name : str
    picture : SmallPicture or None
    missing : str
        Why there is no picture; empty if there was only no place for it.
    label : str or None
    predicted : str or None
        None if it is not about a prediction.
    top : tuple of (str, float)
        The most probable classes.
    note : str
    cosine : float or None
        Its similarity to the picture that it belongs to.
    similar : tuple of Shot
    """

    name: str
    picture: SmallPicture | None
    missing: str = ""
    label: str | None = None
    predicted: str | None = None
    top: tuple[tuple[str, float], ...] = ()
    note: str = ""
    cosine: float | None = None
    similar: "tuple[Shot, ...]" = ()

    @property
    def description(self) -> str:
        """The picture in words, for those who do not see it."""
        said = [self.name, f"labelled {self.label}" if self.label is not None else ""]
        if self.predicted is not None:
            said.append(f"predicted {self.predicted}")
        return ", ".join(filter(None, said))


@dataclass(frozen=True)
class ShotMaker:
    """Makes captions of images, and takes their pictures from an album that is developed.

    Parameters
    ----------
    located : LocatedImages
    album : Album
    """

    located: LocatedImages
    album: Album

    def of_image(self, digest: str, **caption: Any) -> Shot:
        """Return the shot of an image, with some fields of its caption; its label is known by default."""
        found = self.album.picture(digest)
        shot = Shot(
            name=self.located.name(digest),
            picture=found if isinstance(found, SmallPicture) else None,
            missing=found if isinstance(found, str) else "",
            label=self.located.label(digest),
        )
        return replace(shot, **caption)

    def of_prediction(self, one: HeldOutImage, similar: Iterable[SimilarTraining] = (), note: str = "") -> Shot:
        """Return the shot of a held-out image."""
        return self.of_image(
            one.digest,
            label=one.label,
            predicted=one.predicted,
            top=one.top,
            note=note,
            similar=tuple(self.of_image(other.digest, cosine=other.cosine) for other in similar),
        )

    def of_finding(self, found: Finding) -> Shot:
        """Return the shot of a finding with its evidence."""
        suggested = f"Perhaps “{found.suggested}”: " if found.suggested else ""
        return self.of_image(
            found.digest, label=found.label, note=suggested + found.reason, similar=tuple(self._evidence(found))
        )

    def _evidence(self, found: Finding) -> Iterable[Shot]:
        for other in found.similar:
            digest = self.located.digest(other.path)
            if digest is None:
                yield Shot(name=self.located.shown(other.path), picture=None, label=other.label, cosine=other.cosine)
            else:
                yield self.of_image(digest, label=other.label, cosine=other.cosine)
