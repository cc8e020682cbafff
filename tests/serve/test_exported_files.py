"""`fastfcn serve --model`: each format behind the page's addresses."""

import base64
import importlib.util

import cv2
import numpy as np
import pytest
import small
from serving import ask, post, running

from fastfcn_jax import models
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.data import datasets
from fastfcn_jax.data.datasets import street_scene
from fastfcn_jax.errors import UserError
from fastfcn_jax.export import metadata, readers, reduced, writers
from fastfcn_jax.serve import server

pytestmark = pytest.mark.slow

SIZE = (64, 96)


@pytest.fixture(scope="module")
def job_and_card():
    config = small.config("psp", "jpu", backbone="resnet18", auxiliary=False)
    card = model_folder.model_card(config, datasets.info("cityscapes", ""), {})
    model = models.build(config.model, 19)
    return writers.Job(model, small.variables(config.model, 19), 19, SIZE), card


@pytest.mark.parametrize(
    ("name", "size", "precision"),
    [
        ("m.stablehlo", SIZE, "float32"),
        ("m.safetensors", SIZE, "float32"),
        ("m.onnx", SIZE, "float32"),
        ("free.onnx", None, "float16"),
        ("m.xml", SIZE, "float32"),
    ],
)
def test_an_exported_file_is_served(job_and_card, tmp_path, name, size, precision):
    file_format = name.split(".")[1].replace("xml", "openvino")
    if file_format == "openvino" and importlib.util.find_spec("openvino") is None:
        pytest.skip("needs OpenVINO")
    (job, card), path = job_and_card, tmp_path / name
    text = metadata.write(card, size, {}, precision=precision)
    if precision == "float32":
        writers.WRITERS[file_format](job, path, text)
    else:
        reduced.MAKERS[file_format, precision](job._replace(size=size), text, [])(path, text)
    loaded, tested = server._load(None, path, None)
    assert tested == f"exported, {'any size' if size is None else '64x96'}, {precision}"
    photo = street_scene.Scene(np.random.default_rng(3), (80, 50)).draw()[0]
    upload = cv2.imencode(".png", photo[..., ::-1])[1].tobytes()
    made = server.Server(server.listen("127.0.0.1", 0), "127.0.0.1", loaded, protocol=tested)
    with running(made) as address:
        status, answer = post(address, upload)
        assert ask(address, "GET", "/healthz")[0].status == 200
    assert status == 200
    sent = np.frombuffer(base64.b64decode(answer["labels"]), np.uint8)
    labels = cv2.imdecode(sent, cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(labels, readers.load(path)(photo))
    assert len(np.unique(labels)) > 1


def test_a_broken_file_is_refused_before_the_first_visitor(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"not a graph")
    with pytest.raises(UserError, match=r"m\.onnx: not a file that this program exported"):
        server.serve(model=tmp_path / "m.onnx", port=0)
