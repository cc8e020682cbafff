"""The table of names against the packages that publish them, and against our configurations."""

import functools
import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml
from ml_collections import ConfigDict

from fastfcn_jax.config import experiment
from fastfcn_jax.convert import detect, fit, mmseg_names, official_names, paddleseg_names
from fastfcn_jax.errors import UserError
from fastfcn_jax.weights import registry

MODELS = [entry for entry in registry.ENTRIES.values() if entry.config]
MMSEG = [entry for entry in MODELS if "/mmsegmentation/" in entry.address]


def package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def published() -> dict[str, dict[str, float]]:
    """Scores by address, as mmsegmentation's metafiles have them."""
    found = {}
    for collection in ("fastfcn", "pspnet", "deeplabv3", "encnet"):
        file = package("mmseg") / ".mim" / "configs" / collection / "metafile.yaml"
        for model in yaml.safe_load(file.read_text())["Models"]:
            found[model["Weights"]] = model["Results"]["Metrics"]
    return found


def test_addresses_and_scores_are_mmsegmentations():
    wanted = published()
    assert len(MMSEG) == 21
    assert sum("/fastfcn/" in entry.address for entry in MMSEG) == 12
    for entry in MMSEG:
        ours = experiment.load(entry.config).published
        figures = {"mIoU": ours.miou, "mIoU(ms+flip)": ours.miou_ms_flip}
        assert wanted[entry.address] == figures, entry.name
    assert len({entry.address for entry in MMSEG}) == 21


@pytest.mark.parametrize("entry", registry.ENTRIES.values(), ids=lambda entry: entry.name)
def test_every_name_is_whole(entry):
    algorithm, _, beginning = entry.checksum.partition(":")
    if entry.address:
        assert entry.address.startswith(("https://", "hf://timm/"))
    if entry.checksum:
        assert f"-{beginning}." in entry.file
        assert re.fullmatch("[0-9a-f]{8}", beginning)
        assert algorithm == ("sha1" if entry.name.endswith("_official") else "sha256")
    assert entry.licence in ("apache-2.0", "mit", "bsd-3-clause", "cc-by-nc-4.0")
    assert registry.find(entry.file) == entry
    assert bool(entry.config) != bool(entry.model)  # a model has a configuration, a backbone keys
    assert entry.is_backbone == bool(entry.model)


@functools.cache
def shapes_of(model: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes in mmsegmentation's style of a model (as JSON) for 7 classes."""
    template = fit.template(ConfigDict(json.loads(model)), 7)
    return {mmseg_names.torch_name(p, template): torch_shape(p, template[p]) for p in template}


def torch_shape(path, leaf) -> tuple[int, ...]:
    if path[-1] != "kernel":
        return leaf.shape
    *window, inputs, outputs = leaf.shape
    return (outputs, inputs, *window)


@pytest.mark.parametrize("entry", MODELS, ids=lambda entry: entry.name)
def test_every_configuration_takes_a_file_of_its_names_and_shapes(entry):
    """At full width, by shapes alone: the model recognised in the file is the configured one."""
    model = experiment.load(entry.config).model
    shapes = shapes_of(json.dumps(model.to_dict()))
    if model.lineage == "official":  # by way of the official names
        official = official_names.from_mmseg_names(shapes)
        back = official_names.to_mmseg_names(n for n in official.values() if n is not None)
        shapes = {str(back[str(official[name])]): shape for name, shape in shapes.items()}
    elif model.lineage == "paddleseg":
        theirs = {name: paddleseg_names.from_mmseg_name(name) for name in shapes}
        back = paddleseg_names.to_mmseg_names(theirs.values())
        shapes = {back[theirs[name]]: shape for name, shape in shapes.items()}
    assert detect.differences(detect.detect(shapes, model.lineage), model, 7) == []


def test_published_names_are_taken_too_and_others_answered():
    stem = "fastfcn_r50-d32_jpu_psp_4x4_512x1024_80k_cityscapes"
    assert registry.find(stem).name == "jpu_psp_cityscapes:4x4"
    assert registry.find("resnet50-ebb6acbb.pth").name == "resnet50_official"
    with pytest.raises(UserError, match="did you mean jpu_psp_cityscapes"):
        registry.find("jpu_psp_cityscape")
    with pytest.raises(UserError, match="see `fastfcn weights list`"):
        registry.find("w")
