"""Pretraining on COCO, then training on SBD: two commands, with a three-layer model."""

import json

import jax
import numpy as np
import pytest
from layouts import label_of, photo, write_jpg
from scipy.io import savemat
from tiny import history

from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.training.__main__ import COMMAND

pytestmark = [pytest.mark.usefixtures("tiny_model"), pytest.mark.slow]
SIZE = (40, 60)
SMALLER = (
    *("--config.data.base_size=32", "--config.data.crop_size=(32, 32)", "--config.data.threads=2"),
    *("--config.train.batch_size=2", "--config.train.steps=2", "--config.train.eval_every=2"),
    *("--config.train.pictures=0", "--config.eval.crop_size=(32, 32)"),
    "--config.eval.stride=(24, 24)",
)  # fmt: skip


@pytest.fixture
def coco(tmp_path):
    """Three photographs in each split, with an outline of a person and of a cat."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        images, annotations = [], []
        for i in range(3):
            name = f"{i:012}.jpg"
            write_jpg(root / split / name, photo(i, SIZE))
            images.append({"id": i, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
            for category, left in ((1, 0), (17, 30)):
                ring = [left, 2, left + 28, 2, left + 28, 38, left, 38]
                found = {"image_id": i, "category_id": category, "segmentation": [ring]}
                annotations.append(found)
        content = {"images": images, "annotations": annotations}
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def sbd(tmp_path):
    root = tmp_path / "sbd"
    (root / "dataset/cls").mkdir(parents=True)
    for split, names in (("train", ("a", "b")), ("val", ("c",))):
        for i, name in enumerate(names):
            write_jpg(root / f"dataset/img/{name}.jpg", photo(i, SIZE))
            label = {"Segmentation": label_of(range(21), i, SIZE)}
            savemat(root / f"dataset/cls/{name}.mat", {"GTcls": label})
        (root / f"dataset/{split}.txt").write_text("\n".join(names) + "\n")
    return root


def test_the_second_command_starts_from_the_weights_of_the_first(coco, sbd, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    command = ["--config", "official_encnet_coco", "--workdir", str(first), *SMALLER]
    assert COMMAND.main([*command, f"--config.data.root={coco}"]) == 0
    assert "COCO train: 3 of 3 images" in capsys.readouterr().err
    command = ["--config", "official_encnet_voc", "--workdir", str(second), *SMALLER]
    command += [f"--config.init.checkpoint={first}", "--config.optim.lr=0.0"]
    assert COMMAND.main([*command, f"--config.data.root={sbd}"]) == 0
    assert f"initial weights: {first} (step 2)" in capsys.readouterr().out
    before, after = (model_folder.load_model(path, "latest") for path in (first, second))
    assert before.info.class_names == after.info.class_names
    old_weights, new_weights = (jax.tree.leaves(m.variables["params"]) for m in (before, after))
    for old, new in zip(old_weights, new_weights, strict=True):
        np.testing.assert_array_equal(old, new)  # the classifier too; at a rate of 0 nothing moves
    assert history(second, "eval")[-1]["step"] == 2
