"""Labels that a model contradicts, and photographs to label next, with models made for it."""

import json

import cv2
import numpy as np
import pytest
import small

from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.data.datasets import DatasetInfo, Sample
from fastfcn_jax.doctor import __main__ as doctor
from fastfcn_jax.doctor import contradictions, next_labels, suspects, trained
from fastfcn_jax.errors import UserError

PALETTE = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
INFO = DatasetInfo("toy", ("red", "green", "blue"), PALETTE)


def by_color(image):
    """A model: the class of a pixel is its colour; black is uncertain."""
    scores = image.astype(np.float32) / 64
    p = np.exp(scores - scores.max(-1, keepdims=True))
    return np.maximum(p / p.sum(-1, keepdims=True), trained.LEAST)


class Source:
    def __init__(self, samples):
        self.samples, self.info = samples, INFO
        self.ids = [sample.id for sample in samples]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[int(index)]


def scene(name, rng, shape=(40, 60)):
    """Three bands of noisy colour, labelled correctly."""
    label = np.repeat(np.arange(3, dtype=np.uint8), shape[1] // 3)[None].repeat(shape[0], 0)
    image = np.clip(PALETTE[label].astype(int) + rng.integers(-60, 60, (*shape, 3)), 0, 255)
    return Sample(name, image.astype(np.uint8), label)


@pytest.fixture
def planted():
    """Scenes with one wrong patch, one wholly wrong label, and one whose borders are shifted."""
    rng = np.random.default_rng(0)
    samples = [scene(f"s{i}", rng) for i in range(8)]
    samples[3].label[10:18, 25:35] = 0  # green called red
    samples[5].label[:] = (samples[5].label + 1) % 3
    samples[6].label[:, 20] = 0  # one column at the border: not an error
    samples[7].label[:20] = 255
    return {"train": Source(samples[:4]), "val": Source(samples[4:])}


def test_planted_errors_rank_first_and_nothing_else_is_suspected(planted):
    found = contradictions.rank(by_color, planted, 5)
    assert found.examined == 8
    assert [(p.split, p.index) for p in found.photos] == [("val", 1), ("train", 3)]
    patch = found.regions[-1]
    assert (patch.split, patch.index, patch.labelled, patch.predicted) == ("train", 3, 0, 1)
    assert patch.box == (25, 10, 10, 8)
    assert patch.pixels == 80
    assert [(r.split, r.index) for r in found.regions[:-1]] == [("val", 1)] * 3


def test_the_score_is_the_sum_over_the_labelled_pixels(planted):
    sample = planted["train"][3]
    found = contradictions.rank(by_color, planted, 9)
    patch = found.regions[-1]
    here = np.s_[10:18, 25:35]
    surprise = -np.log(by_color(sample.image)[here][..., 0])
    assert patch.mean == pytest.approx(surprise.mean(), rel=1e-5)
    assert patch.score == pytest.approx(surprise.sum() / sample.label.size, rel=1e-5)
    (photo,) = [p for p in found.photos if p.split == "train"]
    assert photo.score == pytest.approx(patch.score)


def test_what_the_model_is_unsure_of_is_no_suspect():
    rng = np.random.default_rng(0)
    dark = scene("dark", rng)
    dark.image[:] //= 8
    dark.label[:] = (dark.label + 1) % 3
    sources = {"train": Source([*(scene(f"s{i}", rng) for i in range(6)), dark])}
    assert contradictions.rank(by_color, sources, 5).photos == []


def test_confidence_is_the_mean_probability_where_a_class_is_labelled(planted):
    places = [("val", 0), ("val", 2)]
    found = contradictions.confidences(by_color, planted, places)
    p = np.stack([by_color(planted["val"][i].image) for i in (0, 2)])
    label = np.stack([planted["val"][i].label for i in (0, 2)])
    expected = [p[label == k][:, k].mean() for k in range(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_near_duplicates_are_not_both_chosen():
    rng = np.random.default_rng(1)
    grey = np.full((32, 48, 3), 90, np.uint8)
    half = grey.copy()
    half[:, 24:] = (255, 0, 0)
    sure = scene("sure", rng).image
    twin = np.clip(grey.astype(int) + rng.integers(-2, 3, grey.shape), 0, 255).astype(np.uint8)
    images = [sure, grey, twin, half]
    unsure, described = zip(*(next_labels.describe(by_color(i)) for i in images), strict=True)
    chosen = next_labels.choose(unsure, described, 4)
    order = [c.index for c in chosen]
    assert sorted(order[:2]) in ([1, 3], [2, 3])
    assert len(order) == 3  # the twin is left out although there was room
    assert order[2] == 0
    assert chosen[0].uncertainty == pytest.approx(1, abs=1e-3)  # black: all classes alike


def test_uncertainty_alone_decides_between_equally_different_photographs():
    described = [np.eye(4)[i] / 2**0.5 for i in range(4)]
    chosen = next_labels.choose([0.2, 0.9, 0.5, 0.7], described, 3)
    assert [c.index for c in chosen] == [1, 3, 2]
    assert [c.difference for c in chosen] == pytest.approx([1, 1, 1])


def test_a_description_is_a_distribution_for_each_cell():
    p = by_color(scene("a", np.random.default_rng(0), (3, 33)).image)  # fewer rows than cells
    unsure, description = next_labels.describe(p)
    assert 0 < unsure < 1
    assert (description**2).sum() == pytest.approx(0.5, rel=1e-5)


@pytest.fixture
def run(tmp_path):
    """A folder of one's own and a narrow random model of its classes."""
    rng = np.random.default_rng(0)
    data = tmp_path / "photos"
    for split in ("train", "val"):
        for part in ("images", "labels"):
            (data / part / split).mkdir(parents=True)
        for i in range(2):
            sample = scene(f"{split}{i}", rng, (48, 66))
            cv2.imwrite(str(data / f"images/{split}/{sample.id}.png"), sample.image[..., ::-1])
            cv2.imwrite(str(data / f"labels/{split}/{sample.id}.png"), sample.label)
    (data / "classes.json").write_text(json.dumps({"classes": list(INFO.class_names)}))
    config = small.config("fcn", "none", data="folder", backbone="resnet18")
    config.data.root, config.data.test_scale = str(data), (66, 48)
    card = model_folder.model_card(config, INFO, {})
    folder = tmp_path / "run"
    model_folder.save_model(folder, small.variables(config.model, 3), card)
    return folder, data


@pytest.mark.slow
def test_the_command_writes_table_json_and_page(run, tmp_path, capsys):
    folder, data = run
    new = tmp_path / "new"
    new.mkdir()
    for i in range(3):
        image = scene("n", np.random.default_rng(5 + i), (48, 66)).image
        cv2.imwrite(str(new / f"n{i}.png"), np.roll(image, 20 * i, axis=1))
    (new / "broken.jpg").write_bytes(b"no picture")
    arguments = ["--checkpoint", str(folder), "--suspects", "3", "--next", str(new), "--count=2"]
    assert doctor.COMMAND.main(arguments) == 1
    said = capsys.readouterr()
    assert "broken.jpg" in said.err
    assert "suspicious regions" in said.out
    content = json.loads((folder / "suspects/suspects.json").read_text())
    assert content["examined"] == 4
    assert content["regions"][0]["label"].startswith(str(data / "labels"))
    scores = [region["score"] for region in content["regions"]]
    assert 1 <= len(scores) <= 3
    assert scores == sorted(scores, reverse=True)
    assert "data:image/jpeg" in (folder / "suspects/suspects.html").read_text()
    listed = (folder / "next/next.txt").read_text().splitlines()
    assert 1 <= len(listed) <= 2
    assert all(name.startswith(str(new)) for name in listed)
    assert "data:image/jpeg" in (folder / "next/next.html").read_text()
    # What is labelled already is not suggested.
    with pytest.raises(UserError, match="no photograph that is not labelled yet"):
        next_labels.suggest(folder, str(data / "images"), 2)


def test_without_a_model_the_flags_are_refused(capsys):
    assert doctor.COMMAND.main(["--suspects", "3"]) == 2
    assert "--suspects needs a trained model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("photos", "message"),
    [("-", "--next takes a folder"), ("nowhere", "--next nowhere: no such image")],
)
def test_what_holds_no_photographs_is_refused(photos, message):
    with pytest.raises(UserError, match=message):
        next_labels._find(photos)


def test_pictures_of_a_region_at_the_border_stay_inside():
    picture = np.full((200, 30, 3), 90, np.uint8)
    shown = suspects._around(picture, (0, 0, 5, 4))
    assert shown.shape == (4 + suspects.AROUND, 30, 3)
    assert (shown[:4, :5] == 90).all()  # the region itself is not drawn over
    assert (shown[4, :5] == 255).all()
    assert (shown[5, :6] == 0).all()
    assert (picture == 90).all()
