"""Every contender of `benchmarks/loader.py` reads the real frames; times are not checked."""

import importlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest

CROP = (128, 256)


@pytest.fixture(scope="module")
def loader():
    path = Path(__file__).parents[2] / "benchmarks" / "loader.py"
    spec = importlib.util.spec_from_file_location("loader_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_every_contender_gives_samples_of_the_crop_size(loader, shared_data, tmp_path):
    root = str(shared_data / "cityscapes")
    samples = {
        name: loader.sampler(name, root, str(tmp_path), CROP)(0) for name in loader.CONTENDERS
    }
    for name in ("png", "png crop first", "cache"):
        assert samples[name]["image"].shape == (*CROP, 3)
        assert samples[name]["label"].shape == CROP
    assert samples["mmseg"]["inputs"].shape == (3, *CROP)
    assert samples["cache batches"]["image"].shape == (8, *CROP, 3)
    host, device = (samples[f"{name} batches"] for name in ("cache", "cache device"))
    np.testing.assert_array_equal(device["index"], host["index"])
    assert device["distortion"].shape == (8, 5)
    assert samples["cache device"]["image"].shape == (*CROP, 3)
    assert samples["limit"].shape == (*CROP, 3)
    assert samples["limit all stages"].label.shape == CROP
    np.testing.assert_array_equal(samples["png"]["label"], samples["cache"]["label"])
    np.testing.assert_array_equal(samples["png crop first"]["image"], samples["cache"]["image"])
    sizes = loader.sizes(root, str(tmp_path))
    assert sizes["cache_mb"] > sizes["png_mb"] > 0
    assert set(loader.resume(root, str(tmp_path))) == {
        "first_batch_seconds_step_0",
        "first_batch_seconds_step_100000",
    }


def test_ratios_are_computed_within_each_round(loader):
    mmseg = [(2.0, 2.0), (40.0, 40.0), (4.0, 4.0)]
    ours = [(1.0, 1.0), (10.0, 10.0), (4.0, 4.0)]
    limit = [(0.5, 0.5), (2.5, 2.5), (1.0, 1.0)]
    times = {"mmseg": mmseg, "limit": limit, "limit all stages": ours}
    summary = loader._summary(ours, times, workers=2)
    assert summary["times_mmseg"] == 2.0
    assert summary["share_of_limit"] == 0.25
    assert summary["share_of_all_stages"] == 1.0
    assert summary["samples_per_second"] == 0.5


def test_stages_are_timed_within_their_sample(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    stages = importlib.import_module("loader_stages").Stages()
    calls = []
    step = stages.timed("step", calls.append)
    table = stages.table(lambda i: [step(i), step(i)], 3)
    assert set(table) == {"step", "all"}
    assert 0 < table["step"] < table["all"]
    assert len(calls) == 2 * 3 * (2 + 3)  # calls per sample, runs, samples (2 warm-up)
