"""The training order depends only on seed and step, not on the number of threads and hosts."""

import hashlib
from functools import partial

import numpy as np
import pytest
from in_memory import SENTENCE, Broken, InMemory

from fastfcn_jax.config.base import get_config
from fastfcn_jax.data import datasets, pipeline
from fastfcn_jax.data.augment import mmseg
from fastfcn_jax.errors import UserError

SCENES = InMemory()
AUGMENT = partial(
    mmseg.augment,
    crop_size=(32, 48),
    resize_scale=(80, 48),
    ratio_range=(0.5, 2.0),
    cat_max_ratio=0.75,
    flip=0.5,
    photometric=True,
)


def batches(count, **changes):
    settings = {"batch_size": 8, "seed": 3, "threads": 2, "prefetch": 2} | changes
    stream = pipeline.train_batches(SCENES, AUGMENT, **settings)
    return [next(stream) for _ in range(count)]


def digest(batch):
    return hashlib.sha256(b"".join(batch[k].tobytes() for k in sorted(batch))).hexdigest()


@pytest.fixture(scope="module")
def two_epochs():
    """16 global batches of 8: two epochs of the 64 scenes."""
    return batches(16)


def test_a_batch_is_what_the_contract_says(two_epochs):
    batch = two_epochs[0]
    assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
        "image": ((8, 32, 48, 3), "uint8"),
        "label": ((8, 32, 48), "uint8"),
        "size": ((8, 2), "int32"),
        "index": ((8,), "int64"),
    }


def test_every_epoch_shows_every_image_once_in_another_order(two_epochs):
    first = np.concatenate([b["index"] for b in two_epochs[:8]])
    second = np.concatenate([b["index"] for b in two_epochs[8:]])
    assert sorted(first) == sorted(second) == list(range(64))
    assert first.tolist() != second.tolist()
    assert first.tolist() != sorted(first)


def test_the_same_image_is_augmented_differently_each_epoch(two_epochs):
    def crop_of(index, epoch):
        for batch in epoch:
            for place in np.flatnonzero(batch["index"] == index):
                return batch["image"][place]

    differing = [
        (crop_of(i, two_epochs[:8]) != crop_of(i, two_epochs[8:])).any() for i in range(64)
    ]
    assert all(differing)


@pytest.mark.parametrize("threads", [0, 1, 5])
def test_threads_do_not_change_a_batch(two_epochs, threads):
    assert list(map(digest, batches(16, threads=threads))) == list(map(digest, two_epochs))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_do_not_change_a_batch(two_epochs, workers):
    first = batches(5, workers=workers, threads=1)
    assert list(map(digest, first)) == list(map(digest, two_epochs[:5]))


def test_two_hosts_read_the_two_halves_of_the_global_batch(two_epochs):
    halves = [batches(16, shard=(host, 2)) for host in (0, 1)]
    joined = [{k: np.concatenate([a[k], b[k]]) for k in a} for a, b in zip(*halves, strict=True)]
    assert list(map(digest, joined)) == list(map(digest, two_epochs))


def test_a_run_resumed_on_another_number_of_hosts_gets_the_same_batches(two_epochs):
    halves = [batches(3, start_step=9, shard=(host, 2)) for host in (0, 1)]
    for step, parts in enumerate(zip(*halves, strict=True), 9):
        joined = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
        assert digest(joined) == digest(two_epochs[step])


def test_step_100000_needs_no_reading_of_what_came_before():
    reads = []

    class Counting(InMemory):
        def __getitem__(self, index):
            reads.append(index)
            return self.samples[index]

    stream = pipeline.train_batches(
        Counting(),
        AUGMENT,
        batch_size=8,
        seed=3,
        start_step=100_000,
        threads=1,
        prefetch=1,
    )
    assert digest(next(stream)) == digest(batches(1, start_step=100_000)[0])
    assert len(reads) <= 4 * 8  # the batch and what is read ahead


def test_another_seed_gives_other_batches(two_epochs):
    assert digest(batches(1, seed=4)[0]) != digest(two_epochs[0])


def test_a_sample_is_augmented_with_the_generator_of_its_position(two_epochs):
    """Position = step * batch size + place, so that a single logged sample can be reproduced."""
    batch, place = two_epochs[5], 3
    sample = SCENES[batch["index"][place]]
    again = AUGMENT(sample.image, sample.label, np.random.default_rng((3, 5 * 8 + place)))
    np.testing.assert_array_equal(again.image, batch["image"][place])
    assert tuple(batch["size"][place]) == again.size


def test_in_order_gives_all_samples_once_and_ends():
    seen = list(pipeline.in_order(SCENES, [5, 2, 63], threads=3))
    assert [i for i, _ in seen] == [5, 2, 63]
    np.testing.assert_array_equal(seen[1][1].image, SCENES[2].image)
    assert len(list(pipeline.in_order(SCENES))) == 64


def test_the_builder_reads_the_config():
    config = get_config()
    config.data.crop_size = (16, 24)
    config.data.resize_scale = (80, 48)
    config.train.batch_size = 2
    batch = next(pipeline.build_train(config, SCENES, start_step=1))
    assert batch["image"].shape == (2, 16, 24, 3)


def test_hosts_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(UserError, match=r"train\.batch_size: 8 .* 3 hosts"):
        batches(1, shard=(0, 3))


@pytest.mark.slow
def test_a_bad_file_met_by_a_worker_process_arrives_as_its_own_sentence():
    stream = pipeline.train_batches(Broken(), AUGMENT, batch_size=4, seed=0, workers=1)
    with pytest.raises(UserError) as caught:
        next(stream)
    assert str(caught.value) == SENTENCE


@pytest.mark.parametrize("threads", [0, 4])
def test_a_bad_file_met_by_a_reading_thread_arrives_as_its_own_sentence(threads):
    stream = pipeline.train_batches(
        Broken(), AUGMENT, batch_size=4, seed=0, threads=threads, prefetch=2
    )
    with pytest.raises(UserError) as caught:
        next(stream)
    assert str(caught.value) == SENTENCE
    with pytest.raises(UserError) as caught:
        next(iter(pipeline.in_order(Broken(), threads=threads)))
    assert str(caught.value) == SENTENCE


def test_generated_scenes_hold_every_class_and_an_ignored_region():
    counts = sum(
        np.bincount(datasets.load("synthetic", "", "val")[i].label.ravel(), minlength=256)
        for i in range(12)
    )
    assert len(SCENES.info.class_names) >= 8
    assert (counts[: len(SCENES.info.class_names)] > 0).all()
    assert counts[255] > 0
    assert counts[len(SCENES.info.class_names) : 255].sum() == 0
