"""The share of its time that `fastfcn predict` keeps the device busy.

python benchmarks/predict_busy.py [--count 200] [--checkpoint camvid-small] [--batch 1]
    [--no_overlay]

Writes generated street scenes of 360x480 as JPEG files, predicts them with all results that
`predict` writes by default, and prints images a second and the share of the time, from the first
program that runs to the last file written, in which the device had a program to run. A first call
with a few files compiles.
"""

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

import cv2
import jax

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from fastfcn_jax import runtime  # noqa: E402
from fastfcn_jax.data.datasets import synthetic  # noqa: E402
from fastfcn_jax.inference.predictor import Predictor  # noqa: E402
from fastfcn_jax.predict import outputs  # noqa: E402

SIZE = (360, 480)
SCENES = 20  # different ones, repeated


class Watch:
    """Notes when each program was given to the device and when its result was there."""

    def __init__(self):
        self.spans: list[tuple[float, float]] = []
        self._threads: list[threading.Thread] = []
        self._start = Predictor._start

    def __enter__(self) -> "Watch":
        Predictor._start = lambda *args: self._watched(*args)
        return self

    def __exit__(self, *_) -> None:
        Predictor._start = self._start
        for thread in self._threads:
            thread.join()

    def _watched(self, *arguments):
        began = time.monotonic()
        result = self._start(*arguments)
        thread = threading.Thread(target=self._wait, args=(began, result))
        thread.start()
        self._threads.append(thread)
        return result

    def _wait(self, began: float, result) -> None:
        jax.block_until_ready(result.labels)
        self.spans.append((began, time.monotonic()))

    def busy(self) -> float:
        """Seconds in which at least one program was waiting or running."""
        total, until = 0.0, 0.0
        for began, ended in sorted(self.spans):
            total += max(0.0, ended - max(began, until))
            until = max(until, ended)
        return total


def write_scenes(folder: Path, count: int) -> None:
    folder.mkdir()
    source = synthetic.StreetScenes("val", SIZE)
    encoded = [cv2.imencode(".jpg", source[i].image[..., ::-1])[1].tobytes() for i in range(SCENES)]
    for i in range(count):
        (folder / f"{i:06}.jpg").write_bytes(encoded[i % SCENES])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--checkpoint", default="camvid-small")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--no_overlay", action="store_true")
    arguments = parser.parse_args()
    runtime.cache_compilations()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {
            "checkpoint": arguments.checkpoint,
            "batch_size": arguments.batch,
            "overlay": not arguments.no_overlay,
        }
        for part, count in (("warm", 2 * arguments.batch), ("all", arguments.count)):
            write_scenes(folder / part, count)
            with Watch() as watch:
                outputs.predict(folder / part, folder / f"{part}_out", **settings)
                ended = time.monotonic()
    whole = ended - min(began for began, _ in watch.spans)
    print(f"{arguments.count / whole:.1f} images/s; device busy {watch.busy() / whole:.1%}")


if __name__ == "__main__":
    main()
