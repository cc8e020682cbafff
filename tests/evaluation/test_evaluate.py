"""`evaluate`: counts over a data set, per image and in total."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from flax import linen as nn

from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.data.datasets import DatasetInfo, Sample
from fastfcn_jax.errors import UserError
from fastfcn_jax.evaluation import outcome
from fastfcn_jax.evaluation.evaluate import Result, evaluate
from fastfcn_jax.evaluation.report import document
from fastfcn_jax.files import write_json
from fastfcn_jax.inference import protocols
from fastfcn_jax.inference.prediction import Prediction
from fastfcn_jax.inference.predictor import Predictor
from fastfcn_jax.training import sinks

PALETTE = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)


@dataclasses.dataclass
class Source:
    """Images whose red channel is what `Echo` predicts."""

    samples: list
    info = DatasetInfo("toy", ("a", "b", "c"), PALETTE)

    @property
    def ids(self):
        return [sample.id for sample in self.samples]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


class Echo(Predictor):
    """Predicts the red channel of the image; reverses the order within each three images."""

    def __init__(self, protocol="single"):
        protocol = protocols.build(protocol, test_scale=(0, 0))
        super().__init__(nn.Dense(1), {}, protocol=protocol)

    def stream(self, images):
        waiting = []
        for key, image in images:
            waiting.append((key, Prediction(image[..., 0], None)))
            if len(waiting) == 3:
                yield from reversed(waiting)
                waiting = []
        yield from reversed(waiting)


@pytest.fixture
def source():
    rng = np.random.default_rng(0)
    samples = []
    for i in range(7):
        shape = (20 + i, 31)
        image = np.repeat(rng.integers(0, 3, (*shape, 1), dtype=np.uint8), 3, axis=-1)
        label = rng.choice(np.array([0, 1, 255], np.uint8), shape)
        samples.append(Sample(f"image{i}", image, label))
    return Source(samples)


def test_matrix_is_the_sum_and_counts_belong_to_their_image(source):
    result = evaluate(Echo(), source, progress=False)
    assert result.ids == tuple(source.ids)
    assert result.num_images == 7
    for sample, (right, label, predicted) in zip(source.samples, result.counts, strict=True):
        valid = sample.label < 255
        prediction = sample.image[..., 0]
        for k in range(3):
            assert right[k] == np.sum((prediction == k) & (sample.label == k))
            assert label[k] == np.sum(sample.label == k)
            assert predicted[k] == np.sum((prediction == k) & valid)
    np.testing.assert_array_equal(np.diag(result.matrix), result.counts[:, 0].sum(0))
    np.testing.assert_array_equal(result.matrix.sum(1), result.counts[:, 1].sum(0))
    np.testing.assert_array_equal(result.matrix.sum(0), result.counts[:, 2].sum(0))


def test_max_images_uses_the_first_images(source):
    result = evaluate(Echo(), source, max_images=2, progress=False)
    assert result.ids == ("image0", "image1")
    assert result.num_images == 2


@pytest.mark.parametrize(("protocol", "expected"), [("single", 100), ("official", 100 / 3)])
def test_the_protocol_says_how_absent_classes_count(protocol, expected):
    road = Sample("road", np.zeros((8, 9, 3), np.uint8), np.zeros((8, 9), np.uint8))
    result = evaluate(Echo(protocol), Source([road]), progress=False)
    assert result.scores.miou == pytest.approx(expected)


def test_metrics_are_percentages_and_valid_json(source, tmp_path):
    metrics = evaluate(Echo(), source, progress=False).metrics()
    write_json(tmp_path / "metrics.json", metrics)
    stored = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert stored["protocol"] == "single"
    never_labelled = {"IoU": 0.0, "Acc": None, "F1": 0.0, "Precision": 0.0, "Recall": None}
    assert stored["per_class"]["c"] == never_labelled
    assert "foreground" not in stored
    assert stored["mIoU"] == pytest.approx(
        np.mean([stored["per_class"][name]["IoU"] for name in "abc"])
    )
    assert 0 < stored["aAcc"] < 100
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_the_official_lineage_counts_absent_classes_and_names_the_60_class_figure():
    matrix = np.zeros((59, 59), np.int64)
    matrix[0, 0], matrix[1, 0], matrix[1, 1] = 6, 2, 2  # IoU 6/8 and 2/4; 57 classes absent
    names = tuple(map(str, range(59)))
    counts = np.zeros((1, 3, 59), np.int64)

    def metrics(*, official):
        return Result("any", names, matrix, ("a",), counts, 1, official).metrics()

    assert metrics(official=False)["mIoU"] == pytest.approx(62.5)
    assert "mIoU_60" not in metrics(official=False)
    assert metrics(official=True)["mIoU"] == pytest.approx(125 / 59)
    assert metrics(official=True)["mIoU_60"] == pytest.approx(125 / 60)
    assert metrics(official=True)["per_class"]["7"]["IoU"] == 0


@pytest.mark.parametrize(
    ("names", "expected"),
    [(("background", "crack"), "crack"), (("crack", "Background"), "crack"), (("a", "b"), "b")],
)
def test_two_classes_report_the_foreground_everywhere(names, expected, capsys, tmp_path):
    matrix = np.array([[90, 4], [2, 8]])
    if expected == names[0]:
        matrix = matrix[::-1, ::-1]
    counts = np.stack([np.diag(matrix), matrix.sum(1), matrix.sum(0)])[None]
    result = Result("single", names, matrix, ("a",), counts, 1)
    foreground = result.metrics()["foreground"]
    assert foreground.pop("class") == expected
    assert foreground == pytest.approx(
        {
            "IoU": 100 * 8 / 14,
            "Acc": 80,
            "F1": 100 * 16 / 22,
            "Precision": 100 * 8 / 12,
            "Recall": 80,
        }
    )
    scores = f"{expected}: IoU 57.14  F1 72.73  Precision 66.67  Recall 80.00"
    assert scores in result.summary()
    outcome.print_table(result)
    said = capsys.readouterr().out
    assert scores in said
    assert "Precision" in said.splitlines()[2]
    document.write(tmp_path / "report.html", "x", result, palette=PALETTE[:2])
    text = (tmp_path / "report.html").read_text()
    assert f"<b>72.73</b>F1 of {expected}" in text
    tags = dict(sinks.scalars({"kind": "eval", "step": 1, **result.metrics()}))
    assert tags["eval/foreground/F1"] == pytest.approx(100 * 16 / 22)


def test_a_models_classes_are_compared_by_name():
    def compare(names):
        toy = DatasetInfo("toy", ("a", "b", "c"), PALETTE)
        return model_folder.compare_classes(Path("run"), toy, DatasetInfo("other", names, PALETTE))

    assert not compare(("a", "b", "c"))
    assert "class 1 is 'b' in the model and 'x' in the data set" in compare(("a", "x", "c"))
    with pytest.raises(UserError, match="in another order: class 0 is 'a' in the model and 'b'"):
        compare(("b", "a", "c"))
    with pytest.raises(UserError, match="3 classes, but other has 2"):
        compare(("a", "b"))
