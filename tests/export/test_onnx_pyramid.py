"""The pools in ONNX graphs of a fixed size: never resized to the map, and of the model's logits."""

import jax
import numpy as np
import onnx
import pytest
import small

from fastfcn_jax import models
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.data import datasets
from fastfcn_jax.data.datasets import street_scene
from fastfcn_jax.export import metadata, readers, writers
from fastfcn_jax.inference.network import network

pytestmark = pytest.mark.slow

NUM_CLASSES = 19


def exported(path, config, size):
    """The float32 file, and what makes the logits of its source."""
    model = models.build(config.model, NUM_CLASSES)
    variables = small.variables(config.model, NUM_CLASSES)
    card = model_folder.model_card(config, datasets.info("cityscapes", ""), {})
    job = writers.Job(model, variables, NUM_CLASSES, size)
    writers.onnx(job, path, metadata.write(card, size, {}))
    forward = jax.jit(lambda variables, images: network(model, variables, images, None))
    return readers.load(path), lambda images: np.asarray(forward(variables, images))


@pytest.mark.parametrize(
    ("head", "neck", "lineage", "changes", "module", "size"),
    [
        ("psp", "jpu", "mmseg", {"backbone": "resnet18"}, "bottleneck", (97, 131)),
        # At stride 8 the map has fewer rows than the grid of 6.
        ("psp", "none", "mmseg", {"backbone": "resnet18"}, "bottleneck", (33, 75)),
        ("psp", "none", "official", {}, "bottleneck", (97, 131)),  # corners aligned
        ("aspp", "none", "mmseg", {"backbone": "resnet18"}, "bottleneck", (97, 131)),
        ("aspp", "none", "official", {}, "project", (97, 131)),  # 1x1, the pool last
    ],
)
def test_pools_are_mixed_on_their_grids(tmp_path, head, neck, lineage, changes, module, size):
    config = small.config(head, neck, lineage, auxiliary=False, **changes)
    path = tmp_path / "m.onnx"
    file, wanted = exported(path, config, size)
    graph = onnx.load(path).graph
    # Only the coarse maps of the neck and the logits are resized.
    resized = [node for node in graph.node if node.op_type == "Resize"]
    assert len(resized) == (3 if neck == "jpu" else 1)
    (kernel,) = [t for t in graph.initializer if t.name == f"decode_head/{module}/conv/kernel"]
    pooled = small.CHANNELS * (4 if head == "psp" else 1)
    joint = small.variables(config.model, NUM_CLASSES)["params"]["decode_head"][module]
    assert kernel.dims[1] == joint["conv"]["kernel"].shape[2] - pooled
    for batch in (1, 3):
        scenes = [street_scene.Scene(np.random.default_rng(i), size) for i in range(batch)]
        images = np.stack([scene.draw()[0] for scene in scenes])
        logits = wanted(images)
        np.testing.assert_allclose(
            file.run(images)["logits"], logits, atol=1e-5 * np.abs(logits).max()
        )
