"""Writes the regions of a label map as GeoJSON (RFC 7946)."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from fastfcn_jax import polygons
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.files import replacing

DIGITS = 8  # of a degree: a millimetre

ToLonLat = Callable[[np.ndarray], np.ndarray]


def write(
    path: Path, labels: UInt8[np.ndarray, "h w"], info: DatasetInfo, to_lonlat: ToLonLat | None
) -> None:
    """Writes a feature for each region: a polygon with its class, number, colour and area.

    Args:
      to_lonlat: maps pixel coordinates to degrees; None: x to the right and y downwards, in pixels
        from the upper left corner.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number, region in enumerate(polygons.regions(labels, info.num_classes)):
            feature = {
                "type": "Feature",
                "properties": {
                    "class": info.class_names[region.label],
                    "label": region.label,
                    "color": "#{:02x}{:02x}{:02x}".format(*info.palette[region.label]),
                    "pixels": region.area,
                },
                "geometry": {"type": "Polygon", "coordinates": _coordinates(region, to_lonlat)},
            }
            file.write(",\n" * bool(number) + json.dumps(feature))
        file.write("]}\n")


def _coordinates(region: polygons.Region, to_lonlat: ToLonLat | None) -> list:
    rings = []
    for place, points in enumerate(polygons.rings(region)):
        ring = points if to_lonlat is None else to_lonlat(points).round(DIGITS)
        if (_signed_area(ring) > 0) == (place > 0):  # outer rings anticlockwise, holes clockwise
            ring = ring[::-1]
        rings.append([*ring.tolist(), ring[0].tolist()])
    return rings


def _signed_area(ring: np.ndarray) -> float:
    """Positive if the points run anticlockwise with y upwards."""
    x, y = (ring - ring[0]).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
