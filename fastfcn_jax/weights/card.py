"""Writes the model card: README.md of a model on the Hugging Face hub."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from fastfcn_jax import models, stored
from fastfcn_jax.checkpoints.model_folder import LoadedModel
from fastfcn_jax.data import pixel_type
from fastfcn_jax.errors import UserError

HEADS = {"psp": "PSP", "aspp": "DeepLabV3 (ASPP)", "enc": "EncNet", "fcn": "FCN"}
NECKS = {"jpu": "JPU", "jpu_x": "JPU of two chained units", "none": "dilation instead of a JPU"}

# Flags of a training's command that hold paths: they are private and mean nothing elsewhere.
_LOCAL_PATHS = re.compile(
    r"((?:--workdir|--config\.(?:data\.(?:root|cache)|init\.(?:checkpoint|backbone)))[ =])"
    r"(?:'[^']*'|\S+)"
)


def read_metrics(path: Path, needed: bool) -> dict[str, Any]:
    """Reads the metrics.json of an evaluation; {} if it is missing and not `needed`.

    Raises:
      UserError: it is needed and missing, or invalid.
    """
    if not path.is_file() and not needed:
        return {}
    try:
        content = json.loads(path.read_text("utf-8"))
        keys = ("mIoU", "mAcc", "aAcc", "protocol", "num_images", "per_class")
        return {key: content[key] for key in keys}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is not a metrics.json written by eval.") from error


def read_training(folder: Path) -> str:
    """How a run was trained: data, steps, command; "" for a folder without a run card.

    Paths of this machine are replaced by DIR.
    """
    path = folder / "run.json"
    if not path.is_file():
        return ""
    run = stored.read(path, {"data": dict, "starts": [dict]}, "fix it or move it away")
    starts = {start.get("command", ""): start.get("step", 0) for start in reversed(run["starts"])}
    commands = [
        f"# from step {starts[words]}\n{_LOCAL_PATHS.sub(lambda flag: f'{flag[1]}DIR', words)}"
        for words in reversed(starts)
    ]
    data, command = run["data"], "\n".join(commands)
    return (
        f"On {data.get('samples', '?')} images of {data.get('name', '?')}, as stored in "
        f"`config.json`:\n\n```\n{command}\n```"
    )


def text(
    name: str,
    model: LoadedModel,
    metrics: dict[str, Any],
    licence: str | None,
    training: str = "",
) -> str:
    """The model card: YAML for the hub, then Markdown for people."""
    head = yaml.safe_dump(_head(name, model, metrics, licence), sort_keys=False, allow_unicode=True)
    m, data = model.config.model, model.config.data
    mean, std = ([round(x, 3) for x in values] for values in models.scaling(data))
    pixel = pixel_type.of(data)
    images = "RGB" if pixel == pixel_type.RGB else f"{pixel}"
    lines = [
        f"---\n{head}---",
        f"# {name}",
        f"Semantic segmentation: {m.backbone}, {NECKS[m.neck]}, {HEADS[m.head]} head "
        f"({m.lineage} lineage), {model.info.num_classes} classes ({model.info.name}), "
        f"{model.step} steps.",
        "## Use",
        "```python\nimport fastfcn_jax\n\n"
        f'model = fastfcn_jax.load("hf://OWNER/{name}")\n'
        'labels = model("photo.jpg")  # class indices, uint8 (height, width)\n```',
        "## Scores",
        _scores(model, metrics),
        *(("## Training", training) if training else ()),
        "## Preprocessing",
        f"{images}, scaled to fit {data.test_scale} (width, height; (0, 0): not scaled), "
        f"minus {mean}, divided by {std}.",
        "## Classes",
        "| number | name | colour | IoU | accuracy |\n|---|---|---|---|---|\n"
        + "\n".join(_classes(model, metrics.get("per_class", {}))),
        "## Files",
        "`model.safetensors` has the names and layouts of the lineage's PyTorch state dict; "
        "`config.json` the configuration, classes, palette and preprocessing.",
    ]
    return "\n\n".join(lines) + "\n"


def _head(name: str, model: LoadedModel, metrics: dict[str, Any], licence: str | None) -> dict:
    head: dict[str, Any] = {
        "library_name": "fastfcn_jax",
        "license": licence or "unknown",
        "pipeline_tag": "image-segmentation",
        "tags": ["semantic-segmentation", "jax", "fastfcn"],
    }
    if metrics:
        named = {"mean_iou": "mIoU", "mean_accuracy": "mAcc", "overall_accuracy": "aAcc"}
        results = [
            {"type": kind, "name": key, "value": metrics[key]} for kind, key in named.items()
        ]
        task = {"type": "image-segmentation"}
        dataset = {"type": model.info.name, "name": model.info.name}
        result = {"task": task, "dataset": dataset, "metrics": results}
        head["model-index"] = [{"name": name, "results": [result]}]
    return head


def _scores(model: LoadedModel, metrics: dict[str, Any]) -> str:
    published = model.config.published
    lines = []
    if metrics:
        lines.append(
            f"mIoU {metrics['mIoU']:.2f}, mAcc {metrics['mAcc']:.2f}, aAcc {metrics['aAcc']:.2f} "
            f"(percent; protocol {metrics['protocol']}, {metrics['num_images']} images)."
        )
    if published.miou or published.miou_ms_flip:
        figures = [f"{x:.2f}" if x else "-" for x in (published.miou, published.miou_ms_flip)]
        lines.append(
            f"Published for this configuration ({published.source}): mIoU {figures[0]} single "
            f"scale, {figures[1]} multi-scale and flip."
        )
    return "\n\n".join(lines) or "None measured."


def _classes(model: LoadedModel, scores: dict[str, Any]) -> list[str]:
    def row(k: int, name: str, color: list[int]) -> str:
        percents = (scores.get(name, {}).get(kind) for kind in ("IoU", "Acc"))
        figures = ["-" if x is None else f"{x:.1f}" for x in percents]
        shown = name.replace("|", "/")
        return f"| {k} | {shown} | {tuple(color)} | {figures[0]} | {figures[1]} |"

    pairs = zip(model.info.class_names, model.info.palette.tolist(), strict=True)
    return [row(k, name, color) for k, (name, color) in enumerate(pairs)]
