"""`benchmarks/peers.py`: labels and scores are the same for all, and the table goes on."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import camvid_mmseg
import peer_smp
import peer_trainers
import peer_ultralytics
import peers

VOID, IGNORED = 11, 255


@pytest.fixture
def layout(tmp_path):
    """Two photographs a split; the labels hold every class and void."""
    root, rng = tmp_path / "camvid", np.random.default_rng(0)
    for split in ("train", "val"):
        lines = []
        for name in ("a", "b"):
            for part, shape, high in ((split, (24, 36, 3), 256), (f"{split}annot", (24, 36), 12)):
                (root / part).mkdir(parents=True, exist_ok=True)
                values = rng.integers(0, high, shape, np.uint8)
                cv2.imwrite(str(root / part / f"{name}.png"), values)
            lines.append(f"{split}/{name}.png {split}annot/{name}.png")
        (root / f"{split}.txt").write_text("\n".join(lines))
    return camvid_mmseg.write_layout(root, tmp_path / "layout")


def test_ultralytics_finds_every_class_at_its_number(layout):
    described = peer_ultralytics.write_yaml(layout).read_text()
    for number, name in enumerate(peers.NAMES):
        assert f"\n  {number}: {name}\n" in described
    for image in (layout / "images" / "val").iterdir():
        # As it reads them: the mask beside images/, one channel without a palette.
        mask = Path(str(image).replace("/images/", "/labels/")).with_suffix(".png")
        found = cv2.imread(str(mask), cv2.IMREAD_ANYDEPTH)
        raw = layout.parent / "camvid" / "valannot" / mask.name
        wanted = cv2.imread(str(raw), cv2.IMREAD_UNCHANGED)
        assert set(np.unique(found)) == {*range(VOID), IGNORED}
        np.testing.assert_array_equal(np.where(found == IGNORED, VOID, found), wanted)
        assert mask.read_bytes()[25] == 0  # PNG colour type: grey; 3 would be a palette


def test_scores_are_those_of_a_matrix_made_by_hand():
    label = np.array([[0, 0, 3, 3], [3, 10, IGNORED, IGNORED]], np.uint8)
    predicted = np.array([[0, 3, 3, 3], [0, 10, 5, 0]], np.uint8)
    pairs = [(np.zeros((2, 4, 3), np.uint8), label)] * 2
    matrix = peers.count(lambda image: predicted, pairs)
    wanted = np.zeros((11, 11), np.int64)
    wanted[0, 0], wanted[0, 3], wanted[3, 3], wanted[3, 0], wanted[10, 10] = 2, 2, 4, 2, 2
    np.testing.assert_array_equal(matrix, wanted)
    found = peers.scored(matrix)
    assert found["mIoU"] == pytest.approx(100 * (2 / 6 + 4 / 8 + 1) / 3)
    assert found["aAcc"] == pytest.approx(100 * 8 / 12)
    assert found["IoU"]["Fence"] != found["IoU"]["Fence"]  # in neither: no score
    with pytest.raises(ValueError, match="for a photograph"):
        peers.count(lambda image: predicted[:1], pairs)


def test_validation_photographs_are_rgb_with_their_labels(layout):
    found = list(peers.pairs(layout))
    for (image, label), name in zip(found, ("a", "b"), strict=True):
        bgr = cv2.imread(str(layout.parent / "camvid" / "val" / f"{name}.png"))
        np.testing.assert_array_equal(image, bgr[..., ::-1])
        stored = cv2.imread(str(layout.parent / "camvid" / "valannot" / f"{name}.png"), -1)
        np.testing.assert_array_equal(label == IGNORED, stored == VOID)


def contender(module="json"):
    return peer_trainers.Contender((module, "some-package"), None, None)


def test_what_is_stored_is_not_trained_again(tmp_path, capsys):
    file = tmp_path / "peers.json"
    peers.merge(file, "first", {"budget": 60, "mIoU": 1.0, "IoU": {"Sky": float("nan")}})
    peers.merge(file, "first", {"ms": 2.0})
    found = {"budget": 60, "mIoU": 1.0, "IoU": {"Sky": None}, "ms": 2.0}
    assert json.loads(file.read_text())["first"] == found
    both = {"first": contender(), "second": contender()}
    assert peers.missing(both, file, 60.0) == ["second"]
    assert f"first: already in {file}" in capsys.readouterr().out
    assert peers.missing(both, file, 0.5) == ["first", "second"]  # a rehearsal is not the table


def test_an_interrupted_training_starts_anew(layout, tmp_path, monkeypatch):
    job = peer_trainers.Job(tmp_path, layout, tmp_path / "out" / "first", 1.0)
    job.folder.mkdir(parents=True)
    (job.folder / "checkpoint").touch()

    def train(given):
        assert list(given.folder.iterdir()) == []
        return {"steps": 1}

    def predictor(folder, which):
        return lambda image: np.full(image.shape[:2], 3, np.uint8)

    given = peer_trainers.Contender(("json", "json"), train, predictor)
    monkeypatch.setitem(peers.CONTENDERS, "first", given)
    found = peers.run("first", job)
    assert found["steps"] == 1
    assert found["mAcc"] == pytest.approx(100 / 11)


def test_an_absent_package_is_named_in_one_sentence(tmp_path, capsys):
    absent = {"first": contender("no_such_module_at_all"), "second": contender()}
    assert peers.missing(absent, tmp_path / "peers.json", 60.0) == ["second"]
    (line,) = capsys.readouterr().out.splitlines()
    assert "some-package is not installed" in line
    assert "benchmarks/peers.py" in line


def test_the_table_has_a_row_for_every_contender():
    row = {
        **{"batch": 8, "size": "192x256", "optimiser": "SGD", "parameters": 2_500_000},
        **{"minutes": 60.04, "steps": 5000, "epochs": 109.0, "mIoU": 54.321, "last_mIoU": 54.1},
        **{"mAcc": 60.0, "aAcc": 88.0, "ms": 41.6, "network_ms": 30.2},
    }
    lines = peers.table({"ours": row}).splitlines()
    columns = lines[0].count("|")
    assert all(line.count("|") == columns for line in lines)
    assert "| 54.32 | 54.10 | 60.00 | 88.00 | 42 (network 30) |" in lines[2]
    absent = [line for line in lines[2:] if "| missing |" in line]
    assert len(absent) == len(peers.CONTENDERS) - 1
    assert absent[0].startswith("| yolo26n-sem | missing |")


def test_the_steps_fill_the_time():
    # 20 s until step 10 (10 of them compiling), a step a second, 10 s a validation and its report.
    stamps = {"start": 100.0, 10: 120.0, 20: 130.0, 40: 150.0, "end": 160.0}
    steps, seconds = peer_trainers.steps_within(2000.0, {**stamps, "every": 500})
    assert seconds == 1.0
    validations = -(-steps // 500)
    assert 2000 - seconds <= 10 + steps * seconds + validations * 10 <= 2000


def test_augmented_labels_keep_to_their_pixels():
    """Where the photograph shows the class, the label has it."""
    rng = np.random.default_rng(0)
    label = np.repeat(np.repeat(rng.integers(0, 2, (6, 8), np.uint8), 60, 0), 60, 1)
    image = np.repeat(label[..., None] * 255, 3, 2)
    for _ in range(20):
        changed, new = peer_smp.augment(image, label, rng)
        assert changed.shape == (peer_smp.CROP, peer_smp.CROP, 3)
        assert changed.dtype == new.dtype == np.uint8
        assert set(np.unique(new)) <= {0, 1, IGNORED}
        inside = cv2.erode((new == 1).astype(np.uint8), np.ones((9, 9))) > 0
        outside = cv2.erode((new == 0).astype(np.uint8), np.ones((9, 9))) > 0
        if inside.any() and outside.any():
            assert np.median(changed[inside]) > np.median(changed[outside]) + 50
