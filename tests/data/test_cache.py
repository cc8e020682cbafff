"""The decoded cache: the same pixels, built once for all processes, intact after a kill."""

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from layouts import sentence, write_png

from fastfcn_jax.config.base import get_config
from fastfcn_jax.data import cache, datasets, pipeline

COUNT = 40


@pytest.fixture
def photos(camvid_root):
    """Forty CamVid photos of two sizes."""
    rng = np.random.default_rng(0)
    for i in range(2, COUNT):
        size = (12, 20) if i % 2 else (16, 10)
        write_png(camvid_root / "train" / f"{i:02}.png", rng.integers(0, 256, (*size, 3), np.uint8))
        write_png(camvid_root / "trainannot" / f"{i:02}.png", rng.integers(0, 12, size, np.uint8))
    return camvid_root


def source_of(root):
    return datasets.load("camvid", str(root), "train")


def assert_same(cached, source):
    assert list(cached.ids) == list(source.ids)
    for i in range(len(source)):
        assert cached[i].id == source[i].id
        np.testing.assert_array_equal(cached[i].image, source[i].image)
        np.testing.assert_array_equal(cached[i].label, source[i].label)


def test_a_cache_holds_the_samples_of_its_source(photos, tmp_path):
    source = source_of(photos)
    cached = cache.open_or_build(str(tmp_path / "cache"), source)
    assert_same(cached, source)
    assert_same(pickle.loads(pickle.dumps(cached)), source)
    assert not cached[3].image.flags.owndata  # views: pixels are read only when accessed
    assert not cached[3].label.flags.owndata


def test_a_finished_cache_is_not_built_again(photos, tmp_path, monkeypatch):
    source = source_of(photos)
    cache.open_or_build(str(tmp_path / "cache"), source)
    monkeypatch.setattr(cache, "_build", lambda *_: pytest.fail("built again"))
    assert_same(cache.open_or_build(str(tmp_path / "cache"), source), source)


def test_a_changed_file_makes_another_cache(photos, tmp_path):
    before = cache.fingerprint(source_of(photos))
    assert cache.fingerprint(source_of(photos)) == before
    path = photos / "trainannot" / "07.png"
    write_png(path, np.full((12, 20), 2, np.uint8))
    after = cache.fingerprint(source_of(photos))
    assert after != before
    written = path.stat().st_mtime_ns
    os.utime(path, ns=(written, written + 1))  # a corrected label may have as many bytes
    assert cache.fingerprint(source_of(photos)) != after


def test_a_cache_of_another_layout_is_not_opened(photos, monkeypatch):
    before = cache.fingerprint(source_of(photos))
    monkeypatch.setattr(cache, "LAYOUT", cache.LAYOUT - 1)
    assert cache.fingerprint(source_of(photos)) != before


def test_training_from_the_cache_gives_the_batches_of_the_files(photos, tmp_path):
    config = get_config()
    config.data.crop_size = (8, 12)
    config.data.resize_scale = (20, 12)
    config.train.batch_size = 4
    source = source_of(photos)
    cached = cache.open_or_build(str(tmp_path / "cache"), source)
    for crop_first in (False, True):
        config.data.crop_first = crop_first
        streams = [pipeline.build_train(config, s) for s in (source, cached)]
        for _ in range(12):
            files, pixels = map(next, streams)
            for key in files:
                np.testing.assert_array_equal(pixels[key], files[key])


PROGRAM = """
import sys, time
from fastfcn_jax.data import cache, datasets
source = datasets.load("camvid", sys.argv[1], "train")
report = cache._report
def slow(done, *rest):
    time.sleep(float(sys.argv[3]))
    print(done, flush=True)
cache._report = slow
cached = cache.open_or_build(sys.argv[2], source, threads=2)
print("finished", len(cached), flush=True)
"""


def start(photos, folder, pause):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(photos), str(folder), str(pause)],
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_two_builders_at_once_build_one_cache(photos, tmp_path):
    builders = [start(photos, tmp_path / "cache", 0.01) for _ in range(2)]
    lines = [b.communicate(timeout=120)[0].splitlines() for b in builders]
    assert [b.returncode for b in builders] == [0, 0]
    assert [x[-1] for x in lines] == [f"finished {COUNT}"] * 2
    assert sorted(len(x) for x in lines) == [1, COUNT + 1]  # one built, one waited
    assert_same(cache.open_or_build(str(tmp_path / "cache"), source_of(photos)), source_of(photos))


@pytest.mark.slow
def test_a_killed_build_resumes_where_it_stopped(photos, tmp_path):
    builder = start(photos, tmp_path / "cache", 0.02)
    while builder.stdout.readline().strip() != "15":
        assert builder.poll() is None
    os.kill(builder.pid, signal.SIGKILL)
    builder.wait()
    builder.stdout.close()
    (folder,) = (tmp_path / "cache").iterdir()
    assert not (folder / "finished").exists()
    with open(folder / "index.jsonl", "a") as index:
        index.write('{"id": "half a li')  # what a kill can leave
    with open(folder / "pixels.bin", "ab") as pixels:
        pixels.write(b"half an image")
    again = start(photos, tmp_path / "cache", 0)
    lines = again.communicate(timeout=120)[0].splitlines()
    assert lines[-1] == f"finished {COUNT}"
    assert int(lines[0]) >= 15  # no completed work is repeated
    assert_same(cache.open_or_build(str(tmp_path / "cache"), source_of(photos)), source_of(photos))


def test_a_disk_that_is_too_small_is_named_before_anything_is_written(
    photos, tmp_path, monkeypatch
):
    import shutil

    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage)
    text = sentence(lambda: cache.open_or_build(str(tmp_path / "cache"), source_of(photos)))
    assert "set data.cache to another disk" in text


def test_a_folder_that_cannot_be_written_is_named(photos, tmp_path):
    (tmp_path / "file").write_text("")
    text = sentence(lambda: cache.open_or_build(str(tmp_path / "file"), source_of(photos)))
    assert text.startswith(f"{tmp_path / 'file'}/")
    assert "cannot be written (Not a directory); set data.cache to another disk" in text


def test_a_bad_file_is_named_and_the_build_resumes_once_it_is_repaired(photos, tmp_path):
    path = photos / "trainannot" / "07.png"
    good = path.read_bytes()
    path.write_bytes(good[:40])
    stamp = path.stat()
    assert str(path) in sentence(
        lambda: cache.open_or_build(str(tmp_path / "cache"), source_of(photos))
    )
    path.write_bytes(good)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert_same(cache.open_or_build(str(tmp_path / "cache"), source_of(photos)), source_of(photos))


def test_generated_scenes_are_not_cached(tmp_path):
    text = sentence(
        lambda: cache.open_or_build(str(tmp_path), datasets.load("synthetic", "", "val"))
    )
    assert "data.cache" in text


def test_nothing_in_the_index_points_past_the_pixels(photos, tmp_path):
    cached = cache.open_or_build(str(tmp_path / "cache"), source_of(photos))
    (folder,) = (tmp_path / "cache").iterdir()
    lines = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]
    assert lines[-1]["end"] == (folder / "pixels.bin").stat().st_size
    assert cached.offsets[1] == 12 * 20 * 4


def cut(path, size=-1):
    path.write_bytes(path.read_bytes()[:size])


def drop_last_sample(folder):
    lines = (folder / "index.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "index.jsonl").write_bytes(b"".join(lines[:-1]))


def swap_two_samples(folder):
    lines = (folder / "index.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "index.jsonl").write_bytes(b"".join([lines[1], lines[0], *lines[2:]]))


DAMAGE = {
    "samples instead of": drop_last_sample,
    "its index changed": swap_two_samples,
    "its bytes changed": lambda folder: cut(folder / "pixels.bin"),
    "0 samples": lambda folder: (folder / "index.jsonl").write_bytes(b""),
    "pixels.bin": lambda folder: (folder / "pixels.bin").unlink(),
    "Expecting value": lambda folder: (folder / "finished").write_bytes(b""),
    "another version": lambda folder: (folder / "finished").write_bytes(b"[]"),
    "its samples and bytes and index": lambda folder: (folder / "finished").write_bytes(b"{}"),
}


@pytest.mark.parametrize(("sentence", "damage"), DAMAGE.items(), ids=DAMAGE)
def test_a_damaged_cache_is_rebuilt(photos, tmp_path, capsys, sentence, damage):
    source = source_of(photos)
    before = cache.open_or_build(str(tmp_path), source)
    label = before[0].label
    content = label.copy()
    damage(Path(before.path).parent)
    capsys.readouterr()
    assert_same(cache.open_or_build(str(tmp_path), source), source)
    (line,) = (x for x in capsys.readouterr().err.splitlines() if "warning" in x)
    assert sentence in line
    assert line.endswith("; rebuilding the cache")
    np.testing.assert_array_equal(label, content)  # still mapped
    assert_same(cache.open_or_build(str(tmp_path), source), source)
    assert "warning" not in capsys.readouterr().err


def test_a_finished_cache_is_read_where_nothing_can_be_written(photos, tmp_path, monkeypatch):
    source = source_of(photos)
    cache.open_or_build(str(tmp_path / "cache"), source)
    monkeypatch.setattr(cache.Path, "mkdir", lambda *_, **__: pytest.fail("written to"))
    monkeypatch.setattr(cache, "_lock", lambda _: pytest.fail("written to"))
    assert_same(cache.open_or_build(str(tmp_path / "cache"), source), source)


@pytest.mark.parametrize("lost", ["end of the pixels", "page of the pixels", "line of the index"])
def test_after_a_power_failure_a_build_resumes_where_all_is_intact(photos, tmp_path, capsys, lost):
    source = source_of(photos)
    folder = Path(cache.open_or_build(str(tmp_path), source).path).parent
    (folder / "finished").unlink()
    pixels = bytearray((folder / "pixels.bin").read_bytes())
    lines = (folder / "index.jsonl").read_bytes().splitlines(keepends=True)
    start = json.loads(lines[20])["offset"]
    if lost == "end of the pixels":
        del pixels[start + 5 :]
    elif lost == "page of the pixels":
        pixels[start : start + 100] = bytes(100)
    else:
        lines[20] = b"\0" * 30 + b"\n"
    (folder / "pixels.bin").write_bytes(pixels)
    (folder / "index.jsonl").write_bytes(b"".join(lines))
    cache._mapped.cache_clear()
    started = []
    in_order = cache.pipeline.in_order
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            cache.pipeline,
            "in_order",
            lambda s, r, **k: started.append(r.start) or in_order(s, r, **k),
        )
        assert_same(cache.open_or_build(str(tmp_path), source), source)
    assert started == [20]
