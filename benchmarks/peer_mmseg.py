"""Training and inference of mmsegmentation's PSPNet with ResNet-18 by mmengine's Runner."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import camvid_mmseg
import numpy as np
from jaxtyping import UInt8
from peer_smp import PHOTOGRAPHS

SHIPPED = "pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024"
BATCH, CROP, PHOTOGRAPH = 8, (192, 256), (480, 360)  # height, width; width, height
WARM_UP, TIMED = 4, 12  # steps; the first ones wait for the workers to start


def configuration(layout: Path, steps: int, folder: Path):
    """mmsegmentation's configuration for CamVid."""
    import oracle

    from fastfcn_jax.config import experiment

    oracle.import_torchvision()  # the Runner wants its version
    camvid_mmseg.register()
    config = oracle.mmseg_config(SHIPPED)
    config.model.data_preprocessor.size = CROP
    for head in ("decode_head", "auxiliary_head"):
        config.model[head].num_classes = len(camvid_mmseg.camvid.INFO.class_names)
    data = experiment.load("jpu_psp_camvid").data
    data.update(crop_size=CROP, resize_scale=PHOTOGRAPH, test_scale=PHOTOGRAPH)
    pipelines = camvid_mmseg.train_pipeline(data), camvid_mmseg.test_pipeline(data)
    sets = [camvid_mmseg.dataset(layout, *x) for x in zip(("train", "val"), pipelines, strict=True)]
    config.train_dataloader.update(batch_size=BATCH, dataset=sets[0])
    config.val_dataloader.update(dataset=sets[1])
    config.test_pipeline = pipelines[1]
    config.param_scheduler[0].end = steps
    config.train_cfg.update(max_iters=steps, val_interval=max(1, steps // 10))  # of 80000: 8000
    config.default_hooks.checkpoint.interval = steps
    config.default_hooks.pop("visualization")
    for name in ("test_cfg", "test_dataloader", "test_evaluator"):
        config.pop(name)
    config.env_cfg.update(cudnn_benchmark=False, dist_cfg={"backend": "gloo"})
    config.update(randomness={"seed": 0}, work_dir=str(folder), experiment_name=folder.name)
    return config


def train(layout: Path, folder: Path, minutes: float) -> dict[str, Any]:
    """Trains for about `minutes`; the weights are stored in `folder`."""
    import torch

    def run(steps: int, folder: Path):
        config = configuration(layout, steps, folder)
        if folder.name == "warm-up":
            config.train_cfg.val_interval = steps
        from mmengine.hooks import Hook
        from mmengine.runner import Runner

        class Clock(Hook):
            def __init__(self):
                self.stamps, self.validation = [], 0.0

            def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
                self.stamps.append(time.monotonic())

            def before_val(self, runner):
                self.validation = time.monotonic()

            def after_val(self, runner):
                self.validation = time.monotonic() - self.validation

        runner, clock = Runner.from_cfg(config), Clock()
        runner.register_hook(clock)
        started = time.monotonic()
        runner.train()
        return runner.model, clock, time.monotonic() - started

    _, clock, _ = run(WARM_UP + TIMED, folder / "warm-up")
    seconds = (clock.stamps[-1] - clock.stamps[WARM_UP - 1]) / TIMED
    steps = max(1, round((60 * minutes - 10 * clock.validation) / seconds))
    print(
        f"mmseg: {seconds:.2f} s a step, {clock.validation:.1f} s a validation, "
        f"{steps} steps in {minutes:g} minutes",
        flush=True,
    )
    model, _, spent = run(steps, folder / "run")
    torch.save(model.state_dict(), folder / "last.pt")
    return {
        "minutes": spent / 60,
        "steps": steps,
        "epochs": steps * BATCH / PHOTOGRAPHS,
        "batch": BATCH,
        "size": "x".join(map(str, CROP)),
        "optimiser": "SGD 0.01, poly",
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def predictor(folder: Path) -> Callable[[UInt8[np.ndarray, "h w 3"]], UInt8[np.ndarray, "h w"]]:
    """Labels a photograph."""
    config = configuration(Path(), 1, folder)
    import torch
    from mmseg.apis import inference_model
    from mmseg.registry import MODELS

    model = MODELS.build(config.model)
    model.load_state_dict(torch.load(folder / "last.pt"))
    model.cfg = config
    model.eval()

    def predict(image):
        with torch.inference_mode():
            result = inference_model(model, np.ascontiguousarray(image[..., ::-1]))
        return result.pred_sem_seg.data[0].byte().numpy()

    return predict
