"""Label maps of photographs and videos: class indices, overlays, confidence, logits.

python -m fastfcn_jax.predict --checkpoint DIR --input IMAGE|FOLDER|GLOB|VIDEO|- --output OUT
    [--protocol NAME] [--legend] [--confidence] [--save-logits] [--tile PIXELS]

`--model FILE` instead of --checkpoint runs what `fastfcn_jax.export` wrote.

Leaves OUT/<stem>.png (class indices) and OUT/<stem>_overlay.png of every photograph, those of a
folder's sub-folders in sub-folders of OUT; of a video OUT/<stem>_overlay.mp4 and
OUT/<stem>/<frame>.png. A broken file does not stop the others: it is named at the end, and the exit
status is 1.
"""

import itertools
import sys
from pathlib import Path

import cv2
import numpy as np
from absl import flags

from fastfcn_jax import cli, pictures
from fastfcn_jax.errors import UserError
from fastfcn_jax.files import replacing, write_array, write_image
from fastfcn_jax.predict import inputs, png_strips
from fastfcn_jax.terminal.progress import track

SOME_FAILED = 1
TILED = ("single", "slide", "ms_flip")  # protocols that go with --tile
VIDEO_LEGEND_LINES = 2  # every frame the same height
STRIP_ROWS = 256  # of an overlay, drawn and written at a time
ENDINGS = (".png", "_overlay.png", "_confidence.png", ".npy")  # of what a photograph may leave


class Writer:
    """Writes the results of one model into a folder."""

    def __init__(self, folder: Path, model):
        self.folder = folder
        self.model = model

    def write_overlay(self, path: Path, image, labels) -> None:
        """Draws and writes strip by strip, with the legend below if asked for."""
        info = self.model.info
        height, width = labels.shape
        starts = range(0, height, STRIP_ROWS)
        rows = (slice(start, start + STRIP_ROWS) for start in starts)
        strips = (pictures.overlay(image[r], labels[r], info.palette) for r in rows)
        if LEGEND.value:
            legend = pictures.legend(labels, info.class_names, info.palette, width)
            strips, height = itertools.chain(strips, [legend]), height + len(legend)
        png_strips.write(path, (height, width), strips)

    def write(self, stem: str, image, prediction) -> None:
        """`stem` may begin with sub-folders, as the photograph's place does."""
        cli.make_folder((self.folder / stem).parent)
        self.write_values(stem, image, prediction)
        self.write_overlay(self.folder / f"{stem}_overlay.png", image, prediction.labels)

    def write_values(self, stem: str, image, prediction) -> None:
        """All but the overlay."""
        write_image(self.folder / f"{stem}.png", prediction.labels)
        if prediction.confidence is not None:
            grey = np.round(255 * prediction.confidence).astype(np.uint8)
            write_image(self.folder / f"{stem}_confidence.png", grey)
        if SAVE_LOGITS.value:
            write_array(self.folder / f"{stem}.npy", self.model.logits(image))


def predict_photographs(model, found: list[inputs.Photograph], writer: Writer) -> list[str]:
    """Writes the results of all that can be read; returns what was wrong with the others."""
    failures: list[str] = []
    announce(model, _readable_sizes(found))
    held = {}

    def images():
        for photograph in found:
            try:
                held[photograph] = photograph.decode()
            except UserError as error:
                failures.append(str(error))
            else:
                yield photograph, held[photograph]

    answers = model.predictor.stream(images(), confidence=CONFIDENCE.value)
    for photograph, prediction in track(answers, len(found), "predicting"):
        writer.write(photograph.stem, held.pop(photograph), prediction)
    return failures


def predict_in_tiles(model, found: list[inputs.Photograph], writer: Writer) -> list[str]:
    """The same for images at their own resolution, tile by tile."""
    from fastfcn_jax.inference.predictor import Prediction
    from fastfcn_jax.inference.tiles import predict_tiles, tile_sizes

    side = TILE.value
    wholes = _readable_sizes(found)
    announce(model, [size for whole in wholes for size in tile_sizes(whole, side)], "tile")
    failures: list[str] = []
    for photograph in track(found, len(found), "predicting"):
        try:
            image = photograph.decode()
        except UserError as error:
            failures.append(str(error))
            continue
        labels = predict_tiles(model.predictor, image, side)
        writer.write(photograph.stem, image, Prediction(labels, None))
    return failures


def predict_video(model, path: Path, writer: Writer) -> None:
    """Writes one label map a frame and a video of the overlays.

    Raises:
      UserError: the file is no video, or holds no frame.
    """
    video = inputs.Video(path)
    announce(model, [video.size] * video.length, "frame")
    info = model.info
    frames = Writer(writer.folder / path.stem, model)
    cli.make_folder(frames.folder)
    output = writer.folder / f"{path.stem}_overlay.mp4"
    answers = model.predictor.stream(((f, f) for f in video), confidence=CONFIDENCE.value)
    count, sink = 0, None
    with replacing(output) as temporary:
        for frame, prediction in track(answers, video.length, "predicting"):
            drawn = pictures.overlay(frame, prediction.labels, info.palette)
            if LEGEND.value:
                names, lines = info.class_names, VIDEO_LEGEND_LINES
                below = pictures.legend(
                    prediction.labels, names, info.palette, frame.shape[1], lines
                )
                drawn = np.concatenate([drawn, below])
            if sink is None:
                codec = cv2.VideoWriter.fourcc(*"mp4v")
                size = drawn.shape[1::-1]
                sink = cv2.VideoWriter(str(temporary), codec, video.fps, size)
            sink.write(cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
            frames.write_values(f"{count:06d}", frame, prediction)
            count += 1
        if sink is None:
            raise UserError(f"{path} holds no frame that can be decoded.")
        sink.release()
    print(f"{count} frames -> {output}, {frames.folder}")


def announce(model, sizes: list[tuple[int, int]], what: str = "image") -> None:
    """Says how images of these sizes will be tested and what that costs, where both are known."""
    if sizes and not MODEL.value:
        print(model.predictor.announce(sizes, what))


def _readable_sizes(found: list[inputs.Photograph]) -> list[tuple[int, int]]:
    """Of all files; standard input can be read only once."""
    sizes = []
    for photograph in found:
        if photograph.path is None:
            continue
        try:
            sizes.append(photograph.size())
        except UserError:
            continue  # said when its turn comes
    return sizes


def load_model():
    """The model of --checkpoint or --model, set up as the flags say."""
    if bool(CHECKPOINT.value) == bool(MODEL.value):
        raise UserError("give either --checkpoint DIR or --model FILE.")
    if MODEL.value:
        if PROTOCOL.value or TILE.value or BATCH_SIZE.value:
            raise UserError("--model has one size: no --protocol, --tile or --batch_size with it.")
        from fastfcn_jax.export import readers

        return readers.load(MODEL.value)
    from fastfcn_jax import api, runtime
    from fastfcn_jax.checkpoints import model_folder

    runtime.cache_compilations()
    loaded = model_folder.load_model(Path(CHECKPOINT.value or ""))
    with loaded.config.unlocked():
        if BATCH_SIZE.value:
            loaded.config.eval.batch_size = BATCH_SIZE.value
        if TILE.value:
            _check_tiles(PROTOCOL.value or loaded.config.eval.protocol)
            loaded.config.data.test_scale = (0, 0)
    return api.Model(loaded.config, loaded.info, loaded.variables, protocol=PROTOCOL.value)


def _refuse_to_overwrite(found: list[inputs.Photograph], folder: Path) -> None:
    """Raises UserError where a result would replace one of the photographs."""
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


def main(_) -> int:
    is_video = inputs.is_video(INPUT.value)
    found = [] if is_video else inputs.find(INPUT.value, Path(OUTPUT.value))
    if TILE.value and (SAVE_LOGITS.value or CONFIDENCE.value or is_video):
        raise UserError("--tile writes labels and overlays of photographs only.")
    _refuse_to_overwrite(found, Path(OUTPUT.value))
    model = load_model()  # JAX starts only after the arguments are accepted
    writer = Writer(cli.make_folder(Path(OUTPUT.value)), model)
    if is_video:
        predict_video(model, Path(INPUT.value), writer)
        return 0
    predict = predict_in_tiles if TILE.value else predict_photographs
    failures = predict(model, found, writer)
    print(f"{len(found) - len(failures)} of {len(found)} images -> {writer.folder}")
    for failure in failures:
        print(f"skipped: {failure}", file=sys.stderr)
    return SOME_FAILED if failures else 0


if __name__ == "__main__":
    CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Checkpoint folder.")
    MODEL = flags.DEFINE_string("model", None, "Exported file, instead of --checkpoint.")
    INPUT = flags.DEFINE_string(
        "input", None, "Image, folder, pattern, video, or -.", required=True
    )
    OUTPUT = flags.DEFINE_string("output", None, "Folder for the results.", required=True)
    PROTOCOL = flags.DEFINE_string("protocol", None, "single | ms_flip | …; default: the model's.")
    BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Images a pass.", lower_bound=1)
    LEGEND = flags.DEFINE_bool("legend", False, "List the classes below the overlay.")
    CONFIDENCE = flags.DEFINE_bool("confidence", False, "Also write OUT/<stem>_confidence.png.")
    SAVE_LOGITS = flags.DEFINE_bool(
        "save_logits", False, "Also write OUT/<stem>.npy, (H, W, classes)."
    )
    TILE = flags.DEFINE_integer("tile", 0, "Own resolution in overlapping tiles of this side.")
    flags.DEFINE_alias("save-logits", "save_logits")
    flags.DEFINE_alias("batch-size", "batch_size")
    cli.run(main)
