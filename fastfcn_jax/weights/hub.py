"""Models in the Hugging Face hub's format: written to a folder, read, uploaded and downloaded.

The folder is `model.safetensors` (the state dict under the lineage's own PyTorch names),
`config.json` (the content of a checkpoint folder's `model.json`, and the hub's `id2label`) and
`README.md` (the model card).
"""

import importlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.config import experiment
from fastfcn_jax.convert import fit, weight_file
from fastfcn_jax.errors import UserError
from fastfcn_jax.files import write_json, write_text
from fastfcn_jax.weights import card, fetch, local

WEIGHTS, CONFIG = "model.safetensors", "config.json"
_OF_THE_HUB = ("architectures", "model_type", "id2label", "label2id")
_FILES = (WEIGHTS, CONFIG, "README.md")


def write(
    folder: Path,
    output: Path,
    *,
    metrics: Path | None = None,
    licence: str | None = None,
    half: bool = False,
) -> Path:
    """Writes a checkpoint folder's best model as the hub expects it, and reads it back to compare.

    Args:
      output: folder to create.
      metrics: metrics.json of an evaluation, for the model card; None: the one in `folder`/eval.
      licence: of the weights, as the hub abbreviates it ("mit", "apache-2.0"); None: unknown.
      half: store kernels as float16, in half the bytes; biases and BatchNorm stay float32.

    Raises:
      UserError: `folder` has no model, a kernel is too large for float16, or `output` exists or
        cannot be written.
    """
    from safetensors.numpy import save

    if output.exists():
        raise UserError(f"--output {output}: already exists; remove it or give another.")
    loaded = model_folder.load_model(folder)
    stored = model_folder.read_card(folder)
    if half:
        loaded = loaded._replace(variables=jax.tree.map(_halved, loaded.variables))
    tensors = fit.to_tensors(loaded.variables, loaded.config.model.lineage, step=loaded.step)
    if half:
        tensors = {k: v.astype(np.float16) if v.ndim > 1 else v for k, v in tensors.items()}
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        # Not `save_file`: its file could be read by its owner only.
        (partial / WEIGHTS).write_bytes(save(tensors, {"format": "pt"}))
        write_json(partial / CONFIG, _config(stored, loaded))
        scores = card.read_metrics(metrics or folder / "eval" / "metrics.json", metrics is not None)
        write_text(
            partial / "README.md",
            card.text(output.name, loaded, scores, licence, card.read_training(folder)),
        )
        _compare(partial, loaded)
        os.rename(partial, output)
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror}).") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return output


def is_hub_folder(path: Path) -> bool:
    return (path / WEIGHTS).is_file() and (path / CONFIG).is_file()


def read(folder: Path) -> model_folder.LoadedModel:
    """Reads what `write` wrote, bit for bit.

    Raises:
      UserError: a file is missing or damaged, or the folder holds a model of another library.
    """
    content = _read_config(folder / CONFIG)
    config, info = model_folder.from_card(content, folder / CONFIG)
    file = weight_file.read(folder / WEIGHTS)
    try:
        variables, report = fit.to_variables(
            file, config.model, info.num_classes, channels=config.data.channels
        )
    except UserError as error:
        raise UserError(f"{folder / WEIGHTS}: {error}.") from error
    return model_folder.LoadedModel(config, info, variables, report.step)


def converted(folder: Path) -> Path:
    """Where `as_checkpoint` keeps the checkpoint folder of a hub folder with this content."""
    with open(folder / WEIGHTS, "rb") as file:
        weights = fetch.digest(file, "sha256")
    with open(folder / CONFIG, "rb") as file:
        config = fetch.digest(file, "sha256")
    return local.cache() / "hub" / f"{weights[:16]}-{config[:16]}-{model_folder.FORMAT}"


def as_checkpoint(folder: Path) -> Path:
    """A checkpoint folder of the same model, converted once and kept in the cache."""
    target = converted(folder)
    with fetch.locked(target):
        if not target.exists():
            loaded = read(folder)
            partial = target.with_name(f"{target.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            content = _read_config(folder / CONFIG)
            kept = {key: content[key] for key in content if key not in _OF_THE_HUB}
            model_folder.save_model(partial, loaded.variables, kept, step=loaded.step)
            os.rename(partial, target)
    return target


def download(repository: str, file: str, *, offline: bool = False) -> Path:
    """Downloads one file of a repository into the hub's own cache (`HF_HOME`, `HF_HUB_OFFLINE`).

    Raises:
      UserError: huggingface_hub is not installed, or there is no such file.
    """
    library = _library()
    only_local = local.is_offline(offline)
    return Path(
        _asked(
            f"hf://{repository}/{file}",
            lambda: library.hf_hub_download(repository, file, local_files_only=only_local),
        )
    )


def download_folder(repository: str, *, offline: bool = False) -> Path:
    """Downloads configuration and weights of a repository; see `download`."""
    paths = [download(repository, name, offline=offline) for name in (CONFIG, WEIGHTS)]
    return paths[0].parent


def push(folder: Path, repository: str, *, private: bool = True) -> str:
    """Uploads a folder that `write` made to the hub, and returns its address there.

    The account is that of `hf auth login` or `HF_TOKEN`.

    Raises:
      UserError: huggingface_hub is not installed, nobody is logged in, or the hub refuses.
    """
    if not is_hub_folder(folder):
        raise UserError(f"{folder}: is not what `fastfcn export --format hub` writes.")
    api = _library().HfApi()

    def send() -> str:
        api.create_repo(repository, private=private, exist_ok=True)
        sent = api.upload_folder(
            repo_id=repository, folder_path=str(folder), allow_patterns=list(_FILES)
        )
        return str(sent)

    return _asked(f"hf://{repository}", send)


def _config(stored: dict[str, Any], loaded: model_folder.LoadedModel) -> dict[str, Any]:
    names = loaded.info.class_names
    config = experiment.without_paths(experiment.to_json(loaded.config))
    return {
        "architectures": ["FastFCN"],
        "model_type": "fastfcn_jax",
        "id2label": {str(k): name for k, name in enumerate(names)},
        "label2id": {name: k for k, name in enumerate(names)},
        **stored,
        "config": config,
    }


def _read_config(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON; fetch the folder again.") from error
    if not isinstance(content, dict) or content.get("model_type") != "fastfcn_jax":
        kind = content.get("model_type") if isinstance(content, dict) else None
        raise UserError(
            f"{path}: describes a model of another kind ({kind}); weights of PyTorch are converted "
            "with `fastfcn convert`."
        )
    if not isinstance(content.get("config"), dict) or not isinstance(content.get("dataset"), dict):
        raise UserError(f"{path}: lacks the configuration or the classes; fetch the folder again.")
    return content


def _halved(array: np.ndarray) -> np.ndarray:
    """A kernel rounded to what float16 can hold; variances would lose their small values there."""
    if array.ndim < 2:
        return array
    if np.abs(array).max(initial=0.0) > np.finfo(np.float16).max:
        raise UserError("a kernel has values above 65504, too large for float16; store float32.")
    return array.astype(np.float16).astype(np.float32)


def _compare(folder: Path, loaded: model_folder.LoadedModel) -> None:
    """Reads the written folder back; AssertionError if a bit has changed."""
    again = read(folder)
    jax.tree.map(
        lambda x, y: np.testing.assert_array_equal(x, y, strict=True),
        {name: dict(tree) for name, tree in loaded.variables.items()},
        again.variables,
    )


def _library() -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise UserError(
            "the Hugging Face hub needs a package: pip install 'fastfcn-jax[hub]'."
        ) from error


def _asked(what: str, ask: Callable[[], str]) -> str:
    """The hub's answer; its errors become UserError."""
    errors = importlib.import_module("huggingface_hub.errors")
    try:
        return ask()
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError, ValueError) as error:
        words = " ".join(str(error).split())[:300]
        raise UserError(f"{what}: the hub refused the request ({words}).") from error
