"""Names to models: fetched from the loopback address, verified, converted once, run."""

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import jax
import loopback
import numpy as np
import pytest
import small
import torch

from fastfcn_jax import api, models
from fastfcn_jax.bench.__main__ import experiment_of
from fastfcn_jax.config import experiment
from fastfcn_jax.convert import backbone, fit
from fastfcn_jax.data import datasets
from fastfcn_jax.doctor import examine
from fastfcn_jax.errors import UserError
from fastfcn_jax.evaluation import evaluate, run
from fastfcn_jax.training import initial_weights
from fastfcn_jax.weights import fetch, local, registry, store
from fastfcn_jax.weights.__main__ import COMMAND

NARROW = {
    "base_width": small.WIDTH,
    "neck_channels": small.CHANNELS,
    "head_channels": small.CHANNELS,
    "auxiliary_channels": small.WIDTH,
}
ROOT = Path(__file__).parents[2]
CAMVID = ROOT.parent / "shared" / "data" / "camvid"
IMAGE = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Serves what `publish` puts there; configurations are narrow and the cache is empty."""
    load = experiment.load

    def narrow(spec):
        config = load(spec)
        config.model.update(NARROW)
        if config.model.lineage == "mmseg":
            config.model.backbone = "resnet18"
        config.eval.protocol = "single"
        config.data.test_scale = (96, 64)
        return config

    monkeypatch.setattr(experiment, "load", narrow)
    monkeypatch.setattr(fetch, "FIRST_PAUSE", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FASTFCN_OFFLINE", raising=False)
    monkeypatch.delenv("http_proxy", raising=False)
    with loopback.serving() as running:
        yield running


def stand_in(name: str) -> bytes:
    """A file with the names of the published one and narrow shapes."""
    config = experiment.load(name)
    info = datasets.info(config.data.name, "")
    variables = small.variables(config.model, info.num_classes)
    tensors = fit.to_tensors(variables, config.model.lineage, step=9)
    state = OrderedDict((n, torch.as_tensor(t)) for n, t in tensors.items())
    meta = {"CLASSES": info.class_names, "PALETTE": info.palette.tolist()}
    content = {"state_dict": state, "meta": meta}
    if config.model.lineage == "official":
        content = {"state_dict": state, "epoch": 80, "best_pred": np.float64(0.5)}
    return saved(content)


def saved(content) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def publish(monkeypatch, server, name: str, content: bytes, **changes) -> None:
    """Puts a file at the loopback address, and its address and checksum into the table."""
    entry = registry.ENTRIES[name]
    path = "/" + entry.address.rpartition("/")[2]
    server.files[path] = content
    checksum = "sha256:" + hashlib.sha256(content).hexdigest()[:8]
    own = entry._replace(address=server.address + path, **{"checksum": checksum, **changes})
    monkeypatch.setitem(registry.ENTRIES, name, own)


@pytest.mark.parametrize("name", ["jpu_psp_cityscapes:4x4", "dilated_enc_ade20k"])
def test_a_name_becomes_a_model_that_predicts(server, monkeypatch, name):
    content = stand_in(name)
    publish(monkeypatch, server, name, content)
    server.breaks = [len(content) // 2]
    model = api.load(name)
    if "jpu" in name:
        assert model(IMAGE).shape == (64, 96)
    info = datasets.info(model.config.data.name, "")
    assert model.info.class_names == info.class_names
    wanted = small.variables(model.config.model, info.num_classes)
    jax.tree.map(np.testing.assert_array_equal, model.variables, wanted)
    # Fetched and converted once, and found again without a network.
    asked = len(server.asked)
    monkeypatch.setenv("FASTFCN_OFFLINE", "1")
    assert store.checkpoint(name) == store.where(name).folder
    assert len(server.asked) == asked == 2


def test_commands_that_measure_and_check_take_names(server, monkeypatch, tmp_path):
    name = "jpu_psp_ade20k:160k"
    publish(monkeypatch, server, name, stand_in(name))
    measured = experiment_of(name)
    assert measured.model.num_classes == 150
    assert measured.train.steps == 160_000
    source = datasets.load("synthetic", "", "val")
    (finding,) = examine.fitting(store.checkpoint(name), source)
    assert finding.level == "problem"
    assert "has 150 classes" in finding.text
    # Scores of what was fetched do not vanish into the cache.
    monkeypatch.chdir(tmp_path)
    assert run.output_folder(name, store.checkpoint(name), "eval") == Path(
        "eval_jpu_psp_ade20k_160k"
    )
    assert run.output_folder("runs/a", Path("runs/a"), "eval") == Path("runs/a/eval")


def test_the_model_in_the_package_needs_no_network(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FASTFCN_OFFLINE", "1")
    model = api.load("camvid-small")
    assert model.info.class_names[3] == "Road"
    assert model(IMAGE).shape == (64, 96)
    assert COMMAND.main(["get", "camvid-small"]) == 0
    assert Path(capsys.readouterr().out.strip()).is_relative_to(tmp_path / "cache")
    file = store.where("camvid-small").file
    assert file.stat().st_size < 8 * 2**20
    assert "Brostow" in (file.parent / "README.md").read_text()


@pytest.mark.skipif(not CAMVID.is_dir(), reason="needs CamVid's photographs in shared/data")
def test_the_model_in_the_package_labels_real_photographs(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = api.load("camvid-small")
    source = datasets.load("camvid", str(CAMVID), "val")
    found = evaluate.evaluate(model.predictor, source, max_images=24, progress=False)
    assert found.metrics()["aAcc"] > 87  # 91.50 on all 101


def test_another_file_is_not_converted(server, monkeypatch):
    publish(monkeypatch, server, "jpu_psp_ade20k", b"something else", checksum="sha256:993d07c8")
    with pytest.raises(UserError, match="and not with 993d07c8"):
        store.get("jpu_psp_ade20k")
    place = store.where("jpu_psp_ade20k")
    place.file.write_bytes(b"put there by hand, and wrong")
    with pytest.raises(UserError, match="is not the published file: its sha256"):
        store.get("jpu_psp_ade20k")
    assert not place.is_here


@pytest.mark.slow
def test_a_file_put_there_by_hand_is_used(server, monkeypatch, capsys):
    """The official models have a page but no address; without a network it is the same for all."""
    name = "official_encnet_pcontext"
    with pytest.raises(UserError) as caught:
        store.get(name)
    place = store.where(name)
    assert f"save it as {place.file} and continue with `fastfcn weights get {name}`" in str(
        caught.value
    )
    place.file.parent.mkdir(parents=True)
    place.file.write_bytes(stand_in(name))
    assert COMMAND.main(["get", name]) == 0
    assert capsys.readouterr().out.strip() == str(place.folder)
    assert api.load(name).info.name == "pascal_context"
    assert server.asked == []


def test_offline_says_address_folder_and_command(server, monkeypatch, capsys):
    publish(monkeypatch, server, "jpu_psp_ade20k", b"")
    assert COMMAND.main(["get", "jpu_psp_ade20k", "--offline"]) == 2
    said = capsys.readouterr().err
    assert registry.ENTRIES["jpu_psp_ade20k"].address in said
    assert f"put it into {local.cache()} and continue with `fastfcn weights get" in said
    assert server.asked == []
    assert not local.cache().exists()


def imagenet(lineage: str) -> dict:
    """A backbone as the lineage's ImageNet file has it."""
    config = experiment.load("jpu_psp_ade20k" if lineage == "mmseg" else "official_psp_pcontext")
    tensors = fit.to_tensors(small.variables(config.model, 3), lineage)
    prefix = "backbone." if lineage == "mmseg" else "pretrained."
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return {n: torch.as_tensor(t) for n, t in own.items()}


def test_backbones_of_every_kind(server, monkeypatch, tmp_path):
    """A name, an address with its checksum, a file; each is the same backbone."""
    config = experiment.load("jpu_psp_ade20k")
    content = saved(imagenet("mmseg"))
    publish(monkeypatch, server, "resnet18_v1c", content)
    file = tmp_path / "own.pth"
    file.write_bytes(content)
    good = f"/r50-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    server.files |= {good: content, "/r50-00000000.pth": content}
    wanted = backbone.load(file, config.model).variables
    for words in ("resnet18_v1c", server.address + good, str(file)):
        loaded = backbone.load(store.backbone(words), config.model)
        jax.tree.map(np.testing.assert_array_equal, loaded.variables, wanted)
    with pytest.raises(UserError, match="and not with 00000000"):
        store.backbone(f"{server.address}/r50-00000000.pth")
    with pytest.raises(UserError, match=r"backbone=there/r50\.pth: there is no such file"):
        store.backbone("there/r50.pth")
    with pytest.raises(UserError, match="did you mean resnet18_v1c"):
        store.backbone("resnet18v1c")
    with pytest.raises(UserError, match=r"train with --config\.init\.backbone=resnet18_v1c"):
        store.get("resnet18_v1c")


def test_training_starts_from_names(server, monkeypatch):
    config = experiment.load("jpu_psp_ade20k")
    publish(monkeypatch, server, "resnet18_v1c", saved(imagenet("mmseg")))
    config.init.backbone = "resnet18_v1c"
    drawn = {"params": {"backbone": {}}, "batch_stats": {}}
    monkeypatch.setattr(initial_weights, "random_variables", lambda model, seed, channels: drawn)
    info = datasets.info("ade20k", "")
    model = models.build(config.model, info.num_classes)
    variables, notes = initial_weights.variables(config, model, info)
    assert notes == ["initial backbone: resnet18_v1c"]
    assert "layer4_1" in variables["params"]["backbone"]


def test_a_random_start_names_weights_that_would_fit(server, monkeypatch):
    config = experiment.load("jpu_psp_ade20k")
    monkeypatch.setattr(initial_weights, "random_variables", lambda model, seed, channels: {})
    info = datasets.info("ade20k", "")
    _, notes = initial_weights.variables(config, models.build(config.model, 3), info)
    assert notes == ["initial weights: random"]  # nobody publishes narrow ones
    config.model.update(base_width=64, stem="plain")
    _, (note,) = initial_weights.variables(config, models.build(config.model, 3), info)
    assert note.endswith("--config.init.backbone=resnet18_v1")


def test_paddlesegs_model_has_its_publishers_names_too():
    entry = registry.find("fastfcn_resnet50_os8_ade20k_480x480_120k")
    assert entry == registry.find("paddleseg/fastfcn_resnet50_os8_ade20k_480x480_120k")
    assert entry.name == entry.config == "paddleseg_fastfcn_ade20k"
    assert entry.address.endswith("/fastfcn_resnet50_os8_ade20k_480x480_120k/model.pdparams")
    fitting = registry.fitting(experiment.load(entry.config).model)
    assert {"paddle/ResNet50_vd", "resnet50_v1d"} <= set(fitting)
    assert "resnet50_official" not in fitting


def test_the_official_backbone_is_extracted_from_its_archive(server, monkeypatch):
    content = saved(imagenet("official"))
    name = registry.ENTRIES["resnet50_official"].file
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as entries:
        entries.writestr(name, content)
    sha1 = "sha1:" + hashlib.sha1(content).hexdigest()[:8]
    publish(monkeypatch, server, "resnet50_official", archive.getvalue(), checksum=sha1)
    path = store.backbone("resnet50-ebb6acbb.pth")  # as the official code calls it
    assert path.read_bytes() == content
    assert not path.with_suffix(".zip").exists()
    backbone.load(path, experiment.load("official_psp_pcontext").model)
    path.unlink()
    publish(monkeypatch, server, "resnet50_official", b"PK no archive", checksum=sha1)
    with pytest.raises(UserError, match="is not a zip archive that contains resnet50-ebb6acbb"):
        store.backbone("resnet50_official")


def test_checkpoints_that_are_not_names(server, tmp_path):
    assert store.checkpoint(tmp_path) == tmp_path
    with pytest.raises(UserError, match="did you mean jpu_psp_cityscapes:4x4"):
        store.checkpoint("jpu_psp_cityscapes:4x5")
    with pytest.raises(UserError, match="runs/none is not a checkpoint folder"):
        api.load("runs/none")


def test_the_command_as_it_is_typed(tmp_path):
    command = [sys.executable, "-m", "fastfcn_jax", "weights", "get", "jpu_psp_cityscapes"]
    environment = {**os.environ, "FASTFCN_OFFLINE": "1", "XDG_CACHE_HOME": str(tmp_path)}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.startswith("error: https://download.openmmlab.com/mmsegmentation/")
    assert len(run.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_list_and_where(server, capsys):
    assert COMMAND.main(["list"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 1 + len(registry.ENTRIES)
    assert any(row.split()[:3] == ["jpu_psp_cityscapes", "79.26", "80.86"] for row in rows)
    assert COMMAND.main(["where", "jpu_psp_cityscapes"]) == 0
    said = capsys.readouterr().out
    assert "sha256:57749bed" in said
    assert "(not yet here)" in said
    assert COMMAND.main(["where", "timm/resnet50d"]) == 0
    said = capsys.readouterr().out
    assert "address   hf://timm/resnet50d.ra2_in1k/model.safetensors" in said
    assert "--config.model.stem=deep --config.model.average_downsample=True" in said
    assert COMMAND.main(["fetch"]) == 2
