"""Training transforms of mmsegmentation itself, and pictures to try them on."""

import functools

import numpy as np
import oracle

from fastfcn_jax.data.datasets import street_scene


@functools.cache
def scene(seed, size=(90, 160)):
    return street_scene.Scene(np.random.default_rng(seed), size).draw()


def mmseg_pipeline(*steps):
    from mmseg.registry import TRANSFORMS

    oracle.import_mmseg()
    built = [TRANSFORMS.build(dict(step)) for step in steps]

    def run(image, label):
        results = {
            "img": image[..., ::-1].copy(),
            "gt_seg_map": label.copy(),
            "seg_fields": ["gt_seg_map"],
            "img_shape": image.shape[:2],
            "ori_shape": image.shape[:2],
        }
        for transform in built:
            results = transform(results)
        return results["img"][..., ::-1], results["gt_seg_map"]

    return run
