"""Label maps of photographs and videos: class indices, overlays, confidence, logits."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from fastfcn_jax import pictures, text
from fastfcn_jax.data.pixel_type import RGB, PixelType
from fastfcn_jax.errors import UserError
from fastfcn_jax.files import make_folder, replacing, write_array, write_image
from fastfcn_jax.predict import inputs, png_strips
from fastfcn_jax.terminal.progress import track

TILED = ("single", "slide", "ms_flip")  # protocols that --tile supports
VIDEO_LEGEND_LINES = 2  # fixed, as all frames of a video have the same height
STRIP_ROWS = 256  # rows of an overlay that are drawn and written at a time
ENDINGS = (".png", "_overlay.png", "_confidence.png", ".npy")  # of a photograph's results


class Writer:
    """Writes the results of one model into a folder.

    Args:
      legend: list the classes below each overlay.
      save_logits: also write `<stem>.npy`, float32 (h, w, k).
    """

    def __init__(self, folder: Path, model, *, legend: bool = False, save_logits: bool = False):
        self.folder = folder
        self.model = model
        self.legend = legend
        self.save_logits = save_logits

    def write_overlay(self, path: Path, image, labels) -> None:
        """Draws and writes the overlay strip by strip, with the legend below it if requested."""
        info = self.model.info
        height, width = labels.shape
        image = pictures.as_rgb(image)  # as a whole: strips would be stretched differently
        starts = range(0, height, STRIP_ROWS)
        rows = (slice(start, start + STRIP_ROWS) for start in starts)
        strips = (pictures.overlay(image[r], labels[r], info.palette) for r in rows)
        if self.legend:
            legend = pictures.legend(labels, info.class_names, info.palette, width)
            strips, height = itertools.chain(strips, [legend]), height + len(legend)
        png_strips.write(path, (height, width), strips)

    def failure(self, stem: str, image, prediction) -> list[str]:
        """Writes all results of a photograph; returns a list with the error message, if any.

        `stem` may contain sub-folders.
        """
        try:
            make_folder((self.folder / stem).parent)
            self.write_values(stem, image, prediction)
            self.write_overlay(self.folder / f"{stem}_overlay.png", image, prediction.labels)
        except UserError as error:
            return [str(error)]
        return []

    def write_values(self, stem: str, image, prediction) -> None:
        """Writes all results but the overlay."""
        write_image(self.folder / f"{stem}.png", prediction.labels)
        if prediction.confidence is not None:
            grey = np.round(255 * prediction.confidence).astype(np.uint8)
            write_image(self.folder / f"{stem}_confidence.png", grey)
        if self.save_logits:
            write_array(self.folder / f"{stem}.npy", self.model.logits(image))


def predict_photographs(
    model, found: list[inputs.Photograph], writer: Writer, *, confidence: bool
) -> list[str]:
    """Writes the results of all readable images; returns a message about each of the others."""
    failures: list[str] = []
    announce(model, _readable_sizes(found, model.pixel))
    held = {}

    def images():
        for photograph in found:
            try:
                held[photograph] = photograph.decode(model.pixel)
            except UserError as error:
                failures.append(str(error))
            else:
                yield photograph, held[photograph]

    answers = model.predictor.stream(images(), confidence=confidence)
    for photograph, prediction in track(answers, len(found), "predicting"):
        failures += writer.failure(photograph.stem, held.pop(photograph), prediction)
    return failures


def predict_in_tiles(model, found: list[inputs.Photograph], writer: Writer, side: int) -> list[str]:
    """Like `predict_photographs`, but at the images' own resolution, tile by tile."""
    from fastfcn_jax.inference.prediction import Prediction
    from fastfcn_jax.inference.tiles import predict_tiles, tile_sizes

    wholes = _readable_sizes(found, model.pixel)
    announce(model, [size for whole in wholes for size in tile_sizes(whole, side)], "tile")
    failures: list[str] = []
    for photograph in track(found, len(found), "predicting"):
        try:
            image = photograph.decode(model.pixel)
        except UserError as error:
            failures.append(str(error))
            continue
        labels = predict_tiles(model.predictor, image, side)
        failures += writer.failure(photograph.stem, image, Prediction(labels, None))
    return failures


def predict_video(model, path: Path, writer: Writer, *, confidence: bool) -> int:
    """Writes one label map per frame and a video of the overlays; returns the number of frames.

    Raises:
      UserError: the file is not a video, or has no frame.
    """
    if model.pixel != RGB:
        raise UserError(f"{path}: a video has {RGB}, the model takes {model.pixel}; give images.")
    video = inputs.Video(path)
    announce(model, [video.size] * video.length, "frame")
    info = model.info
    frames = Writer(writer.folder / path.stem, model, save_logits=writer.save_logits)
    make_folder(frames.folder)
    output = writer.folder / f"{path.stem}_overlay.mp4"
    if text.shown(output) != str(output):  # OpenCV would abort the process
        raise UserError(f"--output {text.shown(writer.folder)}: give a folder with a UTF-8 name.")
    answers = model.predictor.stream(((f, f) for f in video), confidence=confidence)
    count, sink = 0, None
    with replacing(output) as temporary:
        for frame, prediction in track(answers, video.length, "predicting"):
            drawn = pictures.overlay(frame, prediction.labels, info.palette)
            if writer.legend:
                names, lines = info.class_names, VIDEO_LEGEND_LINES
                below = pictures.legend(
                    prediction.labels, names, info.palette, frame.shape[1], lines
                )
                drawn = np.concatenate([drawn, below])
            if sink is None:
                codec = cv2.VideoWriter.fourcc(*"mp4v")
                size = drawn.shape[1::-1]
                sink = cv2.VideoWriter(str(temporary), codec, video.fps, size)
                if not sink.isOpened():
                    raise UserError(
                        f"{output}: no video can be written there; give another folder."
                    )
            sink.write(cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
            frames.write_values(f"{count:06d}", frame, prediction)
            count += 1
        if sink is None:
            raise UserError(f"{path} holds no frame that can be decoded.")
        sink.release()
    print(f"{count} frames -> {output}, {frames.folder}")
    return count


def announce(model, sizes: list[tuple[int, int]], what: str = "image") -> None:
    """Prints how images of these sizes will be tested and the cost; not for exported files."""
    if sizes and hasattr(model.predictor, "announce"):  # an exported file has one size
        print(model.predictor.announce(sizes, what))


def _readable_sizes(found: list[inputs.Photograph], pixel: PixelType) -> list[tuple[int, int]]:
    """Sizes of all readable files, but not of standard input, which can be read only once."""
    sizes = []
    for photograph in found:
        if photograph.path is None:
            continue
        try:
            sizes.append(photograph.size(pixel))
        except UserError:
            continue  # reported when it is decoded
    return sizes


def load_model(
    checkpoint: Path | None,
    model: Path | None,
    *,
    protocol: str | None = None,
    batch_size: int | None = None,
    tile: int = 0,
):
    """Loads a checkpoint folder's model or an exported file, with the given settings.

    Raises:
      UserError: neither or both are given, or a setting that an exported file does not support.
    """
    if checkpoint is None and model is None:
        raise UserError(
            "--checkpoint or --model is missing; for example --checkpoint runs/demo, or --model "
            "model.onnx for an exported file."
        )
    if checkpoint is not None and model is not None:
        raise UserError("--checkpoint and --model exclude each other; give one of them.")
    if model is not None:
        if protocol or tile or batch_size:
            raise UserError("--model has one size: no --protocol, --tile or --batch-size with it.")
        from fastfcn_jax.export import readers

        return readers.load(model)
    from fastfcn_jax import api, runtime
    from fastfcn_jax.checkpoints import model_folder
    from fastfcn_jax.weights import store

    assert checkpoint is not None
    runtime.cache_compilations()
    loaded = model_folder.load_model(store.checkpoint(checkpoint))
    with loaded.config.unlocked():
        if batch_size:
            loaded.config.eval.batch_size = batch_size
        if tile:
            _check_tiles(protocol or loaded.config.eval.protocol)
            loaded.config.data.test_scale = (0, 0)
    return api.Model(loaded.config, loaded.info, loaded.variables, protocol=protocol)


def _refuse_to_overwrite(found: list[inputs.Photograph], folder: Path) -> None:
    """Raises UserError if a result would overwrite one of the photographs."""
    originals = {photograph.path.resolve() for photograph in found if photograph.path}
    for photograph in found:
        for target in (folder / f"{photograph.stem}{ending}" for ending in ENDINGS):
            if target.resolve() in originals:
                raise UserError(
                    f"--output {folder}: {target} is among --input and would be overwritten; "
                    "give another folder."
                )


def _check_tiles(protocol: str) -> None:
    if protocol not in TILED:
        raise UserError(
            f"--tile keeps the image's own resolution, protocol {protocol} scales it; "
            f"give --protocol {', '.join(TILED)}."
        )


class Summary(NamedTuple):
    """Number of photographs (or frames), and a message about each one that failed."""

    total: int
    failures: Sequence[str]


def predict(
    input: str | Path,
    output: str | Path,
    *,
    checkpoint: str | Path | None = None,
    model: str | Path | None = None,
    protocol: str | None = None,
    batch_size: int | None = None,
    legend: bool = False,
    confidence: bool = False,
    save_logits: bool = False,
    tile: int = 0,
) -> Summary:
    """Predicts the labels of photographs or a video and writes them into the folder `output`.

    Args:
      input: an image, a folder, a pattern of names, a video, or "-" for standard input.
      checkpoint, model: a checkpoint folder or an exported file; give one of them.
      protocol: how to test ("single", "ms_flip", …); None: as the model's configuration says.
      batch_size: images per pass; None: as the configuration says.
      legend: list the classes below each overlay.
      confidence: also write the probability of each pixel's class, as a grey image.
      save_logits: also write `<stem>.npy`, float32 (h, w, k).
      tile: predict at the image's own resolution in overlapping tiles of this side; 0: whole.

    Raises:
      UserError: nothing to predict, no model, or a result would overwrite an input.
    """
    source, folder = str(Path(input).expanduser()), Path(output).expanduser()
    is_video = inputs.is_video(source)
    found = [] if is_video else inputs.find(source, folder)
    if tile and (save_logits or confidence or is_video):
        raise UserError("--tile writes labels and overlays of photographs only.")
    _refuse_to_overwrite(found, folder)
    loaded = load_model(  # JAX starts only after the arguments are accepted
        _path(checkpoint), _path(model), protocol=protocol, batch_size=batch_size, tile=tile
    )
    writer = Writer(make_folder(folder), loaded, legend=legend, save_logits=save_logits)
    if is_video:
        return Summary(predict_video(loaded, Path(source), writer, confidence=confidence), ())
    if tile:
        failures = predict_in_tiles(loaded, found, writer, tile)
    else:
        failures = predict_photographs(loaded, found, writer, confidence=confidence)
    print(f"{len(found) - len(failures)} of {len(found)} images -> {folder}")
    return Summary(len(found), failures)


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given).expanduser()
