"""The contenders of `peers.py`: how each is trained for a given time, and how it predicts.

Each is trained by the documented trainer of its package with that trainer's defaults:

ours             `fastfcn_jax.train` with `jpu_psp_camvid:shipped`; only the number of steps is set
yolo26n-sem, -s  `YOLO("yolo26n-sem.yaml").train(time=HOURS, imgsz=480, pretrained=False)`: 480 is
                 the longer side of the photographs (the default of 640 would enlarge them);
                 `plots=False`, as drawing is no training, and two threads, where the package would
                 leave one core to others
smp-*            the numbers of its CamVid example, see `peer_smp.py`
pspnet-r18       mmengine's Runner with `pspnet_r18-d8_4xb2-80k_cityscapes-512x1024`: its 4x2
                 images in one process (BN for SyncBN), its pipeline and schedule (poly, SGD 0.01),
                 at the size of the photographs; crops of 192x256, half of each side as there

Steps are chosen by a short training before the one that counts, timed with loading (and validation,
where the trainer validates), so that the schedule ends when the time does. ultralytics does that
itself. Weights are those that a user is handed: the best of the validations from ours and
ultralytics, the last from the others; `last` are the last ones of all.
"""

import importlib.util
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import peer_mmseg  # noqa: E402
import peer_smp  # noqa: E402
import peer_ultralytics  # noqa: E402

Predict = Callable[[UInt8[np.ndarray, "h w 3"]], UInt8[np.ndarray, "h w"]]

WARM_UP = 40  # steps of ours


class Job(NamedTuple):
    """root: CamVid; layout: the same by `camvid_mmseg.write_layout`; folder: of this contender."""

    root: Path
    layout: Path
    folder: Path
    minutes: float


class Contender(NamedTuple):
    """What is needed to run one.

    package: the module that it needs, and `pip install`'s name for it.
    train: trains and stores the weights; returns what the table tells of the training.
    predictor: (folder, "best" or "last") -> the stored model as a function of a photograph.
    """

    package: tuple[str, str]
    train: Callable[[Job], dict[str, Any]]
    predictor: Callable[[Path, str], Predict]

    def absent(self) -> str:
        """One sentence if its package is not installed, else ""."""
        module, name = self.package
        if importlib.util.find_spec(module):
            return ""
        return f"{name} is not installed: see the head of benchmarks/peers.py."


def _train_ours(job: Job) -> dict[str, Any]:
    # Compiling counts: a first training has no programs of an earlier one.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = ""
    import jax

    import fastfcn_jax
    from fastfcn_jax.config import experiment

    def run(steps: int, folder: Path) -> tuple[dict, dict, float]:
        config = experiment.load("jpu_psp_camvid:shipped")
        config.data.root = str(job.root)
        every = config.train.eval_every
        config.train.steps = steps
        if folder.name == "warm-up":
            config.train.log_every = 10
        clock = Clock()
        started = time.monotonic()
        fastfcn_jax.train(config, folder, callbacks=[clock])
        clock.stamps["end"] = time.monotonic()
        return config, {"start": started, **clock.stamps, "every": every}, started

    config, stamps, _ = run(WARM_UP, job.folder / "warm-up")
    steps, seconds = steps_within(60 * job.minutes, stamps)
    print(f"ours: {seconds:.3f} s a step, {steps} steps in {job.minutes:g} minutes", flush=True)
    config, stamps, started = run(steps, job.folder / "run")
    model = fastfcn_jax.load(job.folder / "run", quiet=True)
    return {
        "minutes": (stamps["end"] - started) / 60,
        "steps": steps,
        "epochs": steps * config.train.batch_size / peer_smp.PHOTOGRAPHS,
        "batch": config.train.batch_size,
        "size": "x".join(map(str, config.data.crop_size)),
        "optimiser": f"SGD {config.optim.lr:g}, poly, EMA",
        "parameters": sum(x.size for x in jax.tree.leaves(model.variables["params"])),
    }


class Clock:
    """A callback of `fastfcn_jax.train` that notes when its events happen."""

    def __init__(self):
        self.stamps: dict[Any, float] = {}

    def on_log(self, record):
        self.stamps[record["step"]] = time.monotonic()


def steps_within(budget: float, stamps: dict) -> tuple[int, float]:
    """The steps of ours that fill `budget` seconds, and the seconds of one step.

    stamps: of a short training: "start", the logged steps, "end"; "every": the steps between two
        validations, each of which ends with a report and a checkpoint, as the short training does.
    """
    first, last = (choose(s for s in stamps if isinstance(s, int)) for choose in (min, max))
    step = (stamps[last] - stamps[first]) / (last - first)
    compiling = stamps[first] - stamps["start"] - first * step
    validation = stamps["end"] - stamps[last]
    left = budget - compiling
    validations = left // (stamps["every"] * step + validation) + 1  # one more after the last step
    return max(1, int((left - validations * validation) / step)), step


def _ours(folder: Path, which: str) -> Predict:
    import fastfcn_jax

    kept = {"best": "best", "last": "latest"}[which]
    return fastfcn_jax.load(folder / "run", which=kept, quiet=True)


def _smp(architecture: str) -> Contender:
    return Contender(
        ("segmentation_models_pytorch", "segmentation-models-pytorch"),
        lambda job: peer_smp.train(architecture, job.layout, job.folder, job.minutes),
        lambda folder, which: peer_smp.predictor(architecture, folder),
    )


def _ultralytics(name: str) -> Contender:
    return Contender(
        ("ultralytics", "ultralytics"),
        lambda job: peer_ultralytics.train(name, job.layout, job.folder, job.minutes),
        peer_ultralytics.predictor,
    )


CONTENDERS = {
    "ours": Contender(("jax", "jax"), _train_ours, _ours),
    "yolo26n-sem": _ultralytics("yolo26n-sem"),
    "yolo26s-sem": _ultralytics("yolo26s-sem"),
    "smp-fpn-r18": _smp("FPN"),
    "smp-deeplabv3plus-r18": _smp("DeepLabV3Plus"),
    "pspnet-r18": Contender(
        ("mmengine", "mmsegmentation"),
        lambda job: peer_mmseg.train(job.layout, job.folder, job.minutes),
        lambda folder, which: peer_mmseg.predictor(folder),
    ),
}
VALIDATES = ("ours", "yolo26n-sem", "yolo26s-sem")  # best and last weights differ
