"""A model for tests of `predict` that needs no compilation: the class is a third of the red.

python tests/toy.py IN OUT predicts slowly with it, for tests of killed processes.
"""

import sys
import time
from pathlib import Path

import cv2
import numpy as np

from fastfcn_jax.data.pixel_type import RGB
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.inference import predictor, protocols
from fastfcn_jax.inference.prediction import Prediction
from fastfcn_jax.predict import chosen_model, outputs

PALETTE = np.array([[10, 20, 30], [255, 0, 0], [0, 0, 255]], np.uint8)
INFO = DatasetInfo("toy", ("background", "road", "car"), PALETTE, (0, 128, 255))


def labels_of(image):
    return (image[..., 0] // 86).astype(np.uint8)


class Predictor(predictor.Predictor):
    def __init__(self, seconds=0.0):
        self.seconds = seconds  # that an image takes
        self.protocol = protocols.build("single", test_scale=(0, 0))
        self.max_programs, self.batch_size, self.seen = 6, 1, []
        self.threshold = None

    def stream(self, images, *, confidence=False):
        for key, image in images:
            time.sleep(self.seconds)
            self.seen.append(key)
            sure = np.ones(image.shape[:2], np.float32) if confidence else None
            yield key, Prediction(labels_of(image), sure)


class Model:
    """`mark` stands for the weights."""

    pixel = RGB

    def __init__(self, info=INFO, mark="weights", seconds=0.0):
        self.info, self.mark = info, mark
        self.predictor = Predictor(seconds)

    def logits(self, image):
        return np.eye(3, dtype=np.float32)[labels_of(image)]

    @property
    def predicted(self) -> list[str]:
        """The stems of the photographs in the order in which they were predicted."""
        return [photograph.stem for photograph in self.predictor.seen]


def predict(monkeypatch, source, output, model=None, **options):
    """Calls `fastfcn_jax.predict` with this model; returns the summary and the model."""
    model = model or Model()
    monkeypatch.setattr(chosen_model, "load_model", lambda *_, **__: model)
    monkeypatch.setattr(chosen_model, "checksum", lambda loaded, _: loaded.mark)
    return outputs.predict(str(source), output, checkpoint="toy", **options), model


def photograph(seed=0, size=(12, 20)):
    """Blocks of the three classes, 4 pixels wide."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (-(-size[0] // 4), -(-size[1] // 4), 3), dtype=np.uint8)
    return coarse.repeat(4, axis=0).repeat(4, axis=1)[: size[0], : size[1]].copy()


def lay(folder, *names, size=(12, 20)):
    """Writes photographs, each with pixels of its own."""
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = photograph(seed, size)
        path.write_bytes(cv2.imencode(path.suffix, image[..., ::-1])[1].tobytes())


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    import pytest

    predict(pytest.MonkeyPatch(), *sys.argv[1:], Model(seconds=0.1))
