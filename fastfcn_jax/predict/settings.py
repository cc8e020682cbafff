"""What one call of `predict` writes: its choices, and the files they make of a photograph."""

import dataclasses
from pathlib import Path
from typing import Any

from fastfcn_jax.errors import UserError
from fastfcn_jax.predict import geotiff

VALUES = ("classes", "stored")
POLYGONS = ("geojson", "coco")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
OVERLAY, CONFIDENCE = "_overlay", "_confidence"


@dataclasses.dataclass(frozen=True)
class Settings:
    """The choices of a call.

    overlay: write the photograph and its classes blended.
    legend: list the classes below each overlay.
    confidence: write the probability of each pixel's class.
    save_logits: write the scores of all classes.
    values: "classes": label maps hold class numbers; "stored": what the data set's labels hold.
    polygons: outlines of the regions as well, "geojson" or "coco".
    georeference: a GeoTIFF gives a GeoTIFF; False: it is a picture like others.
    keep_suffix: results are called `<name.suffix>.png`, not `<stem>.png`.
    tile: predict at the image's own resolution in overlapping tiles of this side; 0: whole.

    Raises:
      UserError: choices that exclude each other.
    """

    overlay: bool = True
    legend: bool = False
    confidence: bool = False
    save_logits: bool = False
    values: str = "classes"
    polygons: str | None = None
    georeference: bool = True
    keep_suffix: bool = False
    tile: int = 0

    def __post_init__(self):
        for flag, value, known in (
            ("--values", self.values, VALUES),
            ("--polygons", self.polygons, (None, *POLYGONS)),
        ):
            if value not in known:
                listed = " or ".join(filter(None, known))
                raise UserError(f"{flag} {value}: must be {listed}.")
        if self.legend and not self.overlay:
            raise UserError("--legend stands below the overlay; leave it or --no-overlay out.")
        if self.tile and (self.save_logits or self.confidence):
            raise UserError("--tile writes labels and overlays only; leave the other flag out.")

    def stem(self, name: str) -> str:
        """The name of a file's results, without their ending."""
        return name if self.keep_suffix else Path(name).stem

    @property
    def marks(self) -> tuple[str, ...]:
        """What stands between a stem and the suffix of its pictures, besides nothing."""
        return (OVERLAY,) * self.overlay + (CONFIDENCE,) * self.confidence

    def is_georeferenced(self, path: Path | None) -> bool:
        """Whether the results get the georeference of this file."""
        return self.georeference and path is not None and geotiff.has_georeference(path)

    def label_ending(self, path: Path | None) -> str:
        return ".tif" if self.is_georeferenced(path) else ".png"

    def endings(self, path: Path | None) -> tuple[str, ...]:
        """The endings of all results of a photograph, the label map's first.

        A video has one file, its overlays; frames have names of their own.
        """
        if path is not None and path.suffix.lower() in VIDEOS:
            return (f"{OVERLAY}.mp4",) * self.overlay
        return (
            self.label_ending(path),
            *(f"{mark}.png" for mark in self.marks),
            *((".npy",) if self.save_logits else ()),
            *((".geojson",) if self.polygons == "geojson" else ()),
        )

    def described(self) -> dict[str, Any]:
        """The choices by name, as in the manifest."""
        return dataclasses.asdict(self)
