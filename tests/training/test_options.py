"""Training options that are off by default, each tested through the loop with a tiny model."""

import json
import os
import sys
import types
from pathlib import Path

import cv2
import jax
import layouts
import numpy as np
import pytest
from flax import traverse_util
from tiny import config, history, losses

from fastfcn_jax import api, models
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.data import datasets
from fastfcn_jax.errors import UserError
from fastfcn_jax.serve import answer, desk
from fastfcn_jax.training import class_weights, initial_weights, loop

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_model")]


def flat_params(workdir):
    return traverse_util.flatten_dict(
        model_folder.load_model(workdir, "latest").variables["params"]
    )


def initial_params(c):
    model = models.build(c.model, 9)
    return traverse_util.flatten_dict(initial_weights.random_variables(model, c.seed)["params"])


def test_options_of_the_optimiser_reach_the_step(tmp_path):
    c = config(steps=1, eval_every=0)
    c.optim.update(
        lr=0.05, weight_decay=0.0, warmup_steps=10, clip_norm=0.25, layer_decay=0.5,
        head_lr_multiplier=4.0, freeze=("bn",),
    )  # fmt: skip
    loop.train(c, tmp_path)
    before, after = initial_params(c), flat_params(tmp_path)
    (record,) = history(tmp_path)
    assert record["learning_rate"] == pytest.approx(0.005)  # the first of ten warm-up steps
    assert record["grad_norm"] > 0.25  # else clipping would have no effect
    gradient = 0.0  # squared norm of all parameter changes, divided by their learning rates
    for path, start in before.items():
        rate = 0.005 * {"layer1": 0.5**4, "layer4": 0.5}.get(path[1].partition("_")[0], 4.0)
        gradient += float((((after[path] - start) / rate).astype(np.float64) ** 2).sum())
        assert np.array_equal(after[path], start) == path[-2].endswith("_bn"), path
    assert gradient**0.5 == pytest.approx(0.25, rel=1e-3)


def test_accumulated_steps_see_the_samples_of_a_larger_batch_also_after_resuming(tmp_path):
    def run(workdir, **train):
        c = config(steps=4, save_every=2, eval_every=0, **train)
        c.optim.freeze, c.model.dropout = ("bn",), 0.0  # else results depend on the micro-batches
        loop.train(c, workdir)
        return losses(workdir)

    whole = run(tmp_path / "whole", batch_size=8)
    parts = run(tmp_path / "parts", batch_size=4, accumulate=2)
    assert parts == pytest.approx(whole, rel=1e-5)
    (tmp_path / "parts/checkpoints/4").rename(tmp_path / "gone")
    assert run(tmp_path / "parts", batch_size=4, accumulate=2) == parts


def test_the_seed_draws_weights_and_samples(tmp_path):
    firsts = []
    for seed in (0, 1):
        c = config(steps=1, eval_every=0)
        c.seed, c.optim.lr, c.optim.end_lr = seed, 0.0, 0.0
        loop.train(c, tmp_path / str(seed))
        firsts.append(losses(tmp_path / str(seed))[0])
    assert firsts[0] != firsts[1]
    kernel = ("backbone", "layer1_0_conv", "kernel")
    drawn = [flat_params(tmp_path / seed)[kernel] for seed in ("0", "1")]
    assert np.abs(drawn[0] - drawn[1]).max() > 0.1 * np.abs(drawn[0]).max()


def test_a_second_start_compiles_nothing(tmp_path, capsys):
    def compilations(workdir):
        """How many programs JAX requested from the cache, and how many it found there."""
        jax.clear_caches()
        seen = []
        listen = lambda event, **_: seen.append(event.rpartition("/")[2])  # noqa: E731
        jax.monitoring.register_event_listener(listen)
        try:
            loop.train(config(steps=2, eval_every=0), workdir)
        finally:
            jax.monitoring.unregister_event_listener(listen)
        return seen.count("compile_requests_use_cache"), seen.count("cache_hits")

    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # cache fast ones too
    try:
        compilations(tmp_path / "first")
        asked, given = compilations(tmp_path / "second")
    finally:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    assert asked == given > 0
    folder = Path(os.environ["XDG_CACHE_HOME"], "fastfcn_jax", "xla")
    assert f"compiled programs are kept in {folder}" in capsys.readouterr().out
    assert folder.stat().st_mode & 0o777 == 0o700  # whoever can write there can run code here


class StandInWandb(types.ModuleType):
    """Replaces the part of Weights & Biases that the sink uses; records all calls."""

    def __init__(self):
        super().__init__("wandb")
        self.started, self.logged, self.finished = None, [], 0

    def init(self, **kwargs):
        self.started = kwargs
        return self

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished += 1


def test_wandb_gets_every_record(tmp_path, monkeypatch):
    wandb = StandInWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    loop.train(config(wandb=True), tmp_path / "my_run")
    assert wandb.started["id"] == "my_run"
    assert wandb.started["resume"] == "allow"
    assert wandb.started["config"]["train"]["steps"] == 12
    assert [step for step, _ in wandb.logged] == [5, 6, 10, 12, 12]
    seen = {name: value for _, values in wandb.logged for name, value in values.items()}
    assert seen["train/loss"] == history(tmp_path / "my_run")[-1]["loss"]
    assert seen["eval/mIoU"] == history(tmp_path / "my_run", "eval")[-1]["mIoU"]
    assert {"train/learning_rate", "train/images_per_second", "eval/IoU/road"} <= seen.keys()
    assert wandb.finished == 1


def test_missing_wandb_is_reported_and_no_file_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="needs the package: pip install wandb"):
        loop.train(config(wandb=True), tmp_path)
    assert not (tmp_path / "run.json").exists()
    assert not (tmp_path / "metrics.jsonl").exists()


def test_early_stopping_counts_evaluations_without_a_better_one(tmp_path, monkeypatch, capsys):
    scores = iter([10.0, 30.0, 20.0, 30.0, 50.0])
    monkeypatch.setattr(loop, "_validate", lambda run, _: _pretend(run, next(scores)))
    loop.train(config(steps=40, eval_every=2, early_stop=2), tmp_path)
    assert [r["mIoU"] for r in history(tmp_path, "eval")] == [10.0, 30.0, 20.0, 30.0]
    assert "stopped early at step 8" in capsys.readouterr().out
    loop.train(config(steps=40, eval_every=2, early_stop=2), tmp_path)  # resuming trains no further
    assert len(losses(tmp_path)) == 8


def _pretend(run, miou):
    run.records.add("eval", run.step, {"mIoU": miou})
    return miou


def test_every_nth_checkpoint_is_kept(tmp_path):
    loop.train(config(save_every=1, eval_every=0, keep_every=5), tmp_path)
    assert model_folder.finished_steps(tmp_path) == [5, 10, 11, 12]


def test_averaged_weights_are_evaluated_and_loaded(tmp_path, capsys):
    loop.train(config(steps=6, ema_decay=0.99), tmp_path / "ema")
    assert "after 6 steps 94% of the moving average" in capsys.readouterr().out
    loop.train(config(steps=6), tmp_path / "plain")
    kernels = [
        model_folder.load_model(tmp_path / n).variables["params"]["decode_head"]["conv_seg"][
            "kernel"
        ]
        for n in ("ema", "plain")
    ]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3  # the average lags behind
    assert losses(tmp_path / "ema") == losses(tmp_path / "plain")
    evaluated = [history(tmp_path / n, "eval")[0]["mIoU"] for n in ("ema", "plain")]
    assert evaluated[0] != evaluated[1]


def test_fine_tuning_with_another_class_count(tmp_path, monkeypatch, capsys):
    loop.train(config(steps=4, eval_every=0), tmp_path / "before")
    load = datasets.load
    monkeypatch.setattr(datasets, "load", lambda *a: FewerClasses(load(*a)))
    tuned = config(steps=2, eval_every=0, ema_decay=0.99)
    tuned.init.checkpoint = str(tmp_path / "before")
    with pytest.raises(UserError, match=r"trained on 9 classes.*init.reset_head=True"):
        loop.train(tuned, tmp_path / "refused")
    tuned.init.reset_head = True
    tuned.optim.lr, tuned.optim.end_lr = 0.0, 0.0
    loop.train(tuned, tmp_path / "tuned")
    assert "98% of the moving average" in capsys.readouterr().out  # of it, random classifiers
    before, after = (
        model_folder.load_model(tmp_path / n).variables["params"] for n in ("before", "tuned")
    )
    np.testing.assert_equal(after["backbone"], before["backbone"])
    assert after["decode_head"]["conv_seg"]["kernel"].shape[-1] == 5
    tuned.init.update(checkpoint=str(tmp_path / "tuned"), reset_head=False)
    loop.train(tuned, tmp_path / "again")
    assert "moving average" not in capsys.readouterr().out


def test_fine_tuning_with_classes_in_another_order_is_refused(tmp_path):
    loop.train(config(steps=2, eval_every=0), tmp_path / "before")
    path = tmp_path / "before/model.json"
    card = json.loads(path.read_text())
    card["dataset"]["class_names"].reverse()
    path.write_text(json.dumps(card))
    tuned = config(steps=2, eval_every=0)
    tuned.init.checkpoint = str(tmp_path / "before")
    with pytest.raises(UserError, match=r"in another order: class 0 is"):
        loop.train(tuned, tmp_path / "after")


class FewerClasses:
    """A source whose classes beyond the fifth are ignored."""

    def __init__(self, source):
        self.source, self.ids = source, source.ids
        info = source.info
        self.info = datasets.DatasetInfo(info.name, info.class_names[:5], info.palette[:5])

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        sample = self.source[index]
        return sample._replace(label=np.where(sample.label < 5, sample.label, np.uint8(255)))


def test_class_weights_balance_the_classes():
    frequencies = np.array([0.7, 0.2, 0.1, 0.0])
    weights = np.array(class_weights.balanced(frequencies))
    assert weights[0] < weights[1] < weights[2]
    assert (weights * frequencies).sum() == pytest.approx(1.0)
    assert weights[3] == 1.0
    source = datasets.load("synthetic", "", "val")
    counts = np.zeros(9)
    for i in range(len(source)):
        label = source[i].label
        counts += np.bincount(label[label < 9], minlength=9)
    np.testing.assert_allclose(class_weights.label_frequencies(source), counts / counts.sum())
    with pytest.raises(UserError, match="2 values"):
        class_weights.resolve((1.0, 2.0), source, config().model)


def test_options_of_the_loss_reach_the_step(tmp_path):
    plain, weighted, hard = config(steps=2), config(steps=2), config(steps=2)
    weighted.loss.class_weights = ("auto",)
    hard.loss.ohem_threshold, hard.loss.ohem_min_kept = 0.05, 100
    first = []
    for name, c in (("plain", plain), ("weighted", weighted), ("hard", hard)):
        c.train.eval_every = 0
        loop.train(c, tmp_path / name)
        first.append(losses(tmp_path / name)[0])
    assert len(set(first)) == 3
    assert first[2] < 0.8 * first[0]  # easy pixels no longer count


def test_the_terms_of_the_loss_are_trained_and_logged(tmp_path):
    c = config(steps=2, log_every=1, eval_every=0)
    c.loss.terms, c.loss.focal_gamma = ("cross_entropy:0.5", "focal:2", "lovasz"), 0.0
    loop.train(c, tmp_path / "terms")
    plain = config(steps=2, log_every=1, eval_every=0)
    loop.train(plain, tmp_path / "plain")
    terms, plain = (history(tmp_path / name)[0] for name in ("terms", "plain"))
    assert terms["loss_decode"] == pytest.approx(plain["loss_decode"] / 2, rel=1e-5)
    parts = [terms[f"loss_{name}"] for name in ("decode", "focal", "lovasz", "auxiliary")]
    assert terms["loss"] == pytest.approx(sum(parts), rel=1e-6)
    assert 0 < terms["loss_lovasz"] < 1


def test_one_channel_trains_evaluates_and_predicts(tmp_path):
    """Binary cross entropy of one logit, from a folder of two classes to labels and confidence."""
    c = config(steps=12, eval_every=12)
    c.data.update(name="folder", root=str(two_classes(tmp_path / "data")), test_scale=(0, 0))
    c.model.update(num_classes=1, threshold=0.4)
    loop.train(c, tmp_path / "run")
    (scored,) = history(tmp_path / "run", "eval")
    assert set(scored["per_class"]) == {"rest", "bright"}
    model = api.load(tmp_path / "run")
    assert model.variables["params"]["decode_head"]["conv_seg"]["bias"].shape == (1,)
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    labels, sure = model.predict(image)
    odds = 1 / (1 + np.exp(-model.logits(image)[..., 1]))
    np.testing.assert_array_equal(labels, odds > 0.4)
    np.testing.assert_allclose(sure, np.where(labels == 1, odds, 1 - odds), atol=1e-5)
    answers = answer.Answerer(model, desk.Occupation())
    served = answers(cv2.imencode(".png", image[..., ::-1])[1].tobytes(), "json")
    assert served.mean_confidence == pytest.approx(sure.mean(), abs=1e-4)
    shares = {found.name: found.share for found in served.classes}
    assert shares.get("bright", 0) == pytest.approx(100 * labels.mean(), abs=0.01)
    c.data.update(name="synthetic", root="")
    with pytest.raises(UserError, match="is for two classes, and there are 9"):
        loop.train(c, tmp_path / "other")
    assert not (tmp_path / "other/run.json").exists()


def two_classes(root):
    """A folder of noise whose brighter half is the second class."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(4):
            label = np.zeros((48, 64), np.uint8)
            label[:, 32:] = 1
            layouts.write_jpg(
                root / f"images/{split}/{number}.jpg",
                rng.integers(0, 128, (48, 64, 3), np.uint8) + 127 * label[..., None],
            )
            layouts.write_png(root / f"labels/{split}/{number}.png", label)
    (root / "classes.json").write_text(json.dumps({"classes": ["rest", "bright"]}))
    return root
