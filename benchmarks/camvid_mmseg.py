"""Trains one of our CamVid configurations with mmsegmentation 1.2.2 and its own Runner.

python benchmarks/camvid_mmseg.py --config configs/jpu_psp_camvid.py:cpu --workdir DIR
    --config.data.root=CAMVID

It takes the flags of `train.py` and writes the same records to `metrics.jsonl` (the loss of every
step; mIoU and IoU per class). With `--weights FILE.pth` it evaluates that file instead of training.
Data set, pipeline, data preprocessor, initial weights, losses, OptimWrapper, PolyLR and IoUMetric
are mmsegmentation's. BN replaces SyncBN, as there is one process.
"""

import json
import logging
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict, config_flags

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fastfcn_jax.config import experiment, schema  # noqa: E402
from fastfcn_jax.data.datasets import camvid  # noqa: E402
from fastfcn_jax.errors import UserError  # noqa: E402

SHIPPED = "fastfcn/fastfcn_r50-d32_jpu_psp_4xb2-80k_cityscapes-512x1024"


def runner_config(c: ConfigDict, layout: Path, workdir: Path):
    """mmsegmentation's own FastFCN-PSP configuration, changed to the experiment `c`.

    layout: a folder of `write_layout`.

    Raises:
      UserError: `c` has a setting that cannot be translated.
    """
    import oracle

    _check(c)
    config = oracle.mmseg_config(SHIPPED)
    for part, values in model_overrides(c.model, len(camvid.INFO.class_names)).items():
        config.model[part].update(values)
    config.model.auxiliary_head.loss_decode.loss_weight = c.loss.auxiliary_weight
    config.model.data_preprocessor.size = tuple(c.data.crop_size)
    train = {"batch_size": c.train.batch_size, "num_workers": 0, "persistent_workers": False}
    val = {"batch_size": 1, "num_workers": 0, "persistent_workers": False}
    config.train_dataloader.update(train, dataset=dataset(layout, "train", train_pipeline(c.data)))
    config.val_dataloader.update(val, dataset=dataset(layout, "val", test_pipeline(c.data)))
    config.val_evaluator = {"type": "RecordedIoU", "iou_metrics": ["mIoU"]}
    o = c.optim
    config.optim_wrapper.optimizer = {
        "type": "SGD",
        "lr": o.lr,
        "momentum": o.momentum,
        "weight_decay": o.weight_decay,
    }
    config.param_scheduler[0].update(eta_min=o.end_lr, power=o.power, end=c.train.steps)
    config.train_cfg.update(max_iters=c.train.steps, val_interval=c.train.eval_every)
    config.default_hooks.pop("visualization")
    config.default_hooks.checkpoint.interval = c.train.steps
    config.custom_hooks = [
        {"type": "Records", "path": str(workdir / "metrics.jsonl"), "every": c.train.log_every}
    ]
    for name in ("test_cfg", "test_dataloader", "test_evaluator"):
        config.pop(name)
    config.env_cfg.update(cudnn_benchmark=False, dist_cfg={"backend": "gloo"})
    config.update(randomness={"seed": c.seed}, work_dir=str(workdir), log_level="WARNING")
    return config


def _check(c: ConfigDict) -> None:
    wanted = {
        "model.lineage": "mmseg",
        "model.neck": "jpu",
        "model.head": "psp",
        "data.augmentation": "mmseg",
        "data.photometric": True,
        "loss.normalization": "all_pixels",
        "loss.class_weights": (),
        "loss.ohem_threshold": 0.0,
        "optim.warmup_steps": 0,
        "optim.clip_norm": 0.0,
        "optim.head_lr_multiplier": 1.0,
        "optim.layer_decay": 1.0,
        "train.accumulate": 1,
        "train.ema_decay": 0.0,
        "eval.protocol": "single",
        "eval.max_images": 0,
    }
    values = dict(schema.flatten(c))
    for key, value in wanted.items():
        if values[key] != value:
            raise UserError(
                f"config.{key}={values[key]!r} is not translated to mmsegmentation; "
                f"set it to {value!r}."
            )


def model_overrides(m: ConfigDict, num_classes: int) -> dict[str, dict]:
    """What our `config.model` changes in mmsegmentation's FastFCN-R50-PSP."""
    depth = int(m.backbone.removeprefix("resnet"))
    expansion = 4 if depth >= 50 else 1
    stages = tuple(expansion * m.base_width * 2**i for i in (1, 2, 3))
    head = {"num_classes": num_classes, "dropout_ratio": m.dropout}
    return {
        "backbone": {
            "depth": depth,
            "base_channels": m.base_width,
            "stem_channels": m.base_width,
        },
        "neck": {"in_channels": stages, "mid_channels": m.neck_channels},
        "decode_head": {"in_channels": 4 * m.neck_channels, "channels": m.head_channels, **head},
        "auxiliary_head": {"in_channels": stages[1], "channels": m.auxiliary_channels, **head},
    }


def train_pipeline(d: ConfigDict) -> list[dict]:
    """The transforms of mmsegmentation's configurations, with our sizes."""
    return [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations"},
        {
            "type": "RandomResize",
            "scale": tuple(d.resize_scale),
            "ratio_range": tuple(d.ratio_range),
            "keep_ratio": True,
        },
        {
            "type": "RandomCrop",
            "crop_size": tuple(d.crop_size),
            "cat_max_ratio": d.cat_max_ratio,
        },
        {"type": "RandomFlip", "prob": d.flip},
        {"type": "PhotoMetricDistortion"},
        {"type": "PackSegInputs"},
    ]


def test_pipeline(d: ConfigDict) -> list[dict]:
    """The test transforms; labels are loaded after resizing, so scores are at their own size."""
    return [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "scale": tuple(d.test_scale), "keep_ratio": True},
        {"type": "LoadAnnotations"},
        {"type": "PackSegInputs"},
    ]


def dataset(layout: Path, split: str, pipeline: list[dict]) -> dict:
    """mmsegmentation's data set for plain folders, reading a folder of `write_layout`."""
    names, palette = camvid.INFO.class_names, camvid.INFO.palette.tolist()
    return {
        "type": "BaseSegDataset",
        "data_root": str(layout),
        "ann_file": f"{split}.txt",
        "data_prefix": {"img_path": f"images/{split}", "seg_map_path": f"labels/{split}"},
        "metainfo": {"classes": names, "palette": palette},
        "test_mode": split != "train",
        "pipeline": pipeline,
    }


def write_layout(root: Path, folder: Path) -> Path:
    """Writes CamVid in the layout of mmsegmentation's plain data set, with void as 255."""
    for split in ("train", "val"):
        lines = (root / f"{split}.txt").read_text().splitlines()
        stems = []
        for line in filter(None, map(str.split, lines)):
            photograph, label = (root / name for name in line)
            stems.append(photograph.stem)
            image = folder / "images" / split / photograph.name
            image.parent.mkdir(parents=True, exist_ok=True)
            image.symlink_to(photograph.resolve())
            values = cv2.imread(str(label), cv2.IMREAD_UNCHANGED)
            values[values == camvid.VOID] = 255
            target = folder / "labels" / split / f"{photograph.stem}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(target), values)
        (folder / f"{split}.txt").write_text("\n".join(stems) + "\n")
    return folder


def register() -> None:
    """Registers a metric and a hook with mmsegmentation that record scores and losses."""
    import oracle

    oracle.import_mmseg()
    from mmengine.hooks import Hook
    from mmseg.evaluation import IoUMetric
    from mmseg.registry import HOOKS, METRICS

    @METRICS.register_module(force=True)
    class RecordedIoU(IoUMetric):
        """IoUMetric that keeps the IoU of the classes, which it otherwise only prints."""

        def compute_metrics(self, results):
            intersection, union = (sum(x).numpy() for x in list(zip(*results, strict=True))[:2])
            with np.errstate(invalid="ignore"):
                self.iou = 100 * intersection.astype(np.float64) / union
            return super().compute_metrics(results)

    @HOOKS.register_module(force=True)
    class Records(Hook):
        """Appends records to `path`: losses after every `every` steps, and each evaluation."""

        def __init__(self, path, every):
            self.path, self.every, self.losses = Path(path), every, []
            self.path.write_text("")

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            self.losses.append(float(outputs["loss"]))
            if (step := runner.iter + 1) % self.every == 0:
                self.add("train", step, loss=float(np.mean(self.losses)), losses=self.losses)
                self.losses = []

        def after_val_epoch(self, runner, metrics=None):
            iou = dict(
                zip(
                    camvid.INFO.class_names,
                    runner.val_evaluator.metrics[0].iou.tolist(),
                    strict=True,
                )
            )
            self.add(
                "eval",
                runner.iter,
                mIoU=float(np.mean(list(iou.values()))),
                aAcc=float(metrics["aAcc"]),
                per_class={name: {"IoU": value} for name, value in iou.items()},
            )

        def add(self, kind, step, **values):
            with self.path.open("a") as file:
                file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")


def main(_):
    config, _ = experiment.from_flag()
    import torch

    torch.set_num_threads(1)
    register()
    from mmengine.runner import Runner

    workdir = Path(_WORKDIR.value)
    workdir.mkdir(parents=True, exist_ok=True)
    layout = workdir / "camvid"
    if not layout.is_dir():
        write_layout(Path(config.data.root), layout)
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
    made = runner_config(config, layout, workdir)
    if _WEIGHTS.value:
        made.load_from = _WEIGHTS.value
        Runner.from_cfg(made).val()
    else:
        Runner.from_cfg(made).train()


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "FILE.py or FILE.py:variant.")
    _WORKDIR = flags.DEFINE_string("workdir", None, "Output folder.", required=True)
    _WEIGHTS = flags.DEFINE_string("weights", "", ".pth to evaluate; empty: train.")
    app.run(main)
