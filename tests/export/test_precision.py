"""Files of reduced precision: compared with float32 over photographs, kept or refused, and run."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
import small
from PIL import Image

from fastfcn_jax import api
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.config.base import get_config
from fastfcn_jax.data import datasets
from fastfcn_jax.data.datasets import street_scene, synthetic
from fastfcn_jax.errors import UserError
from fastfcn_jax.evaluation import metrics
from fastfcn_jax.export import __main__ as command
from fastfcn_jax.export import export, openvino_file, packages, readers, users_photographs

pytestmark = pytest.mark.slow

SIZE = (64, 96)
HAS_OPENVINO = all(importlib.util.find_spec(name) for name in ("openvino", "nncf"))
needs_openvino = pytest.mark.skipif(not HAS_OPENVINO, reason="needs OpenVINO and NNCF")
SUFFIX = {"onnx": "onnx", "openvino": "xml"}
OPENVINO = [
    pytest.param("openvino", precision, marks=needs_openvino) for precision in ("bf16", "int8")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A narrow model of the generated scenes' nine classes."""
    config = small.config("psp", "jpu", data="synthetic", backbone="resnet18")
    config.data.test_scale = (SIZE[1], SIZE[0])
    path = tmp_path_factory.mktemp("model") / "psp"
    card = model_folder.model_card(config, datasets.info("synthetic", ""), {})
    model_folder.save_model(path, small.variables(config.model, 9), card)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos")
    for i in range(5):
        drawn = street_scene.Scene(np.random.default_rng(i), (80, 96)).draw()[0]
        Image.fromarray(drawn).save(path / f"{i}.png")
    return path


def needs_bfloat16(precision):
    if precision == "bf16" and not openvino_file.has_bfloat16():
        pytest.skip("this processor does not compute in bfloat16")


@pytest.fixture(scope="module")
def exact(folder, tmp_path_factory):
    """The model as a float32 file."""
    path = tmp_path_factory.mktemp("exact") / "m.onnx"
    export.export(folder, path, SIZE, "onnx")
    return path


@pytest.mark.parametrize(
    ("file_format", "precision"), [("onnx", "float16"), ("onnx", "int8"), *OPENVINO]
)
def test_a_file_is_compared_over_photographs(
    folder, exact, photos, tmp_path, file_format, precision
):
    needs_bfloat16(precision)
    path = tmp_path / f"m.{SUFFIX[file_format]}"
    found, _ = export.export(
        *(folder, path, SIZE, file_format),
        precision=precision,
        calibration=photos,
        min_agreement=0.0,
    )
    # int8 is calibrated on every second one, and compared on the others.
    assert (found.photographs, found.calibrated_on) == ((2, 3) if precision == "int8" else (5, 0))
    file, source = readers.load(path), readers.load(exact)
    compared = sorted(photos.iterdir())[1::2] if precision == "int8" else sorted(photos.iterdir())
    images = [np.array(Image.open(photo)) for photo in compared]
    shares = [(file(image) == source(image)).mean() for image in images]
    assert found.equal_labels == pytest.approx(np.mean(shares), abs=2e-3)
    assert found.lowest == pytest.approx(min(shares), abs=2e-3)
    assert file.metadata["check"] == found._asdict()
    assert file.precision == file.metadata["precision"] == precision
    # It is of that precision: near float32's logits, and not as near as another float32 file.
    distance = np.abs(file.logits(images[0]) - source.logits(images[0])).max()
    largest = np.abs(source.logits(images[0])).max()
    assert 1e-4 * largest < distance < 0.3 * largest
    if file_format == "onnx":
        _check_graph(onnx.load(path), onnx.load(exact), precision)
    if precision == "int8":
        largest_weights = np.array([np.abs(w.astype(int)).max() for w in _int8_weights(path)])
        assert len(largest_weights) > 20
        # Seven bits: on processors without VNNI, sums of eight-bit products would be cut off.
        assert ((largest_weights >= 60) & (largest_weights <= 64)).all()


def _int8_weights(path):
    if path.suffix == ".onnx":
        constants = map(onnx.numpy_helper.to_array, onnx.load(path).graph.initializer)
    else:
        operations = packages.openvino().Core().read_model(str(path)).get_ops()
        constants = (op.get_data() for op in operations if op.get_type_name() == "Constant")
    return [c for c in constants if c.dtype == np.int8 and c.any()]  # zero points are 0


def _check_graph(made, exact, precision):
    """It is as much smaller as its precision allows, and says what it is."""
    sizes = [sum(len(t.raw_data) for t in model.graph.initializer) for model in (made, exact)]
    assert sizes[0] < (0.4 if precision == "int8" else 0.6) * sizes[1]
    properties = {entry.key: entry.value for entry in made.metadata_props}
    assert json.loads(properties["precision"]) == precision
    kinds = {node.op_type for node in made.graph.node}
    assert ("QuantizeLinear" in kinds) == (precision == "int8")


def test_with_labels_both_scores_are_stored(folder, tmp_path, monkeypatch):
    """The generated scenes read no files, so an empty folder is the root of their data set."""
    monkeypatch.setattr(users_photographs, "COMPARED", 6)
    monkeypatch.setattr(users_photographs, "CALIBRATED", 4)
    (tmp_path / "root").mkdir()
    found, _ = export.export(
        *(folder, tmp_path / "m.onnx", (48, 96), "onnx"),  # which the scenes fill
        precision="int8",
        calibration=tmp_path / "root",
        min_agreement=0.0,
    )
    assert (found.photographs, found.calibrated_on) == (6, 4)
    scenes, file = synthetic.StreetScenes("val"), readers.load(tmp_path / "m.onnx")
    samples = [scenes[i * len(scenes) // 6] for i in range(6)]
    for predict, stored in ((file, found.miou), (api.load(folder), found.miou_float32)):
        matrix = sum(metrics.confusion_matrix(s.label, predict(s.image), 9) for s in samples)
        assert stored == pytest.approx(metrics.scores(matrix).miou, abs=0.2)
    assert file.metadata["check"]["miou"] == found.miou
    assert f"mIoU {found.miou_float32:.2f} in float32, {found.miou:.2f} in the file" in str(found)


@pytest.mark.parametrize(
    ("file_format", "precision"),
    [("onnx", "int8"), pytest.param("openvino", "int8", marks=needs_openvino)],
)
def test_too_few_equal_labels_leave_no_file(folder, photos, tmp_path, file_format, precision):
    with pytest.raises(UserError, match=r"is not written: 9\d\.\d+ % of the labels .*--min-agree"):
        export.export(
            *(folder, tmp_path / f"m.{SUFFIX[file_format]}", SIZE, file_format),
            precision=precision,
            calibration=photos,
            min_agreement=1.0,
        )
    assert list(tmp_path.iterdir()) == []


def test_codes_and_group_norms_stay_in_float32(tmp_path, photos):
    """Sums of squares over all pixels overflow float16 and lose everything in eight bits."""
    config = small.config("enc", "jpu_x", "official")
    card = model_folder.model_card(config, datasets.info("cityscapes", ""), {})
    model_folder.save_model(tmp_path / "m", small.variables(config.model, 19), card)
    for precision, least in (("float16", 0.99), ("int8", 0.8)):
        found, _ = export.export(
            *(tmp_path / "m", tmp_path / f"{precision}.onnx", SIZE, "onnx"),
            precision=precision,
            calibration=photos,
            min_agreement=least,
        )
        assert found.equal_labels >= least


@needs_openvino
def test_both_files_of_openvino_belong_together(folder, photos, tmp_path):
    path = tmp_path / "m.xml"
    check, _ = export.export(folder, path, SIZE, "openvino")
    assert check.largest_difference < 1e-5 * check.largest_logit
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.bin", "m.xml"]
    model = packages.openvino().Core().read_model(str(path))
    assert json.loads(model.get_rt_info(["framework", "names"]).value)[0] == "road"
    path.unlink()
    with pytest.raises(UserError, match=r"m\.bin: already exists"):
        export.export(folder, path, SIZE, "openvino")
    path.write_text("<net/>")
    with pytest.raises(UserError, match="not a file that this program exported"):
        readers.load(path)
    (tmp_path / "m.bin").unlink()
    with pytest.raises(UserError, match=r"m\.bin, which belongs to it, is not beside it"):
        readers.load(path)


def test_missing_packages_are_named_with_their_extra(folder, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "nncf", None)
    remedy = r"not installed \({}\): pip install 'fastfcn-jax\[openvino\]'"
    with pytest.raises(UserError, match="--format openvino needs .*" + remedy.format("openvino")):
        export.export(folder, tmp_path / "m.xml", SIZE, "openvino")
    with pytest.raises(UserError, match="--format openvino needs .*" + remedy.format("nncf")):
        export.export(
            *(folder, tmp_path / "m.xml", SIZE, "openvino"), precision="int8", calibration=photos
        )
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "m.xml").write_text("<net/>")
    with pytest.raises(UserError, match=r"m\.xml needs .*" + remedy.format("openvino")):
        readers.load(tmp_path / "m.xml")


@needs_openvino
def test_nothing_is_reported_to_the_makers_of_openvino(tmp_path):
    """Their reports begin with an identity in the home folder."""
    program = "from fastfcn_jax.export import packages; packages.openvino(), packages.nncf()"
    environment = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    assert not (tmp_path / "intel").exists()


def test_requests_that_cannot_be_met(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ("--format onnx --precision bf16", "--format onnx has float32 and float16 and int8"),
        ("--format stablehlo --precision int8", "--format stablehlo has float32"),
        ("--format onnx --precision int8", "--calibration is missing: int8 is calibrated on"),
        ("--format onnx --calibration x", "--calibration is for other precisions"),
        ("--format onnx --precision float16 --min_agreement 99", "is a share, from 0 to 1"),
        ("--format onnx --min_agreement 0.5", "--min-agreement is for other precisions"),
        ("--format onnx --precision int8 --calibration x --image y", "exclude each other"),
        ("--format hub --precision int8", "--format hub holds weights alone"),
        ("--format onnx --precision int8 --calibration nowhere", "nowhere: no such folder"),
    ):
        words = f"--checkpoint {folder} --size 64 96 {arguments}".split()
        suffix = words[words.index("--format") + 1]
        with pytest.raises(UserError, match=message):
            command.run(
                command.COMMAND.parser().parse([*words, "--output", str(tmp_path / f"m.{suffix}")])
            )
    data = get_config().data
    data.name = "camvid"
    with pytest.raises(UserError, match=r"holds no photographs, and is not the root of .* camvid"):
        users_photographs.find(tmp_path / "empty", data, calibrates=True)


@pytest.mark.parametrize(("file_format", "precision"), [("onnx", "int8"), *OPENVINO])
def test_a_trained_model_keeps_its_score(
    shared_data, tmp_path, monkeypatch, file_format, precision
):
    """The bundled model on CamVid's photographs, within half a point of mIoU."""
    needs_bfloat16(precision)
    monkeypatch.setattr(users_photographs, "COMPARED", 8)
    monkeypatch.setattr(users_photographs, "CALIBRATED", 8)
    found, _ = export.export(
        *("camvid-small", tmp_path / f"m.{SUFFIX[file_format]}", (360, 480), file_format),
        precision=precision,
        calibration=shared_data / "camvid",
    )
    assert found.equal_labels > 0.99
    assert found.miou == pytest.approx(found.miou_float32, abs=0.5)
    assert found.miou_float32 > 55
