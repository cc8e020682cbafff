"""Says how images will be tested and what it costs, and plans their padded sizes."""

from fastfcn_jax.data.pixel_type import PixelType
from fastfcn_jax.errors import UserError
from fastfcn_jax.predict import geotiff, inputs, overlap
from fastfcn_jax.predict.inputs import Photograph, Photographs
from fastfcn_jax.predict.settings import Settings

PLANNED = 1000  # so many headers are read ahead
PLANNED_REMOTE = 32  # photographs at addresses, which are read whole for their headers


def announce(model, photographs: Photographs, settings: Settings) -> list[tuple[int, int]]:
    """Plans for a sample of the photographs and prints the plan; an exported file needs none.

    Standard input, which can be read only once, is not announced.

    Returns:
      The sizes with which another process makes the same plan.
    """
    if not hasattr(model.predictor, "announce"):
        return []
    first = next(iter(photographs), None)
    at_most = PLANNED if first is None or first.path else PLANNED_REMOTE
    chosen = inputs.sample((p for p in photographs if not p.is_stdin), at_most)
    sizes = overlap.in_threads(lambda p: _size(p, settings, model.pixel), chosen, weigh=lambda _: 0)
    known = [size for size in sizes if size is not None]
    if settings.tile:
        from fastfcn_jax.inference.tiles import tile_sizes

        known = [size for whole in known for size in tile_sizes(whole, settings.tile)]
    if not known:
        return []
    print(model.predictor.announce(known, "tile" if settings.tile else "image"))
    if len(photographs) > at_most:
        print(f"(of {at_most} among {len(photographs)} images; others are planned as they come)")
    return known


def _size(photograph: Photograph, settings: Settings, pixel: PixelType) -> tuple[int, int] | None:
    """(height, width) of a photograph; None if it cannot be read, which decoding will report."""
    try:
        if settings.tile and photograph.path and settings.is_georeferenced(photograph.path):
            with geotiff.opened(photograph.path) as source:  # it may be larger than the memory
                return source.height, source.width
        return photograph.size(pixel)
    except UserError:
        return None
