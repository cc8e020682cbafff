"""Videos: what is written, left out and gone on with."""

import json

import cv2
import numpy as np
import PIL.Image
import pytest
import toy

from fastfcn_jax.errors import UserError
from fastfcn_jax.predict import video


@pytest.fixture
def call(tmp_path, monkeypatch):
    source = tmp_path / "drive.avi"
    sink = cv2.VideoWriter(str(source), cv2.VideoWriter.fourcc(*"MJPG"), 5.0, (96, 64))
    for seed in range(3):
        sink.write(toy.photograph(seed, (64, 96))[..., ::-1])
    sink.release()

    def predict(**options):
        return toy.predict(monkeypatch, source, tmp_path / "out", **options)

    return predict


def test_each_frame_gets_labels_and_the_call_a_line(call, tmp_path):
    summary, _ = call(legend=True)
    assert summary.total == 3
    shapes = [frame.shape for frame in video.Video(tmp_path / "out" / "drive_overlay.mp4")]
    assert shapes == [(64 + 44, 96, 3)] * 3
    for number, frame in enumerate(video.Video(tmp_path / "drive.avi")):
        labels = np.array(PIL.Image.open(tmp_path / "out" / "drive" / f"{number:06d}.png"))
        np.testing.assert_array_equal(labels, toy.labels_of(frame))
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert json.loads(lines[1])["outputs"] == ["drive_overlay.mp4", "drive/"]
    summary, model = call(legend=True, skip_existing=True)
    assert (summary.total, model.predictor.seen) == (0, [])


def test_without_overlays_there_are_frames_alone(call, tmp_path):
    for _ in range(2):  # nothing tells that the frames are complete: they are made again
        summary, _ = call(overlay=False, skip_existing=True)
        assert summary.total == 3
    names = {p.name for p in (tmp_path / "out").rglob("*")}
    assert names == {"predictions.jsonl", "drive", *(f"{i:06d}.png" for i in range(3))}


def test_a_video_belongs_to_one_shard(call):
    assert sorted(call(shard=f"{i}/3")[0].total for i in range(3)) == [0, 0, 3]


@pytest.mark.parametrize("options", [{"polygons": "coco"}, {"tile": 64}])
def test_what_is_for_photographs_is_refused(call, tmp_path, options):
    with pytest.raises(UserError, match=r"drive\.avi: --tile and --polygons are for photographs"):
        call(**options)
    assert not (tmp_path / "out").exists()
