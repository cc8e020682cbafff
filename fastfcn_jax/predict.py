"""Label maps of photographs: class indices, overlays and, if asked for, logits.

python -m fastfcn_jax.predict --checkpoint DIR --input IMAGE|FOLDER --output OUT [--save-logits]
"""

from pathlib import Path

from absl import flags

from fastfcn_jax import cli
from fastfcn_jax.data import decode
from fastfcn_jax.errors import UserError
from fastfcn_jax.evaluation.files import write_array, write_image
from fastfcn_jax.evaluation.pictures import overlay
from fastfcn_jax.evaluation.progress import track

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Checkpoint folder.", required=True)
INPUT = flags.DEFINE_string("input", None, "Image or folder of images.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "Folder for the results.", required=True)
PROTOCOL = flags.DEFINE_string("protocol", None, "single | ms_flip | …; default: the model's.")
SAVE_LOGITS = flags.DEFINE_bool("save_logits", False, "Also write OUT/<stem>.npy, (H, W, classes).")
flags.DEFINE_alias("save-logits", "save_logits")


def find_images(source: Path) -> list[Path]:
    """The image itself, or the images of a folder in order of their names.

    Raises:
      UserError: nothing there.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UserError(f"--input {source}: no such image or folder.")
    images = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES)
    if not images:
        raise UserError(f"--input {source}: the folder holds no image ({', '.join(SUFFIXES)}).")
    return images


def main(_) -> None:
    images = find_images(Path(INPUT.value))
    # JAX starts only after the arguments are accepted.
    from fastfcn_jax import checkpoint, models
    from fastfcn_jax.evaluation import inference

    loaded = checkpoint.load_model(Path(CHECKPOINT.value))
    model = models.build(loaded.config.model, len(loaded.info.class_names))
    predictor = inference.build(loaded.config, model, loaded.variables, protocol=PROTOCOL.value)
    output = Path(OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    for path in track(images, len(images), "predicting"):
        image = decode.image(path.read_bytes(), str(path))
        labels = predictor(image)
        write_image(output / f"{path.stem}.png", labels)
        write_image(
            output / f"{path.stem}_overlay.png", overlay(image, labels, loaded.info.palette)
        )
        if SAVE_LOGITS.value:
            write_array(output / f"{path.stem}.npy", predictor.scores(image))
    print(f"{len(images)} images -> {output}")


if __name__ == "__main__":
    cli.run(main)
