"""mmsegmentation's loaders and converters of data sets, as the reference for ours."""

import importlib.util
from pathlib import Path

import numpy as np
import oracle


def mmseg_samples(kind, root, images, labels, **arguments):
    """{file name: (RGB image, label)} as mmsegmentation's loader of a data set gives them."""
    oracle.import_mmseg()
    import mmseg.datasets

    pipeline = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]
    source = getattr(mmseg.datasets, kind)(
        data_root=str(root),
        data_prefix={"img_path": images, "seg_map_path": labels},
        pipeline=pipeline,
        **arguments,
    )
    found = {}
    for i in range(len(source)):
        sample = source[i]
        found[Path(sample["img_path"]).name] = sample["img"][..., ::-1], sample["gt_seg_map"]
    return found


def assert_same(source, expected):
    """Compares a source of ours with `mmseg_samples`."""
    names = {name.partition(".")[0]: pair for name, pair in expected.items()}
    assert len(source) == len(names) > 0
    for i in range(len(source)):
        sample = source[i]
        image, label = next(p for n, p in names.items() if n.startswith(sample.id))
        np.testing.assert_array_equal(sample.image, image)
        np.testing.assert_array_equal(sample.label, label)


def converter(name):
    """One of mmsegmentation's scripts that prepare data sets, as a module."""
    folder = Path(oracle.import_mmseg().__file__).parent / ".mim/tools/dataset_converters"
    spec = importlib.util.spec_from_file_location(f"converter_{name}", folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
