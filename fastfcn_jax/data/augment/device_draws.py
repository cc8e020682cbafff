"""Random numbers of the flip and the distortion that the training step makes on the device."""

from dataclasses import dataclass

import numpy as np

from fastfcn_jax.data.augment import mmseg
from fastfcn_jax.data.augment.mmseg import Draws


@dataclass(frozen=True)
class DeviceDraws:
    """Draws for a sample what mmseg's flip and distortion would draw, in their order.

    flip: probability of a horizontal flip; None: no such step.
    photometric: whether there is a photometric distortion.
    """

    flip: float | None
    photometric: bool

    def __call__(self, rng: Draws) -> dict[str, np.ndarray]:
        """What joins the sample: `flip`, bool, and `distortion`, float32 (5,).

        The distortion is brightness, contrast before, saturation, hue, contrast after, as in
        `mmseg.Distortion`; NaN: that change is not made.
        """
        drawn = {}
        if self.flip is not None:
            drawn["flip"] = np.array(rng.random() < self.flip)
        if self.photometric:
            d = mmseg.draw_distortion(rng)
            contrasts = (d.contrast, None) if d.contrast_first else (None, d.contrast)
            values = (d.brightness, contrasts[0], d.saturation, d.hue, contrasts[1])
            drawn["distortion"] = np.array(values, np.float32)  # None becomes NaN
        return drawn

    def nothing(self, count: int) -> dict[str, np.ndarray]:
        """What joins a batch of `count` samples that stay as they are."""
        made = {}
        if self.flip is not None:
            made["flip"] = np.zeros(count, bool)
        if self.photometric:
            made["distortion"] = np.full((count, 5), np.nan, np.float32)
        return made
