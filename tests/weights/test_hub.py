"""Folders in the Hugging Face hub's format: written, read, uploaded and downloaded with a mock."""

import json
import shutil
import sys
import types

import jax
import numpy as np
import pytest
import small
import yaml

from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.config import experiment
from fastfcn_jax.convert import convert
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.errors import UserError
from fastfcn_jax.export.__main__ import COMMAND
from fastfcn_jax.weights import card, hub, store

pytestmark = pytest.mark.slow
METRICS = {"mIoU": 41.25, "mAcc": 52.5, "aAcc": 80.75, "protocol": "single", "num_images": 3}
PER_CLASS = {"per_class": {"road": {"IoU": 61.25, "Acc": None}}}
NAMES = ("road", "side|walk", "großes Gebäude")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FASTFCN_OFFLINE", raising=False)


@pytest.fixture(scope="module", params=["mmseg", "official"])
def trained(request, tmp_path_factory):
    """A checkpoint folder with an evaluation in it."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    if request.param == "mmseg":
        config = small.config("enc", "jpu", backbone="resnet18")
    else:
        plain = {"stem": "plain", "average_downsample": True}
        config = small.config("psp", "jpu_x", "official", **plain)
    config.published.update(miou=40.88, source="a page")
    config.data.update(name="folder", root="/home/someone/photos")
    config.init.backbone = "/home/someone/r50.pth"
    info = DatasetInfo("folder", NAMES, np.arange(9, dtype=np.uint8).reshape(3, 3))
    card = model_folder.model_card(config, info, {"jax": "0"})
    model_folder.save_model(folder, small.variables(config.model, 3), card, step=700)
    (folder / "eval").mkdir()
    (folder / "eval" / "metrics.json").write_text(json.dumps(METRICS | PER_CLASS))
    return folder


@pytest.fixture(scope="module")
def written(trained, tmp_path_factory):
    return hub.write(trained, tmp_path_factory.mktemp("hub") / "my-model", licence="mit")


def test_half_the_bytes_for_kernels_and_all_for_statistics(trained, tmp_path):
    half = hub.write(trained, tmp_path / "half", half=True)
    size = (half / hub.WEIGHTS).stat().st_size
    whole = hub.write(trained, tmp_path / "whole")
    assert size < 0.56 * (whole / hub.WEIGHTS).stat().st_size
    wanted = model_folder.load_model(trained).variables
    found = hub.read(half).variables

    def check(ours, original):
        assert ours.dtype == np.float32
        kernel = original.ndim > 1
        rounded = original.astype(np.float16).astype(np.float32) if kernel else original
        np.testing.assert_array_equal(ours, rounded)

    jax.tree.map(check, found, dict(wanted))


def test_a_folder_comes_back_bit_for_bit(trained, written):
    assert sorted(path.name for path in written.iterdir()) == sorted(
        ["README.md", "config.json", "model.safetensors"]
    )
    wanted = model_folder.load_model(trained)
    again = model_folder.load_model(store.checkpoint(written))
    jax.tree.map(np.testing.assert_array_equal, again.variables, wanted.variables)
    assert again.config.model == wanted.config.model
    assert experiment.differences(again.config, wanted.config) == [
        ("data.root", "", "/home/someone/photos"),  # not for publication
        ("init.backbone", "", "/home/someone/r50.pth"),
    ]
    assert again.info.class_names == NAMES
    np.testing.assert_array_equal(again.info.palette, wanted.info.palette)
    assert again.step == 700
    card, trained_card = map(model_folder.read_card, (store.checkpoint(written), trained))
    del card["config"], trained_card["config"]
    assert card == trained_card  # preprocessing, versions
    assert store.checkpoint(written) == store.checkpoint(str(written))


def test_the_weights_are_a_state_dict_of_the_lineage(trained, written):
    """PyTorch users and `convert` can read the file on its own."""
    converted = convert.read(written / "model.safetensors")
    wanted = model_folder.load_model(trained)
    jax.tree.map(np.testing.assert_array_equal, converted.variables, wanted.variables)
    assert converted.config.model.to_dict() == wanted.config.model.to_dict()


def test_the_card_says_what_the_hub_and_a_reader_ask(written):
    text = (written / "README.md").read_text("utf-8")
    _, head, body = text.split("---\n", 2)
    said = yaml.safe_load(head)
    assert (said["license"], said["library_name"]) == ("mit", "fastfcn_jax")
    assert said["pipeline_tag"] == "image-segmentation"
    (result,) = said["model-index"][0]["results"]
    assert {m["type"]: m["value"] for m in result["metrics"]} == {
        "mean_iou": 41.25,
        "mean_accuracy": 52.5,
        "overall_accuracy": 80.75,
    }
    assert "mIoU 41.25" in body
    assert "a page" in body
    assert "| 0 | road | (0, 1, 2) | 61.2 | - |" in body
    assert "| 1 | side/walk | (3, 4, 5) | - | - |" in body  # a bar would end the table cell
    config = json.loads((written / "config.json").read_text())
    assert config["id2label"]["2"] == "großes Gebäude"
    assert config["preprocessing"]["channels"] == "RGB"
    assert config["dataset"]["palette"][2] == [6, 7, 8]


def test_the_card_tells_the_training_without_private_paths(tmp_path):
    assert card.read_training(tmp_path) == ""
    command = (
        "python train.py --config a.py --config.data.root='/home/me/my data' "
        "--config.init.backbone=/home/me/r.pth --config.optim.lr=0.1 --workdir /home/me/run"
    )
    run = {"data": {"name": "camvid", "samples": 367}, "starts": [{"command": command}, {}]}
    (tmp_path / "run.json").write_text(json.dumps(run))
    text = card.read_training(tmp_path)
    assert "On 367 images of camvid" in text
    assert (
        "python train.py --config a.py --config.data.root=DIR --config.init.backbone=DIR "
        "--config.optim.lr=0.1 --workdir DIR\n"
    ) in text
    assert "/home" not in text


def test_the_command_writes_and_refuses(trained, tmp_path, capsys):
    there = ["--checkpoint", str(trained), "--format", "hub"]
    assert COMMAND.main([*there, "--output", str(tmp_path / "a")]) == 0
    assert hub.is_hub_folder(tmp_path / "a")
    assert "license: unknown" in (tmp_path / "a" / "README.md").read_text()
    assert COMMAND.main([*there, "--output", str(tmp_path / "a")]) == 2
    metrics = ["--metrics", str(tmp_path / "none.json")]
    assert COMMAND.main([*there, "--output", str(tmp_path / "b"), *metrics]) == 2
    assert COMMAND.main([*there[:3], "onnx", "--output", str(tmp_path / "b.onnx")]) == 2
    said = capsys.readouterr().err
    assert "already exists" in said
    assert "none.json: is not a metrics.json" in said
    assert "--size is missing" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), "another kind"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda f: (f / "config.json").write_text('{"model_type": "fastfcn_jax"}'), "lacks"),
        (lambda f: (f / "model.safetensors").write_bytes(b"PK"), "not a complete .safetensors"),
    ],
)
def test_folders_that_are_damaged(written, tmp_path, change, message):
    folder = tmp_path / "copy"
    shutil.copytree(written, folder)
    change(folder)
    with pytest.raises(UserError, match=message):
        store.checkpoint(folder)


@pytest.fixture
def library(monkeypatch, written):
    """Stands in for huggingface_hub: one repository, me/my-model, and a record of what is asked."""

    class HubError(OSError):
        pass

    asked = []

    def hf_hub_download(repo_id, filename, *, local_files_only=False):
        asked.append((repo_id, filename, local_files_only))
        if repo_id != "me/my-model":
            raise HubError(f"404 Client Error.\n\nRepository Not Found for {repo_id}")
        return str(written / filename)

    class HfApi:
        def create_repo(self, repo_id, *, private, exist_ok):
            asked.append(("create", repo_id, private))

        def upload_folder(self, *, repo_id, folder_path, allow_patterns):
            asked.append(("upload", repo_id, folder_path))
            return f"https://hub.example/{repo_id}"

    errors = types.SimpleNamespace(HfHubHTTPError=HubError, LocalEntryNotFoundError=HubError)
    module = types.SimpleNamespace(hf_hub_download=hf_hub_download, HfApi=HfApi)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    return asked


def test_addresses_of_the_hub(library, written, trained, monkeypatch):
    folder = store.checkpoint("hf://me/my-model")
    wanted = model_folder.load_model(trained)
    got = model_folder.load_model(folder)
    jax.tree.map(np.testing.assert_array_equal, got.variables, wanted.variables)
    assert store.backbone("hf://me/my-model/other.safetensors") == written / "other.safetensors"
    assert store.backbone("hf://me/my-model") == written / "model.safetensors"
    assert not any(local for *_, local in library)
    monkeypatch.setenv("FASTFCN_OFFLINE", "1")
    store.backbone("hf://me/my-model")
    assert library[-1] == ("me/my-model", "model.safetensors", True)
    with pytest.raises(UserError, match=r"hf://me/none/config\.json: .*Repository Not Found"):
        store.checkpoint("hf://me/none")


def test_timms_names_come_through_the_hub_and_from_its_cache(library, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    by_hand = r"save it as .*/timm_resnet18d\.ra2_in1k\.safetensors and continue"
    with pytest.raises(UserError, match=by_hand):
        store.backbone("timm/resnet18d")
    assert library == [("timm/resnet18d.ra2_in1k", "model.safetensors", False)]
    snapshot = tmp_path / "hf" / "hub" / "models--timm--resnet18d.ra2_in1k" / "snapshots" / "0f2e"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"weights")
    assert store.where("timm/resnet18d").is_here
    assert store.backbone("timm/resnet18d") == snapshot / "model.safetensors"
    assert len(library) == 1


def test_sending(library, written):
    assert hub.push(written, "me/my-model") == "https://hub.example/me/my-model"
    assert library == [
        ("create", "me/my-model", True),
        ("upload", "me/my-model", str(written)),
    ]
    with pytest.raises(UserError, match="export --format hub"):
        hub.push(written.parent, "me/my-model")


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'fastfcn-jax\[hub\]'"):
        store.checkpoint("hf://me/my-model")


def test_the_real_packages_functions_take_what_we_pass():
    """The real functions must accept the arguments that the mock above accepts."""
    import inspect

    library = pytest.importorskip("huggingface_hub")
    inspect.signature(library.hf_hub_download).bind("a/b", "c", local_files_only=True)
    inspect.signature(library.HfApi.create_repo).bind(None, "a/b", private=True, exist_ok=True)
    inspect.signature(library.HfApi.upload_folder).bind(
        None, repo_id="a/b", folder_path="c", allow_patterns=["d"]
    )
    assert issubclass(library.errors.HfHubHTTPError, Exception)
    assert issubclass(library.errors.LocalEntryNotFoundError, Exception)
