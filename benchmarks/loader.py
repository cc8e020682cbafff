"""Samples a second and core: mmsegmentation's pipeline, ours from PNG, ours from the cache.

python benchmarks/loader.py --root CITYSCAPES [--workers 1,2] [--rounds 15] [--output FILE.json]

All contenders run in turns within each round and the median over rounds counts, so a machine that
is busy with something else slows them alike. One worker is one process bound to one core; "x mmseg"
compares processor time. The real
mmsegmentation is needed (`make test` installs it).
"""

import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from absl import flags

sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("", "tests")]

from fastfcn_jax import cli  # noqa: E402
from fastfcn_jax.data import cache, crop_first, datasets, transforms  # noqa: E402
from fastfcn_jax.data.datasets import cityscapes  # noqa: E402

CROPS = {"512x1024": (512, 1024), "512x512": (512, 512)}
SETTINGS = {
    "resize_scale": (2048, 1024),
    "ratio_range": (0.5, 2.0),
    "cat_max_ratio": 0.75,
    "flip": 0.5,
    "photometric": True,
}
CONTENDERS = ("mmseg", "png", "png, crop first", "cache", "cache, chunked", "limit")


def sampler(name: str, root: str, folder: str, crop_size: tuple[int, int]):
    """A function of the sample number that reads and augments one sample."""
    settings = SETTINGS | {"crop_size": crop_size}
    if name == "mmseg":
        return _mmseg(root, crop_size)
    source = datasets.load("cityscapes", root, "train")
    if name in ("png", "png, crop first"):
        return partial(_from_png, source, settings, name == "png, crop first")
    cached = cache.open_or_build(folder, source)
    if name == "cache":
        return partial(_from_cache, cached, settings)
    if name == "cache, chunked":
        return _chunked(cached, folder, settings)
    return partial(_limit, cached, crop_size)


def _from_png(source, settings, first: bool, i: int):
    sample, rng = source[i % len(source)], np.random.default_rng((0, i))
    if first:
        return crop_first.augment(crop_first.pack(sample.image, sample.label), rng, **settings)
    return transforms.augment(sample.image, sample.label, rng, **settings)


def _from_cache(cached, settings, i: int):
    return crop_first.augment(
        cached.pixels(i % len(cached)), np.random.default_rng((0, i)), **settings
    )


def _limit(cached, crop_size, i: int):
    """What no loader can go below: copy the window out of the map and resize it to the crop."""
    rng = np.random.default_rng((0, i))
    pixels = cached.pixels(i % len(cached))
    ratio = rng.uniform(0.5, 2.0)
    h = min(int(crop_size[0] / ratio), pixels.shape[0])
    w = min(int(crop_size[1] / ratio), pixels.shape[1])
    y, x = rng.integers(0, pixels.shape[0] - h + 1), rng.integers(0, pixels.shape[1] - w + 1)
    window = np.ascontiguousarray(pixels[y : y + h, x : x + w])
    return cv2.resize(window, crop_size[::-1])


def _mmseg(root: str, crop_size: tuple[int, int]):
    """mmsegmentation's own dataset class and training pipeline, packing included."""
    import oracle

    oracle.import_mmseg()
    from mmseg.datasets import CityscapesDataset

    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations"},
        {
            "type": "RandomResize",
            "scale": SETTINGS["resize_scale"],
            "ratio_range": SETTINGS["ratio_range"],
            "keep_ratio": True,
        },
        {"type": "RandomCrop", "crop_size": crop_size, "cat_max_ratio": 0.75},
        {"type": "RandomFlip", "prob": 0.5},
        {"type": "PhotoMetricDistortion"},
        {"type": "PackSegInputs"},
    ]
    prefix = {"img_path": "leftImg8bit/train", "seg_map_path": "gtFine/train"}
    dataset = CityscapesDataset(data_root=root, data_prefix=prefix, pipeline=pipeline)

    def sample(i: int):
        np.random.seed(i)  # noqa: NPY002 - what mmseg draws from
        return dataset[i % len(dataset)]

    return sample


def _chunked(cached, folder: str, settings):
    """The same pixels in compressed chunks of 256x256 (zarr, Blosc lz4), read by TensorStore."""
    import tensorstore as ts

    context = ts.Context({"data_copy_concurrency": {"limit": 1}})
    path = Path(folder, "chunked.zarr")
    height, width = cached.sizes[0]
    spec = {
        "driver": "zarr",
        "kvstore": {"driver": "file", "path": str(path)},
        "metadata": {
            "shape": [len(cached), height, width, 4],
            "chunks": [1, 256, 256, 4],
            "dtype": "|u1",
            "compressor": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 0},
        },
    }
    if not path.is_dir():
        store = ts.open(spec, create=True, context=context).result()
        for i in range(len(cached)):
            store[i].write(cached.pixels(i)).result()
    store = ts.open(spec, open=True, context=context).result()
    return partial(_from_chunks, store, settings)


class _Window:
    """Array-like pixels that read the rectangle asked for, as the crop-first path slices them."""

    def __init__(self, store):
        self.store, self.shape = store, tuple(store.shape)

    def __getitem__(self, key):
        return self.store[key].read().result()


def _from_chunks(store, settings, i: int):
    """Draws as the other paths do, then reads only the window of the crop."""
    rng = np.random.default_rng((0, i))
    pixels = _Window(store[i % store.shape[0]])
    crop_size = settings["crop_size"]
    size = transforms.draw_size(
        pixels.shape[:2],
        rng,
        scale=settings["resize_scale"],
        ratio_range=settings["ratio_range"],
    )
    windows = {}

    def window_at(y: int, x: int):
        step_y, step_x = pixels.shape[0] / size[0], pixels.shape[1] / size[1]
        bottom = min(int((y + crop_size[0]) * step_y) + 2, pixels.shape[0])
        right = min(int((x + crop_size[1]) * step_x) + 2, pixels.shape[1])
        if (y, x) not in windows:
            windows[y, x] = pixels[int(y * step_y) : bottom, int(x * step_x) : right]
        return windows[y, x]

    y, x = transforms.draw_crop(
        lambda y, x: np.ascontiguousarray(window_at(y, x)[..., 3]),
        size,
        rng,
        crop_size=crop_size,
        cat_max_ratio=settings["cat_max_ratio"],
    )
    resized = cv2.resize(window_at(y, x), crop_size[::-1])
    return transforms.finish(
        cv2.cvtColor(resized, cv2.COLOR_RGBA2RGB),
        np.ascontiguousarray(resized[..., 3]),
        rng,
        crop_size=crop_size,
        flip=settings["flip"],
        photometric=settings["photometric"],
    )


def worker(core: int, name: str, root: str, folder: str, crop: str, pipe) -> None:
    """Runs in its own process: on "go" times a block of samples and sends seconds (wall, CPU)."""
    os.sched_setaffinity(0, {core})
    cv2.setNumThreads(1)
    sample = sampler(name, root, folder, CROPS[crop])
    for i in range(3):
        sample(i)
    pipe.send("ready")
    first = 3
    while (count := pipe.recv()) is not None:
        wall, cpu = time.perf_counter(), time.process_time()
        for i in range(first, first + count):
            sample(i)
        first += count
        pipe.send((time.perf_counter() - wall, time.process_time() - cpu))


def measure(crop: str, workers: int, root: str, folder: str, rounds: int) -> dict[str, dict]:
    """Samples a second of each contender with that many worker processes, interleaved."""
    cores = sorted(os.sched_getaffinity(0))[:workers]
    context = multiprocessing.get_context("spawn")
    teams = {}
    for name in CONTENDERS:
        team = []
        for core in cores:
            here, there = context.Pipe()
            arguments = (core, name, root, folder, crop, there)
            process = context.Process(target=worker, args=arguments, daemon=True)
            process.start()
            assert here.recv() == "ready"
            team.append((process, here))
        teams[name] = team
    times = {name: [] for name in CONTENDERS}
    for _ in range(rounds):
        for name, team in teams.items():
            count = 24 if name in ("cache", "limit") else 6
            for _, pipe in team:
                pipe.send(count)
            results = [pipe.recv() for _, pipe in team]
            wall = max(r[0] for r in results)
            cpu = sum(r[1] for r in results) / len(results)
            times[name].append((wall / count, cpu / count))
    for team in teams.values():
        for process, pipe in team:
            pipe.send(None)
            process.join()
    return {name: _summary(values, times["mmseg"], workers) for name, values in times.items()}


def _summary(values: list[tuple], mmseg: list[tuple], workers: int) -> dict:
    """Medians over the rounds; the ratio to mmsegmentation is taken within each round."""
    wall, cpu = (statistics.median(v[k] for v in values) for k in (0, 1))
    ratios = [m[1] / v[1] for v, m in zip(values, mmseg, strict=True)]
    return {
        "samples_per_second": workers / wall,
        "ms": 1e3 * wall,
        "cpu_ms": 1e3 * cpu,
        "times_mmseg": statistics.median(ratios),
    }


def sizes(root: str, folder: str) -> dict[str, float]:
    """Megabytes a sample on disk, and bytes a crop touches in the memory map."""
    source = datasets.load("cityscapes", root, "train")
    cached = cache.open_or_build(folder, source)
    names = source.read.files()
    chunks = [p for p in Path(folder, "chunked.zarr").rglob("*") if p.is_file()]
    rng = np.random.default_rng(0)
    result = {
        "png_mb": sum(os.stat(n).st_size for n in names) / len(source) / 1e6,
        "cache_mb": os.stat(cached.path).st_size / len(cached) / 1e6,
        "chunked_mb": sum(p.stat().st_size for p in chunks) / len(cached) / 1e6,
    }
    for crop, (h, w) in CROPS.items():
        ratios = rng.uniform(0.5, 2.0, 20_000)
        touched = np.minimum(h / ratios, 1024) * np.minimum(w / ratios, 2048) * 4
        result[f"read_mb_{crop}"] = float(touched.mean() / 1e6)
    return result


def main(arguments: list[str]) -> None:
    del arguments
    root = _ROOT.value
    cityscapes.load(root, "train")  # a wrong root ends here, with its sentence
    report = {"cpu": os.cpu_count(), "opencv": cv2.__version__}
    with tempfile.TemporaryDirectory(dir=_CACHE.value) as folder:
        sampler("cache, chunked", root, folder, (512, 512))(0)  # builds both caches
        for crop in CROPS:
            for workers in map(int, _WORKERS.value):
                result = measure(crop, workers, root, folder, _ROUNDS.value)
                report[f"{crop}, {workers} workers"] = result
                print(f"\n{crop}, {workers} worker(s): samples/s | CPU ms a sample | x mmseg")
                for name, r in result.items():
                    print(
                        f"  {name:16} {r['samples_per_second']:8.1f} {r['cpu_ms']:8.2f}"
                        f" {r['times_mmseg']:7.2f}"
                    )
        report["sizes"] = sizes(root, folder)
    print("\n" + json.dumps(report["sizes"], indent=1))
    if _OUTPUT.value:
        Path(_OUTPUT.value).write_text(json.dumps(report, indent=1), "utf-8")


if __name__ == "__main__":
    _ROOT = flags.DEFINE_string("root", None, "Cityscapes folder.", required=True)
    _WORKERS = flags.DEFINE_list("workers", ["1", "2"], "Numbers of worker processes.")
    _ROUNDS = flags.DEFINE_integer("rounds", 15, "Interleaved rounds; the median counts.")
    _CACHE = flags.DEFINE_string("cache", None, "Where to build the caches; default: temporary.")
    _OUTPUT = flags.DEFINE_string("output", None, "JSON file for the figures.")
    cli.run(main)
