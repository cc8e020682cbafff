"""Training and inference of ultralytics' models for semantic segmentation by its own trainer."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import camvid_mmseg
import numpy as np
from jaxtyping import UInt8
from peer_smp import PHOTOGRAPHS

SIDE = 480  # the longer side of the photographs


def _prepare(folder: Path) -> None:
    """Keeps ultralytics from the network, from other loggers and from the user's own settings."""
    import matplotlib
    import oracle

    oracle.import_torchvision()
    settings = folder / "settings"
    settings.mkdir(parents=True, exist_ok=True)
    os.environ.update(
        YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", YOLO_CONFIG_DIR=str(settings.absolute())
    )
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    import ultralytics
    from ultralytics.utils import USER_CONFIG_DIR, torch_utils

    # It leaves one core to others: of two it would train on one.
    torch_utils.NUM_THREADS = int(os.environ["OMP_NUM_THREADS"])

    ultralytics.settings.update(mlflow=False)  # installed for our tests; it would write files here
    # It would fetch this font when it reads a data set; nothing is drawn with it.
    font = USER_CONFIG_DIR / "Arial.ttf"
    if not font.exists():
        font.symlink_to(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"))


def write_yaml(layout: Path) -> Path:
    """ultralytics' description of the folder; its masks hold class numbers, 255 is ignored."""
    file = layout / "camvid.yaml"
    names = "".join(f"  {i}: {n}\n" for i, n in enumerate(camvid_mmseg.camvid.INFO.class_names))
    file.write_text(
        f"path: {layout.absolute()}\ntrain: images/train\nval: images/val\n"
        f"masks_dir: labels\nnames:\n{names}"
    )
    return file


def train(name: str, layout: Path, folder: Path, minutes: float) -> dict[str, Any]:
    """Trains for about `minutes`; the weights are stored in `folder`."""
    _prepare(folder)
    from ultralytics import YOLO

    model = YOLO(f"{name}.yaml")
    batches = []
    model.add_callback("on_train_batch_start", lambda trainer: batches.append(trainer.batch_size))
    parameters = []
    model.add_callback(
        "on_train_start",
        lambda trainer: parameters.append(sum(p.numel() for p in trainer.model.parameters())),
    )
    started = time.monotonic()
    model.train(
        data=str(write_yaml(layout)),
        time=minutes / 60,
        imgsz=SIDE,
        pretrained=False,
        device="cpu",
        project=str(folder.absolute()),
        name="run",
        exist_ok=True,
        plots=False,
    )
    args = model.trainer.args
    return {
        "minutes": (time.monotonic() - started) / 60,
        "steps": len(batches),
        "epochs": sum(batches) / PHOTOGRAPHS,
        "batch": args.batch,
        "size": f"{SIDE}x{SIDE}",
        "optimiser": f"{args.optimizer} {args.lr0:g}, linear, of {args.nbs} images, EMA",
        "parameters": parameters[0],
    }


def predictor(
    folder: Path, which: str
) -> Callable[[UInt8[np.ndarray, "h w 3"]], UInt8[np.ndarray, "h w"]]:
    """Labels a photograph; which: "best" or "last"."""
    _prepare(folder)
    from ultralytics import YOLO

    model = YOLO(folder / "run" / "weights" / f"{which}.pt")

    def predict(image):
        bgr = np.ascontiguousarray(image[..., ::-1])  # arrays are taken as OpenCV reads them
        (result,) = model.predict(bgr, imgsz=SIDE, device="cpu", verbose=False)
        predict.network_ms = result.speed["inference"]
        return result.semantic_mask.data.numpy().astype(np.uint8)

    return predict
