"""Inference by mmsegmentation itself, on small models with the same weights as ours."""

import copy
import warnings

import jax
import numpy as np
import oracle

from fastfcn_jax import models
from fastfcn_jax.config.base import get_config
from fastfcn_jax.convert import mmseg_names

WIDTH = 16


def config(head: str = "psp"):
    """Our configuration of the small model."""
    c = get_config()
    c.model.update(
        backbone="resnet18",
        base_width=WIDTH,
        neck_channels=2 * WIDTH,
        head=head,
        head_channels=2 * WIDTH,
        auxiliary_channels=WIDTH,
        se_branch=head == "enc",
    )
    return c


def full_pair(head: str, num_classes: int):
    """(mmseg's FastFCN-R50 and its config, our model, our variables), with equal random weights."""
    theirs = oracle.mmseg_config(f"fastfcn/fastfcn_r50-d32_jpu_{head}_4xb2-80k_cityscapes-512x1024")
    classes = {"num_classes": num_classes}
    reference = oracle.build_mmseg(theirs, decode_head=classes, auxiliary_head=classes)
    oracle.randomize(reference, seed=1)
    reference.cfg = theirs
    c = get_config()
    c.model.update(head=head, se_branch=head == "enc")
    ours = models.build(c.model, num_classes)
    return reference, ours, jax.device_put(mmseg_names.to_flax(oracle.tensors_of(reference)))


def pair(head: str, num_classes: int, **classifier):
    """The same as `full_pair` with a small ResNet-18, for tests.

    classifier: settings of both heads, `out_channels=1` and `threshold`.
    """
    theirs = oracle.mmseg_config(f"fastfcn/fastfcn_r50-d32_jpu_{head}_4xb2-80k_cityscapes-512x1024")
    stages = (2 * WIDTH, 4 * WIDTH, 8 * WIDTH)
    channels = {"channels": 2 * WIDTH, "in_channels": 8 * WIDTH, "num_classes": num_classes}
    channels |= classifier
    if head == "enc":
        channels["in_channels"] = [*stages[:2], 8 * WIDTH]
    reference = oracle.build_mmseg(
        theirs,
        backbone={"depth": 18, "base_channels": WIDTH, "stem_channels": WIDTH},
        neck={"in_channels": stages, "mid_channels": 2 * WIDTH},
        decode_head=channels,
        auxiliary_head={
            "in_channels": 4 * WIDTH,
            "channels": WIDTH,
            "num_classes": num_classes,
            **classifier,
        },
    )
    oracle.randomize(reference, seed=1)
    reference.cfg = theirs
    settings = config(head).model
    if classifier:
        settings.update(num_classes=1, threshold=classifier["threshold"])
    ours = models.build(settings, num_classes)
    return reference, ours, jax.device_put(mmseg_names.to_flax(oracle.tensors_of(reference)))


def infer(reference, image: np.ndarray, scale: tuple[int, int]) -> np.ndarray:
    """`inference_model` with the test pipeline at (width, height) `scale`; RGB image."""
    from mmseg.apis import inference_model

    reference.cfg.test_pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "scale": scale, "keep_ratio": True},
        {"type": "PackSegInputs"},
    ]
    result = inference_model(reference, np.ascontiguousarray(image[..., ::-1]))
    return result.pred_sem_seg.data[0].numpy().astype(np.uint8)


def infer_tta(reference, image: np.ndarray, resizes: list[dict]) -> np.ndarray:
    """Test-time augmentation: each scale, plain and flipped, merged by `SegTTAModel`."""
    import torch
    from mmcv.transforms import Compose
    from mmseg.models.segmentors import SegTTAModel

    flips = [{"type": "RandomFlip", "prob": prob, "direction": "horizontal"} for prob in (0.0, 1.0)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = Compose(
            [
                {"type": "LoadImageFromNDArray"},
                {
                    "type": "TestTimeAug",
                    "transforms": [
                        [{"type": "Resize", "keep_ratio": True, **resize} for resize in resizes],
                        flips,
                        [{"type": "PackSegInputs"}],
                    ],
                },
            ]
        )
        data = pipeline({"img": np.ascontiguousarray(image[..., ::-1])})
        batch = {
            "inputs": [[view] for view in data["inputs"]],
            "data_samples": [[sample] for sample in data["data_samples"]],
        }
        model = SegTTAModel(module=copy.copy(reference))
        with torch.no_grad():
            (result,) = model.test_step(batch)
    return result.pred_sem_seg.data.numpy().astype(np.uint8).reshape(image.shape[:2])


def iou_metric(labels, predictions, num_classes: int) -> list[float]:
    """[mIoU, mAcc, aAcc] in percent by mmsegmentation's `IoUMetric`."""
    oracle.import_mmseg()
    import torch
    from mmengine.logging import MMLogger
    from mmseg.evaluation import IoUMetric

    MMLogger.get_current_instance().setLevel("ERROR")  # else it prints its table
    metric = IoUMetric()
    metric.dataset_meta = {"classes": [str(i) for i in range(num_classes)]}
    for label, prediction in zip(labels, predictions, strict=True):
        both = {"pred_sem_seg": prediction, "gt_sem_seg": label}
        sample = {k: {"data": torch.from_numpy(v[None].copy()).long()} for k, v in both.items()}
        metric.process({}, [sample])
    found = metric.compute_metrics(metric.results)
    return [round(float(found[name]), 2) for name in ("mIoU", "mAcc", "aAcc")]
