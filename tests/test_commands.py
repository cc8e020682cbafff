"""Documented commands that no other test runs, each in its own process."""

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest
import small

from fastfcn_jax import demo
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.data import cache, datasets

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


def run(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train.py", "--config", "configs/demo.py", "config.optim.lr=5"],
            "config.optim.lr=5: is not a flag; write --config.optim.lr=5.",
        ),
        (
            ["-m", "fastfcn_jax.predict", "--input", "a.jpg", "b.jpg", "--output", "out"],
            "b.jpg: belongs to no flag; write --FLAG=b.jpg, and put file patterns in quotes.",
        ),
        (
            ["eval.py", "--checkpoint", "DIR", "--config.data.root=x"],
            "--config.data.root: changes a configuration; give --config FILE as well.",
        ),
    ],
)
def test_words_that_a_command_does_not_use_are_refused(arguments, message):
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, f"error: {message}\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A checkpoint folder of a narrow PSP model with Cityscapes' classes."""
    config = small.config("psp", "jpu")
    config.data.test_scale = (96, 64)
    path = tmp_path_factory.mktemp("model") / "psp"
    card = model_folder.model_card(config, datasets.info("cityscapes", ""), {})
    model_folder.save_model(path, small.variables(config.model, 19), card)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photos")
    demo.write_photographs(path, count=2)
    return path


@pytest.fixture(scope="module")
def exported(folder, photos, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("exported") / "model.onnx"
    said = run(
        *("fastfcn_jax.export", "--checkpoint", folder, "--format", "onnx"),
        *("--size", "64", "96", "--output", file, "--image", next(photos.iterdir())),
    )
    assert "of the labels are equal" in said
    assert re.search(r"the file \S+ s, our own inference \S+ s: \S+ times as fast", said)
    return file


def test_predict_runs_what_export_writes(exported, photos, tmp_path):
    run("fastfcn_jax.predict", "--model", exported, "--input", photos, "--output", tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*_overlay.png"))) == 2


@pytest.mark.parametrize("flag", ["--checkpoint", "--model"])
def test_serve_answers_at_the_address_it_prints(flag, folder, exported, photos):
    model = str(folder if flag == "--checkpoint" else exported)
    command = [sys.executable, "-m", "fastfcn_jax.serve", flag, model, "--port=0"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().split()[0]
        photo = next(photos.iterdir())
        request = urllib.request.Request(f"{address}/v1/predict", photo.read_bytes())
        with urllib.request.urlopen(request, timeout=120) as reply:
            answer = json.load(reply)
    finally:
        server.terminate()
        assert server.wait(60) == 0
    height, width = cv2.imread(str(photo)).shape[:2]
    assert (answer["height"], answer["width"]) == (height, width)
    assert sum(entry["share"] for entry in answer["classes"]) == pytest.approx(100, abs=0.1)


def test_submit_writes_a_zip_and_says_what_is_missing(folder, photos, tmp_path):
    images = tmp_path / "berlin"
    images.mkdir()
    for number, photo in enumerate(photos.iterdir()):
        name = f"berlin_{number:06}_000019_leftImg8bit.png"
        (images / name).write_bytes(photo.read_bytes())
    command = [sys.executable, "-m", "fastfcn_jax.submit", "cityscapes", "--checkpoint", folder]
    command += ["--images", tmp_path, "--output", tmp_path / "out.zip"]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "2 test images are here, the server has 1525" in done.stdout
    assert (tmp_path / "out.zip").is_file()
    command[-1] = tmp_path / "absent" / "out.zip"
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "out.zip: give the name of a file in a folder that exists." in done.stderr
    assert "Traceback" not in done.stderr


def test_the_configuration_that_the_doctor_writes_can_be_shown_and_compared(photos, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(6):
        photo = rng.integers(0, 256, (64, 96, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"p{number}.jpg"), photo)
        label = np.zeros_like(photo)
        label[: 20 + number] = (200, 0, 0)
        label[40:] = (0, 0, 200)
        cv2.imwrite(str(tmp_path / f"p{number}_mask.png"), label)
    said = run("fastfcn_jax.doctor", "--folder", tmp_path)
    assert "6 photos with a label each" in said
    config = re.search(r"--config (\S+\.py):small ", said)[1]
    assert "data.name = 'folder'" in run("fastfcn_jax.config", "show", f"{config}:small")
    shown = run("fastfcn_jax.config", "diff", config, f"{config}:small")
    assert "model.backbone: 'resnet50' -> 'resnet18'" in shown


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """Three training photographs and one to score in CamVid's layout, each of one class."""
    folder = tmp_path_factory.mktemp("raw")
    for split, count in (("train", 3), ("val", 1)):
        for number in range(count):
            for part, value in ((split, 90), (f"{split}annot", 3)):
                (folder / part).mkdir(parents=True, exist_ok=True)
                shape = (40, 60, 3) if value == 90 else (40, 60)
                cv2.imwrite(str(folder / part / f"{number}.png"), np.full(shape, value, np.uint8))
    return folder


def test_prepare_writes_a_data_root_that_loads(raw, tmp_path):
    output = tmp_path / "prepared"
    run("fastfcn_jax.data.prepare", "--name", "camvid", "--root", raw, "--output", output)
    source = datasets.load("camvid", str(output), "train")
    assert len(source) == 3
    assert (source[0].label == 3).all()


def test_training_opens_a_cache_that_was_built_before(raw, tmp_path):
    said = run("fastfcn_jax.data.cache", "--name", "camvid", "--root", raw, "--output", tmp_path)
    (pixels,) = tmp_path.glob("*/pixels.bin")
    assert f"3 images in {pixels.parent}" in said
    written = pixels.stat().st_mtime_ns
    cached = cache.open_or_build(str(tmp_path), datasets.load("camvid", str(raw), "train"))
    assert cached.path == str(pixels)
    assert pixels.stat().st_mtime_ns == written
    assert (cached[2].label == 3).all()


def test_eval_refuses_bad_flags_before_it_starts(raw, tmp_path):
    config = small.config("psp", "jpu", data="camvid", backbone="resnet18")
    config.data.root = str(raw)
    card = model_folder.model_card(config, datasets.info("camvid", ""), {})
    folder = tmp_path / "model"
    model_folder.save_model(folder, small.variables(config.model, 11), card)

    def errors(*arguments):
        command = [sys.executable, "eval.py", "--checkpoint", str(folder), *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        return done.stderr

    words = "the folder cannot be written (File exists); give another."
    assert errors("--output", "LICENSE") == f"error: --output LICENSE: {words}\n"
    card["dataset"]["class_names"].reverse()
    (folder / "model.json").write_text(json.dumps(card))
    assert "was trained on the classes of camvid in another order" in errors()
    assert not (folder / "eval").exists()
