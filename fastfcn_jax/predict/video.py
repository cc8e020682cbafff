"""Reads a video, and writes the labels of its frames and a video of the overlays."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from fastfcn_jax import pictures, text
from fastfcn_jax.data.pixel_type import RGB
from fastfcn_jax.errors import UserError
from fastfcn_jax.files import make_folder, replacing
from fastfcn_jax.predict.inputs import Photograph, Photographs
from fastfcn_jax.predict.manifest import Manifest
from fastfcn_jax.predict.settings import OVERLAY, Settings
from fastfcn_jax.predict.shards import Shard
from fastfcn_jax.predict.writer import Writer
from fastfcn_jax.terminal.progress import track

LEGEND_LINES = 2  # fixed, as all frames of a video have the same height


class Video:
    """A video file: its nominal length and (height, width), and its frames in RGB.

    Raises UserError if OpenCV cannot open it.
    """

    def __init__(self, path: Path):
        if text.shown(path) != str(path):  # OpenCV would abort the process
            raise UserError(f"{text.shown(path)}: OpenCV needs a UTF-8 name; rename the video.")
        self.path = path
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise UserError(f"{path} is not a video that can be decoded.")
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or 25.0
        height, width = cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH
        self.size = int(self._capture.get(height)), int(self._capture.get(width))
        self.length = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "_ _ 3"]]:
        while True:
            ok, frame = self._capture.read()
            if not ok:
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


class Sink:
    """The video of the overlays; `write` opens it with the first frame's size."""

    def __init__(self, path: Path, shown: Path, fps: float):
        self._path, self._shown, self._fps = path, shown, fps
        self._file: cv2.VideoWriter | None = None

    def write(self, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        if self._file is None:
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            self._file = cv2.VideoWriter(str(self._path), codec, self._fps, frame.shape[1::-1])
            if not self._file.isOpened():
                raise UserError(
                    f"{self._shown}: no video can be written there; give another folder."
                )
        self._file.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        if self._file is not None:
            self._file.release()


class Single:
    """A video in the place of `inputs.Found`: one input, if it belongs to the shard."""

    def __init__(self, path: Path, settings: Settings, shard: Shard):
        stem = settings.stem(path.name)
        self._inputs = [Photograph(path, stem)] if shard.takes(path.name) else []

    def __len__(self) -> int:
        return len(self._inputs)

    def __iter__(self) -> Iterator[Photograph]:
        return iter(self._inputs)


def predict(model, videos: Photographs, writer: Writer, manifest: Manifest) -> int:
    """Writes one label map per frame and a video of the overlays; returns the number of frames.

    Raises:
      UserError: a file is not a video, or has no frame.
    """
    count = 0
    for video in videos:
        assert video.path is not None
        frames = predict_video(model, video.path, video.stem, writer)
        manifest.ok(video.stem, video.source, [*writer.outputs(video), f"{video.stem}/"])
        count += frames
    return count


def predict_video(model, path: Path, stem: str, writer: Writer) -> int:
    if model.pixel != RGB:
        raise UserError(f"{path}: a video has {RGB}, the model takes {model.pixel}; give images.")
    video = Video(path)
    if video.length and hasattr(model.predictor, "announce"):
        print(model.predictor.announce([video.size] * video.length, "frame"))
    frames = make_folder(writer.folder / stem)
    output = writer.folder / f"{stem}{OVERLAY}.mp4"
    if text.shown(output) != str(output):  # OpenCV would abort the process
        raise UserError(f"--output {text.shown(writer.folder)}: give a folder with a UTF-8 name.")
    if not writer.settings.overlay:
        count = _predict_frames(model, video, f"{stem}/", writer, None)
        print(f"{count} frames -> {frames}")
        return count
    with replacing(output) as temporary:
        sink = Sink(temporary, output, video.fps)
        count = _predict_frames(model, video, f"{stem}/", writer, sink)
        sink.close()
    print(f"{count} frames -> {output}, {frames}")
    return count


def _predict_frames(model, video: Video, prefix: str, writer: Writer, sink: Sink | None) -> int:
    settings, count = writer.settings, 0
    answers = model.predictor.stream(((f, f) for f in video), confidence=settings.confidence)
    for frame, prediction in track(answers, video.length, "predicting"):
        if sink is not None:
            sink.write(_drawn(frame, prediction.labels, writer))
        logits = model.logits(frame) if settings.save_logits else None
        writer.write_values(f"{prefix}{count:06d}", prediction, logits)
        count += 1
    if not count:
        raise UserError(f"{video.path} holds no frame that can be decoded.")
    return count


def _drawn(frame: np.ndarray, labels: np.ndarray, writer: Writer) -> np.ndarray:
    drawn = writer.drawn(frame, labels)
    if not writer.settings.legend:
        return drawn
    names, palette = writer.info.class_names, writer.info.palette
    below = pictures.legend(labels, names, palette, frame.shape[1], LEGEND_LINES)
    return np.concatenate([drawn, below])
