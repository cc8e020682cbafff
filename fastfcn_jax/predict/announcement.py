"""Says how images will be tested and what it costs, and plans their padded sizes."""

from fastfcn_jax.data.pixel_type import PixelType
from fastfcn_jax.errors import UserError
from fastfcn_jax.predict import geotiff, inputs, overlap
from fastfcn_jax.predict.inputs import Photograph, Photographs
from fastfcn_jax.predict.settings import Settings

PLANNED = 1000  # so many headers are read ahead


def announce(model, photographs: Photographs, settings: Settings) -> None:
    """Plans for a sample of the photographs and prints the plan; an exported file has one way.

    Standard input, which can be read only once, is not announced.
    """
    if not hasattr(model.predictor, "announce"):
        return
    chosen = inputs.sample((p for p in photographs if p.path is not None), PLANNED)
    sizes = overlap.in_threads(lambda p: _size(p, settings, model.pixel), chosen, weigh=lambda _: 0)
    known = [size for size in sizes if size is not None]
    if settings.tile:
        from fastfcn_jax.inference.tiles import tile_sizes

        known = [size for whole in known for size in tile_sizes(whole, settings.tile)]
    if not known:
        return
    print(model.predictor.announce(known, "tile" if settings.tile else "image"))
    if len(photographs) > PLANNED:
        print(f"(of {PLANNED} among {len(photographs)} images; others are planned as they come)")


def _size(photograph: Photograph, settings: Settings, pixel: PixelType) -> tuple[int, int] | None:
    """(height, width) of a photograph; None if it cannot be read, which decoding will report."""
    try:
        if settings.tile and photograph.path and settings.is_georeferenced(photograph.path):
            with geotiff.opened(photograph.path) as source:  # it may be larger than the memory
                return source.height, source.width
        return photograph.size(pixel)
    except UserError:
        return None
