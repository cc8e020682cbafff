"""The commands as a user types them, on real photographs, including an interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
TINY = [
    "--config.model.backbone=resnet18",
    "--config.model.base_width=8",
    "--config.model.neck_channels=8",
    "--config.model.head_channels=8",
    "--config.model.auxiliary_channels=8",
    "--config.data.crop_size=(64, 96)",
    "--config.train.batch_size=2",
    "--config.train.log_every=2",
    "--config.eval.max_images=2",
]


def run(*arguments: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )


def logged_steps(workdir: Path) -> list[int]:
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [record["step"] for record in records if "loss" in record]


@pytest.fixture(scope="module")
def camvid(shared_data, tmp_path_factory) -> Path:
    """Twelve training and three validation photographs in CamVid's layout."""
    root = tmp_path_factory.mktemp("camvid")
    for split, count in (("train", 12), ("val", 3)):
        lines = (shared_data / "camvid" / f"{split}.txt").read_text().splitlines()[:count]
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n")
        for name in (name for line in lines for name in line.split()):
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).symlink_to(shared_data / "camvid" / name)
    return root


@pytest.fixture(scope="module")
def trained(camvid, tmp_path_factory) -> tuple[Path, str]:
    """A run that was interrupted with Ctrl-C after a few steps, resumed and finished."""
    workdir = tmp_path_factory.mktemp("run")
    command = [
        *("train.py", "--config", "configs/jpu_psp_camvid.py", "--workdir", workdir),
        f"--config.data.root={camvid}",
        *TINY,
        "--config.train.steps=40",
        "--config.train.eval_every=40",
        "--config.train.save_every=1000",
    ]
    first = subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    deadline = time.monotonic() + 300
    while not logged_steps(workdir) and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    output = first.communicate(timeout=120)[0]
    assert first.returncode == 130, output
    assert "train.py" in output.splitlines()[-1], "the command that resumes is printed last"
    interrupted_at = logged_steps(workdir)[-1]
    assert interrupted_at < 40, "the interrupt came too late to test anything"
    second = run(*command)
    assert second.returncode == 0, second.stderr
    return workdir, second.stdout + second.stderr


def test_an_interrupted_run_resumes_where_it_stopped(trained):
    workdir, _ = trained
    assert logged_steps(workdir) == sorted(set(logged_steps(workdir)))
    assert logged_steps(workdir)[-1] == 40
    assert (workdir / "run.json").is_file()
    assert (workdir / "model.json").is_file()
    assert list((workdir / "tensorboard").iterdir())


def test_training_prints_the_cost_of_its_evaluation(trained):
    assert "protocol single: " in trained[1]
    assert "2 images" in trained[1]
    assert "1 program to compile" in trained[1]


def test_replay_reproduces_the_logged_steps(trained):
    result = run("-m", "fastfcn_jax.replay", trained[0], "--start", "0", "--steps", "2")
    assert result.returncode == 0, result.stderr
    assert "2 steps from step 0 are bit-identical" in result.stdout


def test_eval_prints_a_class_table_and_writes_scores_that_report_compares(trained, tmp_path):
    result = run("eval.py", "--checkpoint", trained[0], "--output", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Pedestrian" in result.stdout
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["num_images"] == 3
    assert metrics["protocol"] == "single"
    assert len(metrics["per_class"]) == 11
    assert 0 < metrics["mIoU"] < 100
    # The training's last validation and this evaluation are of the same step.
    page = tmp_path / "page.html"
    result = run("-m", "fastfcn_jax", "report", trained[0], tmp_path, "--output", page)
    assert result.returncode == 0, result.stderr
    assert "that on 2 common images" in result.stdout
    assert "+0.00 (+0.00 to +0.00)" in page.read_text()
    assert "Pedestrian" in page.read_text()


def test_predict_writes_labels_and_overlays_of_the_photographs_size(trained, camvid, tmp_path):
    result = run(
        *("-m", "fastfcn_jax.predict", "--checkpoint", trained[0]),
        *("--input", camvid / "val", "--output", tmp_path, "--save-logits"),
    )
    assert result.returncode == 0, result.stderr
    for photo in (camvid / "val").iterdir():
        labels = np.array(Image.open(tmp_path / f"{photo.stem}.png"))
        logits = np.load(tmp_path / f"{photo.stem}.npy")
        overlay = cv2.imread(str(tmp_path / f"{photo.stem}_overlay.png"))
        assert labels.shape == (360, 480)
        assert overlay.shape[:2] == (360, 480)
        assert (logits.shape, logits.dtype) == ((360, 480, 11), np.float32)
        np.testing.assert_array_equal(logits.argmax(-1), labels)


def test_cityscapes_frames_train(shared_data, tmp_path):
    result = run(
        *("train.py", "--config", "configs/jpu_psp_cityscapes.py", "--workdir", tmp_path),
        f"--config.data.root={shared_data / 'cityscapes'}",
        *TINY,
        "--config.train.steps=4",
    )
    assert result.returncode == 0, result.stderr
    assert logged_steps(tmp_path) == [2, 4]


@pytest.fixture(scope="module")
def backbone_file(tmp_path_factory) -> tuple[Path, dict]:
    """A ResNet-18 in PyTorch's format, and its tensors under our names."""
    import small
    import torch

    from fastfcn_jax.config import experiment
    from fastfcn_jax.convert import mmseg_names

    model = experiment.load("configs/demo.py").model
    model.update(base_width=8, neck_channels=8, head_channels=8, auxiliary_channels=8)
    params = small.variables(model, 9)
    tensors = {
        name.removeprefix("backbone."): torch.tensor(tensor)
        for name, tensor in mmseg_names.from_flax(params).items()
        if name.startswith("backbone.")
    }
    file = tmp_path_factory.mktemp("backbone") / "resnet18.pth"
    torch.save({"state_dict": tensors, "meta": {}}, file)
    return file, params["params"]["backbone"]


def test_training_starts_from_the_weights_of_a_backbone_file(backbone_file, tmp_path):
    from fastfcn_jax.checkpoints import model_folder

    file, backbone = backbone_file
    command = [
        *("train.py", "--config", "configs/demo.py", "--workdir", tmp_path / "run", *TINY),
        *(f"--config.init.backbone={file}", "--config.optim.lr=0.0", "--config.optim.end_lr=0.0"),
    ]
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = iter(process.stdout.readline, "")
    assert any(line.startswith(f"initial backbone: {file}") for line in lines)
    process.send_signal(signal.SIGTERM)  # before the first step, which is then not compiled
    process.communicate(timeout=120)
    assert process.returncode == 143
    found = model_folder.load_model(tmp_path / "run").variables["params"]["backbone"]
    np.testing.assert_equal(found, backbone)


def test_a_backbone_file_of_another_network_gives_one_sentence(backbone_file, tmp_path):
    result = run(
        *("train.py", "--config", "configs/demo.py", "--workdir", tmp_path / "run", *TINY),
        f"--config.init.backbone={backbone_file[0]}",
        "--config.model.backbone=resnet34",
    )
    assert result.returncode == 2
    expected = (
        f"error: {backbone_file[0]}: the file's backbone is resnet18, and config.model.backbone is "
        "resnet34; --config.model.backbone=resnet18 takes the file as it is."
    )
    assert result.stderr.strip() == expected
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_missing_data_root_gives_one_sentence(tmp_path):
    result = run(
        *("train.py", "--config", "configs/jpu_psp_camvid.py", "--workdir", tmp_path / "w"),
        f"--config.data.root={tmp_path / 'absent'}",
    )
    assert result.returncode == 2
    assert str(tmp_path / "absent") in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "w" / "checkpoints").exists()
