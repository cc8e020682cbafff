"""The predict command on a small model: every kind of input and output, and damaged files."""

import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import jax
import numpy as np
import PIL.Image
import pytest
from jax import numpy as jnp

from fastfcn_jax import api, models, pictures
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.config.base import get_config
from fastfcn_jax.data import decode
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.errors import UserError
from fastfcn_jax.inference.tiles import tile_sizes, tiles
from fastfcn_jax.predict import inputs, png_strips, video

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
INFO = DatasetInfo("toy", ("sky", "road", "car"), np.eye(3, dtype=np.uint8) * 255)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint folder of a tiny random model."""
    config = get_config()
    config.model.update(
        backbone="resnet18", base_width=8, neck_channels=8, head_channels=8, auxiliary=False
    )
    config.data.test_scale = (96, 64)
    model = models.build(config.model, 3)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    rng = np.random.default_rng(0)

    def draw(shape):
        if len(shape) == 4:
            return rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:3]))
        return rng.uniform(0.5, 1.5, shape)

    variables = jax.tree.map(lambda leaf: draw(leaf.shape).astype(np.float32), shapes)
    path = tmp_path_factory.mktemp("model")
    model_folder.save_model(path, variables, model_folder.model_card(config, INFO, {}), step=0)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two photographs of different sizes, a truncated one, and a text file."""
    path = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, (height, width) in {"a.png": (70, 90), "b.jpg": (60, 101)}.items():
        coarse = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
        cv2.imwrite(str(path / name), cv2.resize(coarse, (width, height)))
    data = (path / "a.png").read_bytes()
    (path / "broken.png").write_bytes(data[: len(data) // 2])
    (path / "notes.txt").write_text("no picture")
    return path


def run(*arguments, **kwargs):
    command = [sys.executable, "-m", "fastfcn_jax.predict", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=300, **kwargs)


def read(path):
    with PIL.Image.open(path) as picture:  # OpenCV would give a palette's colours
        return np.array(picture)


def test_a_folder_with_a_broken_file_is_done_as_far_as_it_goes(folder, photos, tmp_path):
    result = run(
        *("--checkpoint", folder, "--input", photos, "--output", tmp_path),
        *("--save-logits", "--confidence", "--legend"),
    )
    assert result.returncode == 1, result.stderr
    assert b"broken.png" in result.stderr
    assert b"Traceback" not in result.stderr
    assert b"2 of 3 images" in result.stdout
    assert b"protocol single: each image scaled to fit 96x64" in result.stdout
    assert b"3 images, 3 passes" in result.stdout, "the broken one has a header"
    model = api.load(folder)
    for name, size in {"a.png": (70, 90), "b.jpg": (60, 101)}.items():
        stem = name[0]
        labels = read(tmp_path / f"{stem}.png")
        assert labels.shape == size
        assert (labels == model(photos / name)).mean() > 0.999
        logits = np.load(tmp_path / f"{stem}.npy")
        assert (logits.shape, logits.dtype) == ((*size, 3), np.float32)
        assert (logits.argmax(-1) == labels).mean() > 0.999
        odds = np.exp(logits - logits.max(-1, keepdims=True))
        sure = read(tmp_path / f"{stem}_confidence.png")
        np.testing.assert_allclose(sure, 255 / odds.sum(-1), atol=1.5)
        drawn = read(tmp_path / f"{stem}_overlay.png")
        assert drawn.shape[1] == size[1]
        assert drawn.shape[0] > size[0], "the legend is below"
    assert not list(tmp_path.glob("broken*"))
    assert not list(tmp_path.glob(".*")), "temporary files are gone"


def test_standard_input_and_tiles(folder, photos, tmp_path):
    result = run(
        *("--checkpoint", folder, "--input", "-", "--output", tmp_path, "--tile", "64"),
        input=(photos / "a.png").read_bytes(),
    )
    assert result.returncode == 0, result.stderr
    assert read(tmp_path / "stdin.png").shape == (70, 90)
    assert read(tmp_path / "stdin_overlay.png").shape == (70, 90, 3)


def test_a_video_gives_a_video_and_a_label_map_a_frame(folder, tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
    source = tmp_path / "drive.avi"
    sink = cv2.VideoWriter(str(source), cv2.VideoWriter.fourcc(*"MJPG"), 5.0, (96, 64))
    for frame in frames:
        sink.write(frame)
    sink.release()
    result = run(
        *("--checkpoint", folder, "--input", source, "--output", tmp_path / "out"),
        *("--legend", "--confidence"),
    )
    assert result.returncode == 0, result.stderr
    overlays = video.Video(tmp_path / "out" / "drive_overlay.mp4")
    assert [frame.shape for frame in overlays] == [(64 + 44, 96, 3)] * 3
    assert read(tmp_path / "out" / "drive" / "000002_confidence.png").shape == (64, 96)
    model = api.load(folder)
    for i, frame in enumerate(video.Video(source)):
        labels = read(tmp_path / "out" / "drive" / f"{i:06d}.png")
        assert (labels == model(frame)).mean() > 0.999


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--input", "absent.jpg"), "absent.jpg"),
        (("--input", "tests", "--checkpoint", "nowhere"), "no image"),
        (("--input", "LICENSE", "--checkpoint", "nowhere"), "nowhere"),
        (("--input", "-", "--tile", "64", "--protocol", "official"), "own resolution"),
    ],
)
def test_bad_arguments_give_one_sentence(folder, tmp_path, arguments, words):
    result = run("--checkpoint", folder, "--output", tmp_path / "out", *arguments)
    assert result.returncode == 2
    assert words in result.stderr.decode()
    assert b"Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["", "a.png"])
def test_a_photograph_is_never_overwritten(folder, photos, tmp_path, name):
    own = Path(shutil.copytree(photos, tmp_path / "own"))
    result = run("--checkpoint", folder, "--input", own / name, "--output", own)
    assert result.returncode == 2
    assert f"{own}/a.png is among --input and would be overwritten" in result.stderr.decode()
    assert {p.name: p.read_bytes() for p in own.iterdir()} == {
        p.name: p.read_bytes() for p in photos.iterdir()
    }


def test_a_tree_of_photographs_gives_a_tree(folder, photos, tmp_path):
    (tmp_path / "in" / "x").mkdir(parents=True)
    shutil.copy(photos / "a.png", tmp_path / "in" / "x")
    for _ in range(2):  # the second time, the tree contains its results
        result = run(
            "--checkpoint", folder, "--input", tmp_path / "in", "--output", tmp_path / "in" / "out"
        )
        assert result.returncode == 0, result.stderr
        assert b"1 of 1 images" in result.stdout
    assert read(tmp_path / "in" / "out" / "x" / "a.png").shape == (70, 90)


def test_a_file_is_no_output_folder(folder, photos, tmp_path):
    (tmp_path / "out").write_text("kept")
    source = photos / "a.png"
    result = run("--checkpoint", folder, "--input", source, "--output", tmp_path / "out")
    assert result.returncode == 2
    assert b"the folder cannot be written (File exists); give another." in result.stderr
    assert b"Traceback" not in result.stderr
    assert (tmp_path / "out").read_text() == "kept"


def test_sub_folders_are_looked_into_and_kept(tmp_path, capsys):
    for name in ("a.png", "x/one.png", "x/two.jpg", "x/y/a.png", "out/a.png", "clip.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = inputs.find(str(tmp_path), tmp_path / "out")
    stems = [photo.stem for photo in found]
    assert stems == ["a", "out/a", "x/one", "x/two", "x/y/a"]
    assert "1 videos are left out" in capsys.readouterr().out
    for name in ("a_overlay.png", "b.jpg", "b_overlay.png"):
        (tmp_path / "out" / name).touch()
    again = inputs.find(str(tmp_path), tmp_path / "out")
    assert [photo.stem for photo in again] == ["a", "out/b", *stems[2:]], "results are left out"
    (tmp_path / "videos").mkdir()
    (tmp_path / "clip.mp4").rename(tmp_path / "videos" / "clip.mp4")
    with pytest.raises(
        UserError, match=r"no image .*; give a video by its own name: --input \S+clip.mp4"
    ):
        inputs.find(str(tmp_path / "videos"))
    with pytest.raises(UserError, match="no such image"):
        inputs.find(str(tmp_path / "*.webp"))


@pytest.mark.parametrize(("length", "tile", "margin"), [(100, 32, 4), (64, 64, 8), (20, 64, 8)])
def test_tiles_keep_every_pixel_once_and_away_from_cut_edges(length, tile, margin):
    covered = np.zeros(length, int)
    for (start, stop), (first, last) in tiles(length, tile, margin):
        assert stop - start == min(tile, length)
        assert first - start >= (margin if start else 0)
        assert stop - last >= (margin if stop < length else 0)
        covered[first:last] += 1
    assert (covered == 1).all()


def test_tile_sizes_are_those_of_all_tiles():
    assert tile_sizes((100, 20), 64) == [(64, 20)] * len(list(tiles(100, 64, 8)))


def huge_png(width, height):
    """A PNG with a size in its header and no pixels."""
    start = cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes()
    header = b"IHDR" + struct.pack(">II", width, height) + start[24:29]
    return start[:12] + header + struct.pack(">I", zlib.crc32(header)) + start[33:]


def test_pictures_of_hundreds_of_megapixels_are_not_taken_for_an_attack():
    assert decode.size(huge_png(20000, 20000), "big.png") == (20000, 20000)
    with pytest.raises(UserError, match=r"far\.png: 40000x30000 .* OPENCV_IO_MAX_IMAGE_PIXELS"):
        decode.image(huge_png(40000, 30000), "far.png")


def test_a_picture_written_by_strips_is_the_picture(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    png_strips.write(tmp_path / "a.png", (37, 53), (picture[i : i + 10] for i in range(0, 37, 10)))
    np.testing.assert_array_equal(model_input(tmp_path / "a.png"), picture)


def test_batches_and_arrays_in_python_answer_in_order(folder, photos):
    model = api.load(folder)
    arrays = [model_input(photos / name) for name in ("a.png", "b.jpg", "a.png")]
    answers = model.predict_batch(arrays)
    assert [answer.shape for answer in answers] == [(70, 90), (60, 101), (70, 90)]
    np.testing.assert_array_equal(answers[0], answers[2])
    np.testing.assert_array_equal(answers[1], model(photos / "b.jpg"))
    assert model.logits(arrays[1]).shape == (60, 101, 3)
    with pytest.raises(UserError, match=r"stream takes pairs \(key, image\), not ndarray"):
        next(model.stream(iter(arrays)))


def model_input(path):
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def test_importing_the_package_starts_no_device():
    code = (
        "import fastfcn_jax, sys; assert 'jax' not in sys.modules;"
        "fastfcn_jax.load; from jax._src import xla_bridge as b; assert not b._backends"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert result.returncode == 0, result.stderr.decode()


def test_overlay_and_legend():
    labels = np.array([[0, 1], [1, 255]], np.uint8)
    image = np.full((2, 2, 3), 100, np.uint8)
    drawn = pictures.overlay(image, labels, INFO.palette, opacity=0.5)
    np.testing.assert_allclose(drawn[0, 0], [178, 50, 50], atol=1)
    np.testing.assert_allclose(drawn[1, 1], [50, 50, 50])
    wide = np.zeros((40, 300), np.uint8)
    strip = pictures.with_legend(
        np.zeros((40, 300, 3), np.uint8), wide, INFO.class_names, INFO.palette
    )[40:]
    assert (strip.reshape(-1, 3) == [255, 0, 0]).all(1).any()
    assert not (strip.reshape(-1, 3) == [0, 255, 0]).all(1).any(), "absent classes are not listed"
