"""Training and inference of segmentation_models_pytorch by the numbers of its CamVid example.

Its `examples/camvid_segmentation_multiclass.ipynb` gives: batches of 32 crops of 320x320, Adam at
2e-4 down to 1e-5 on a cosine, Dice loss, and the augmentation below at albumentations' defaults.
Three things differ. The cosine lasts the whole training; the example computes that length, and then
writes 50 steps. The photographs are divided by 255 before ImageNet's mean and deviation are taken
off, as the encoder's parameters say. Void pixels are left out of the loss (`ignore_index`) and are
no twelfth class. The example's validation after every epoch is left out: all time goes to training.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

ENCODER, CLASSES, VOID = "resnet18", 11, 255
BATCH, CROP, WORKERS = 32, 320, 2
PHOTOGRAPHS = 367  # of CamVid's training set
WARM_UP, TIMED = 2, 6  # steps; the first ones wait for the workers to start

Image, Label = UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]


def _smp():
    import oracle

    oracle.import_torchvision()  # timm needs it, which SMP imports
    import segmentation_models_pytorch

    return segmentation_models_pytorch


def _build(architecture: str):
    return _smp().create_model(
        architecture, encoder_name=ENCODER, encoder_weights=None, in_channels=3, classes=CLASSES
    )


def train(architecture: str, layout: Path, folder: Path, minutes: float) -> dict[str, Any]:
    """Trains for about `minutes`; the weights are stored in `folder`."""
    _, seconds = _fit(architecture, layout, WARM_UP + TIMED)
    per_epoch = math.ceil(PHOTOGRAPHS / BATCH)  # the last batch is smaller
    steps = max(1, round(60 * minutes / (seconds * PHOTOGRAPHS / (per_epoch * BATCH))))
    print(
        f"{architecture}: {seconds:.2f} s a step, {steps} steps in {minutes:g} minutes", flush=True
    )
    started = time.monotonic()
    model, _ = _fit(architecture, layout, steps)
    spent = time.monotonic() - started

    import torch

    torch.save(model.state_dict(), folder / "last.pt")
    return {
        "minutes": spent / 60,
        "steps": steps,
        "epochs": steps / per_epoch,
        "batch": BATCH,
        "size": f"{CROP}x{CROP}",
        "optimiser": "Adam 2e-4, cosine",
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def _fit(architecture: str, layout: Path, steps: int):
    """The model after `steps`, and the mean seconds of a step, loading included."""
    import torch
    from torch.optim.lr_scheduler import CosineAnnealingLR
    from torch.utils.data import DataLoader

    torch.manual_seed(0)
    model = _build(architecture).train()
    losses = _smp().losses
    loss_of = losses.DiceLoss(losses.MULTICLASS_MODE, from_logits=True, ignore_index=VOID)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4)
    schedule = CosineAnnealingLR(optimizer, T_max=steps, eta_min=1e-5)
    loader = DataLoader(
        Photographs(layout),
        batch_size=BATCH,
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=True,
        worker_init_fn=_seed_worker,
    )
    stamps = [time.monotonic()]
    while len(stamps) <= steps:
        for images, labels in loader:
            loss = loss_of(model(normalise(images)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            stamps.append(time.monotonic())
            if (done := len(stamps) - 1) % 20 == 0 or done == steps:
                print(f"step {done} of {steps}: loss {loss.item():.4f}", flush=True)
            if done == steps:
                break
    first = min(WARM_UP, steps - 1)
    return model.eval(), (stamps[-1] - stamps[first]) / (steps - first)


def predictor(architecture: str, folder: Path) -> Callable[[Image], Label]:
    """Labels a photograph; padded to 384x480 as in the example, for the stride of 32."""
    import torch

    model = _build(architecture)
    model.load_state_dict(torch.load(folder / "last.pt"))
    model.eval()

    @torch.inference_mode()
    def predict(image: Image) -> Label:
        (top, bottom), (left, right) = (_margins(n) for n in image.shape[:2])
        padded = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_REFLECT_101)
        scores = model(normalise(torch.from_numpy(padded).permute(2, 0, 1)[None]))[0]
        height, width = image.shape[:2]
        scores = scores[:, top : top + height, left : left + width]
        return scores.argmax(0).byte().numpy()

    return predict


def _margins(length: int) -> tuple[int, int]:
    missing = -length % 32
    return missing // 2, missing - missing // 2


def normalise(images):
    """uint8 RGB (b, 3, h, w) by ImageNet's mean and deviation."""
    import torch

    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1)
        for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    return (images.float() / 255 - mean) / std


class Photographs:
    """The training photographs of a folder of `camvid_mmseg.write_layout`, augmented."""

    def __init__(self, layout: Path):
        self.images = sorted((layout / "images" / "train").iterdir())
        self.labels = [layout / "labels" / "train" / f"{path.stem}.png" for path in self.images]
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        image = cv2.cvtColor(cv2.imread(str(self.images[i])), cv2.COLOR_BGR2RGB)
        label = cv2.imread(str(self.labels[i]), cv2.IMREAD_UNCHANGED)
        image, label = augment(image, label, self.rng)
        return np.ascontiguousarray(image.transpose(2, 0, 1)), label.astype(np.int64)


def _seed_worker(_: int) -> None:
    import torch

    cv2.setNumThreads(0)
    worker = torch.utils.data.get_worker_info()
    # Without it all workers would draw the same numbers.
    worker.dataset.rng = np.random.default_rng(worker.seed)


def augment(image: Image, label: Label, rng: np.random.Generator) -> tuple[Image, Label]:
    """A crop of 320x320, in the order of the example."""
    if rng.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    image, label = _scaled(image, label, rng)
    top, left = (rng.integers(n - CROP + 1) for n in label.shape)
    image, label = (x[top : top + CROP, left : left + CROP] for x in (image, label))
    if rng.random() < 0.2:
        noise = rng.normal(0, rng.uniform(10, 50) ** 0.5, image.shape)
        image = _clipped(image + noise)
    if rng.random() < 0.5:
        image, label = _perspective(image, label, rng)
    for kinds in ((_clahe, _brightness, _gamma), (_sharpen, _blur, _motion), (_brightness, _hue)):
        if rng.random() < 0.9:
            image = kinds[rng.integers(len(kinds))](image, rng)
    return image, label


def _warp(image, label, matrix, function):
    size = label.shape[::-1]
    image = function(np.ascontiguousarray(image), matrix, size, flags=cv2.INTER_LINEAR)
    label = function(
        np.ascontiguousarray(label), matrix, size, flags=cv2.INTER_NEAREST, borderValue=VOID
    )
    return image, label


def _scaled(image, label, rng):
    """By 0.5 to 1.5 about the centre and shifted by up to a tenth."""
    height, width = label.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), 0, rng.uniform(0.5, 1.5))
    matrix[:, 2] += rng.uniform(-0.1, 0.1, 2) * (width, height)
    return _warp(image, label, matrix, cv2.warpAffine)


def _perspective(image, label, rng):
    """The corners move inwards by 0.05 to 0.1 of the size, normally distributed."""
    inwards = np.abs(rng.normal(0, rng.uniform(0.05, 0.1), (4, 2))) % 0.32
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    source = np.abs(corners - inwards) * CROP
    matrix = cv2.getPerspectiveTransform(
        source.astype(np.float32), (corners * CROP).astype(np.float32)
    )
    return _warp(image, label, matrix, cv2.warpPerspective)


def _clipped(values) -> Image:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _clahe(image, rng):
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(rng.uniform(1, 4), (8, 8)).apply(lab[..., 0])
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def _brightness(image, rng):
    return _clipped(image * rng.uniform(0.8, 1.2) + 255 * rng.uniform(-0.2, 0.2))


def _gamma(image, rng):
    return _clipped(255 * (image / 255) ** rng.uniform(0.8, 1.2))


def _sharpen(image, rng):
    alpha, lightness = rng.uniform(0.2, 0.5), rng.uniform(0.5, 1.0)
    kernel = np.full((3, 3), -1.0)
    kernel[1, 1] = 8 + lightness
    kernel *= alpha
    kernel[1, 1] += 1 - alpha
    return cv2.filter2D(image, -1, kernel)


def _blur(image, rng):
    return cv2.blur(image, (3, 3))


def _motion(image, rng):
    lines = (np.eye(3), np.eye(3)[::-1], np.eye(3)[[1, 1, 1]].T, np.eye(3)[[1, 1, 1]])
    kernel = lines[rng.integers(len(lines))]
    return cv2.filter2D(image, -1, kernel / kernel.sum())


def _hue(image, rng):
    hue, saturation, value = rng.uniform((-20, -30, -20), (20, 30, 20))
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + hue) % 180
    hsv[..., 1:] += (saturation, value)
    return cv2.cvtColor(_clipped(hsv), cv2.COLOR_HSV2RGB)
