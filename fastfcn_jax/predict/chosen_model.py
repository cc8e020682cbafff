"""The model that predicts: a checkpoint folder's, or an exported file."""

import hashlib
from pathlib import Path
from typing import Any

from fastfcn_jax.errors import UserError
from fastfcn_jax.predict import manifest

TILED = ("single", "slide", "ms_flip")  # protocols that --tile supports


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
            raise UserError(
                "--model has one way to test images: no --protocol, --tile or --batch-size."
            )
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


def _check_tiles(protocol: str) -> None:
    if protocol not in TILED:
        raise UserError(
            f"--tile keeps the image's own resolution, protocol {protocol} scales it; "
            f"give --protocol {', '.join(TILED)}."
        )


def checksum(loaded: Any, file: Path | None) -> str:
    """A checksum of a model: of the exported `file`, or of weights, network and classes."""
    info = loaded.info
    classes = [list(info.class_names), info.palette.tolist(), info.values]
    if file is not None:
        beside = [file.with_suffix(".bin")] if file.suffix == ".xml" else []  # OpenVINO's weights
        return manifest.checksum([*map(_digest, [file, *beside]), classes])
    from fastfcn_jax.checkpoints import orbax_store
    from fastfcn_jax.config import experiment

    config = experiment.to_json(loaded.config)
    images = {key: config["data"][key] for key in ("channels", "dtype", "scaling")}
    weights = orbax_store.checksum(loaded.variables)
    return manifest.checksum([weights, config["model"], images, classes])


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def protocol(loaded: Any) -> dict[str, str]:
    """How a model tests images, in the manifest's words; an exported file has one way."""
    found = getattr(loaded.predictor, "protocol", None)
    return {} if found is None else {"protocol": found.name, "test": found.definition}
