"""Shares of an evaluation: in several processes, stored and merged; equal to the whole."""

import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import linen as nn
from processes import finish, meeting, start_evaluation

from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.data import datasets
from fastfcn_jax.data.datasets import DatasetInfo, Sample, synthetic
from fastfcn_jax.errors import UserError
from fastfcn_jax.evaluation import run, stored_shares, tally
from fastfcn_jax.evaluation.__main__ import COMMAND
from fastfcn_jax.evaluation.calibration import Calibration
from fastfcn_jax.evaluation.evaluate import count
from fastfcn_jax.evaluation.report import paired
from fastfcn_jax.inference import protocols
from fastfcn_jax.inference.prediction import Prediction
from fastfcn_jax.inference.predictor import Predictor

pytestmark = pytest.mark.slow
BOTH = {"calibration": True, "boundary": True}


class Photos:
    """Images of two sizes in turn, and a long one."""

    info = DatasetInfo("toy", ("a", "b", "c"), np.zeros((3, 3), np.uint8))
    sizes = (
        (20, 31),
        (30, 31),
        (20, 31),
        (30, 31),
        (20, 31),
        (90, 40),
        (20, 31),
        (30, 31),
        (20, 31),
    )
    ids = tuple(map(str, range(9)))

    def __len__(self):
        return len(self.sizes)

    def image_size(self, index):
        return self.sizes[index]

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        label = rng.choice(np.array([0, 1, 2, 255], np.uint8), self.sizes[index])
        image = rng.integers(0, 3, (*label.shape, 3), dtype=np.uint8)
        return Sample(self.ids[index], image, label)


class Batched(Predictor):
    """Predicts the red channel, and notes which images were in one batch."""

    def __init__(self):
        protocol = protocols.build("single", test_scale=(0, 0))
        super().__init__(nn.Dense(1), {}, protocol=protocol, batch_size=2)
        self.batches = []

    def stream(self, images, *, confidence=False):
        for _, batch in self._batches(images):
            self.batches.append([key for key, _ in batch])
            for key, image in batch:
                sure = np.random.default_rng(key).uniform(0.3, 1, image.shape[:2])
                yield key, Prediction(image[..., 0], sure.astype(np.float32))


def counted(share):
    predictor = Batched()
    extras = [Calibration(3)]
    return predictor, count(predictor, Photos(), share=share, extras=extras, progress=False)


def test_shares_keep_batches_together_and_join_to_the_whole():
    alone, whole = counted((0, 1))
    shares = [counted((i, 3)) for i in range(3)]
    assert sorted(b for predictor, _ in shares for b in predictor.batches) == sorted(alone.batches)
    assert {len(batch) for batch in alone.batches} == {1, 2}
    parts = [tally.unpack(tally.pack(part)) for _, part in shares]
    joined = tally.join([parts[2], parts[0], parts[1]])
    assert joined.ids == whole.ids == Photos.ids
    for name in ("positions", "matrix", "counts"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
    np.testing.assert_array_equal(joined.extras["calibration"], whole.extras["calibration"])


def test_a_share_without_images_adds_nothing():
    _, whole = counted((0, 1))
    _, none = counted((40, 41))
    assert none.ids == ()
    assert tally.join([none, whole]).ids == whole.ids
    np.testing.assert_array_equal(tally.join([none, whole]).matrix, whole.matrix)
    assert tally.join([none]).matrix.sum() == 0


@pytest.fixture(scope="module")
def checkpoint(tiny_model, tmp_path_factory):
    """A checkpoint of the tiny model, and the scores of one process."""
    folder = tmp_path_factory.mktemp("model")
    c = tiny.config()
    c.data.test_scale = (48, 32)
    model, info = tiny.build(c.model, 9), datasets.info("synthetic", "")
    for seed, name in ((0, "run"), (1, "other")):
        variables = dict(model.init(jax.random.key(seed), jnp.zeros((1, 32, 48, 3))))
        variables = jax.tree.map(np.asarray, variables)
        model_folder.save_model(folder / name, variables, model_folder.model_card(c, info, {}))
    return folder / "run"


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setitem(synthetic.SPLIT_SIZES, "val", 7)


@pytest.fixture(scope="module")
def shares(checkpoint):
    """Three stored shares, and the folder with the scores of all images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(synthetic.SPLIT_SIZES, "val", 7)
        for i in range(3):
            result = run.evaluate_folder(
                checkpoint, output=checkpoint / "shards", shard=f"{i}/3", **BOTH
            )
            assert result.num_images == (3, 2, 2)[i]
        run.evaluate_folder(checkpoint, output=checkpoint / "whole", **BOTH)
    return sorted((checkpoint / "shards").iterdir())


def same(one, two):
    assert (one / "metrics.json").read_bytes() == (two / "metrics.json").read_bytes()
    first, second = paired.read(one), paired.read(two)
    assert first.ids == second.ids
    np.testing.assert_array_equal(first.counts, second.counts)


def test_merged_shares_give_the_scores_and_pictures_of_the_whole(
    shares, checkpoint, few, tmp_path, capsys
):
    assert [file.name for file in shares] == [f"shard-{i}-of-3.npz" for i in range(3)]
    words = ["--merge", *map(str, shares[::-1]), "--output", str(tmp_path)]
    assert COMMAND.main([*words, f"--compare={checkpoint}/whole"]) == 0
    assert "mIoU +0.00, 95 % interval +0.00 to +0.00" in capsys.readouterr().out
    same(tmp_path, checkpoint / "whole")
    assert "ECE" in json.loads((tmp_path / "metrics.json").read_text())
    pages = [(folder / "report.html").read_text() for folder in (tmp_path, checkpoint / "whole")]
    assert pages[0].count("<img") == pages[1].count("<img") > 0


def test_shares_are_merged_where_their_model_is_not(shares, checkpoint, few, tmp_path, capsys):
    shutil.move(checkpoint / "checkpoints", checkpoint / "away")
    try:
        run.merge_shards([checkpoint / "shards"], output=tmp_path)
    finally:
        shutil.move(checkpoint / "away", checkpoint / "checkpoints")
    assert f"the report has no pictures of images: {checkpoint}" in capsys.readouterr().out
    same(tmp_path, checkpoint / "whole")
    assert "Boundary IoU" in (tmp_path / "report.html").read_text()


def test_shares_that_make_no_whole_are_refused(shares, checkpoint, few, tmp_path):
    def changed(name, **changes):
        """The second share with other facts, or other arrays."""
        share = stored_shares.read(shares[1])
        about = {**share.about, **{k: v for k, v in changes.items() if k in share.about}}
        facts = {**about["facts"], **changes.get("other", {})}
        arrays = share.counted._replace(**changes.get("arrays", {}))
        stored_shares.write(tmp_path / name, arrays, {**about, "facts": facts})
        return tmp_path / name

    (tmp_path / "broken").write_bytes(b"PK")
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "empty").mkdir()
    run.evaluate_folder(checkpoint.parent / "other", output=tmp_path, shard="1/3", **BOTH)
    a, b, c = shares
    for given, says in (
        ([a, c], r"share 1/3 is missing; fastfcn eval --shard 1/3"),
        ([a, b, b, c], r"both hold share 1/3"),
        ([a, tmp_path / "shard-1-of-3.npz", c], r"another checksum of the weights .* than"),
        ([a, changed("p.npz", other={"protocol": "flip"}), c], r"another protocol \('flip'"),
        ([a, changed("e.npz", other={"config.eval.batch_size": 2}), c], "another config.eval.b"),
        ([a, changed("n.npz", share=[1, 4]), c], "another number of shares"),
        ([a, changed("s.npz", scores=["boundary"]), c], "another choice of scores"),
        ([a, changed("x.npz", arrays={"positions": np.array([0, 3])}), c], "each image once"),
        ([a, tmp_path / "broken"], "holds no counts"),
        ([a, tmp_path / "one.npy"], "holds no counts"),
        ([tmp_path / "empty"], "has no shard-"),
        ([tmp_path / "nowhere.npz"], "does not exist"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=says):
            run.merge_shards(given, output=tmp_path / "scores")
    assert not (tmp_path / "scores").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--merge", "a", "--checkpoint=b"], "--merge evaluates nothing; leave --checkpoint out"),
        (["--merge", "a"], "--output is missing"),
        (["--checkpoint=b", "--shard=3/3"], "0/3 to 2/3"),
        (["--checkpoint=b", "--shard=0/3", "--compare=c"], "give --compare to --merge"),
        (["--mean", "a", "b", "--merge", "c"], "--mean evaluates nothing; leave --merge out"),
        (["--checkpoint=b", "--processes=2", "--process-id=1"], "leave --process-id out"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(flags, says, capsys):
    assert COMMAND.main(flags) == 2
    assert says in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_score_as_one(checkpoint, tmp_path):
    flags = ("--checkpoint", checkpoint, "--calibration", "--boundary")
    together = [
        start_evaluation(*flags, f"--output={tmp_path}/two", *meeting_flags, f"--process-id={i}")
        for meeting_flags in [meeting(2)]
        for i in range(2)
    ]
    finish(start_evaluation(*flags, f"--output={tmp_path}/one"))
    said = finish(*together)
    assert "64 images, protocol single" in said[0]
    assert said[1] == "" or "images" not in said[1]  # only process 0 prints
    same(tmp_path / "two", tmp_path / "one")
    assert len(paired.read(tmp_path / "two").ids) == 64
    pages = [(tmp_path / name / "report.html").read_text() for name in ("one", "two")]
    assert pages[0].count("<img") == pages[1].count("<img") > 0
    assert "in 2 processes" in pages[1]


@pytest.mark.slow
@pytest.mark.parametrize("failure", ["death", "input"])
def test_a_lost_process_ends_the_evaluation(checkpoint, tmp_path, failure):
    flags = ("--checkpoint", checkpoint, f"--output={tmp_path}/scores", *meeting(2))
    first = start_evaluation(*flags, "--process-id=0")
    second = start_evaluation(*flags, "--process-id=1", failure=failure)
    (said,) = finish(first, status=75 if failure == "death" else 2)
    (sentence,) = [line for line in said.splitlines() if "error" in line.lower()]
    if failure == "death":
        start = f"error: process 1 on {os.uname().nodename} has ended; nothing is written; start"
        assert sentence.startswith(start)
        assert "--process-id=0" in sentence
    else:
        assert sentence == "error: process 1 has ended: 7.png is damaged"
    second.wait(60)
    assert list((tmp_path / "scores").iterdir()) == []
    second.stdout.close()


@pytest.mark.slow
def test_processes_of_other_evaluations_all_fail(checkpoint, tmp_path):
    flags = (f"--output={tmp_path}", *meeting(2))
    both = [
        start_evaluation("--checkpoint", checkpoint.parent / name, *flags, f"--process-id={i}")
        for i, name in enumerate(("run", "other"))
    ]
    for said in finish(*both, status=2):
        assert "process 1 does not belong to the evaluation of process 0, it has another" in said
        assert "checksum of the weights" in said
