"""The local cache of weights: a file is fetched and verified once, a model converted once."""

import os
import re
import shutil
import sys
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from fastfcn_jax.errors import UserError
from fastfcn_jax.weights import fetch, local, registry
from fastfcn_jax.weights.entry import Entry

_LARGEST = 2 << 30  # maximum bytes of a file in an archive


class Place(NamedTuple):
    """Where a name's file and checkpoint folder are or will be; a backbone's `folder` is None."""

    entry: Entry
    file: Path
    folder: Path | None

    @property
    def is_here(self) -> bool:
        return (self.file if self.folder is None else self.folder).exists()


def where(name: str) -> Place:
    """Where the weights of a registered name are, or will be.

    Raises:
      UserError: there is no such name.
    """
    entry = registry.find(name)
    if entry.bundled is not None:
        from fastfcn_jax.weights import hub

        return Place(entry, entry.bundled / hub.WEIGHTS, hub.converted(entry.bundled))
    folder = None
    if not entry.is_backbone:
        tag = entry.checksum.rpartition(":")[2] or "as_found"
        from fastfcn_jax.checkpoints.model_folder import FORMAT

        # With the format: what another version of this package has converted is not found.
        folder = local.cache() / "converted" / f"{entry.name.replace(':', '_')}-{tag}-{FORMAT}"
    file = local.cache() / entry.file
    if remote := _on_hub(entry.address):
        file = local.in_hub_cache(remote[1], remote[2]) or file
    return Place(entry, file, folder)


def get(name: str, *, offline: bool = False) -> Path:
    """The checkpoint folder of a registered model: fetched, verified and converted once.

    Args:
      offline: do not use the network; the environment variable `FASTFCN_OFFLINE=1` does the same.

    Raises:
      UserError: the name is unknown or a backbone's, there is no network, or the file differs from
        the published one.
    """
    place = where(name)
    if place.folder is None:
        raise UserError(
            f"{name}: is a backbone, not a whole model; train with --config.init.backbone={name}."
        )
    if place.entry.bundled is not None:
        from fastfcn_jax.weights import hub

        return hub.as_checkpoint(place.entry.bundled)
    if not place.is_here:
        file = get_file(name, offline=offline)

        from fastfcn_jax.config import experiment
        from fastfcn_jax.convert import convert

        with fetch.locked(place.folder):
            if not place.is_here:
                config = experiment.load(place.entry.config)
                print(f"converting {file.name}", file=sys.stderr, flush=True)
                convert.to_folder(file, config, place.folder)
    return place.folder


def get_file(name: str, *, offline: bool = False) -> Path:
    """The published file of a registered name, fetched and verified; see `get`.

    A file on the Hugging Face hub stays in the hub's own cache.
    """
    entry, path, _ = where(name)
    if path.exists():
        if wrong := fetch.verify(path, entry.checksum):
            raise UserError(f"{path}: is not the published file: {wrong}; remove it.")
        return path
    if not entry.address:
        raise UserError(
            f"{name}: has no direct address; download it from a link on {entry.source}, save it as "
            f"{path} and continue with `fastfcn weights get {name}`."
        )
    if remote := _on_hub(entry.address):
        from fastfcn_jax.weights import hub

        try:
            return hub.download(remote[1], remote[2], offline=offline)
        except UserError as error:
            raise UserError(
                f"{str(error).rstrip('.')}; or download it elsewhere, save it as {path} and "
                "continue with the same command."
            ) from error
    archived = entry.address.endswith(".zip")
    target = path.with_suffix(".zip") if archived else path
    remedy = f"`fastfcn weights get {name}`"
    _fetch(entry.address, target, "" if archived else entry.checksum, remedy, offline)
    if archived:
        _unpack(target, path, entry.checksum)
    return path


def backbone(words: str, *, offline: bool = False) -> Path:
    """The file that `config.init.backbone` refers to.

    Args:
      words: a file, a registered name, https://…, or hf://OWNER/REPO[/FILE].

    Raises:
      UserError: it is none of these, or cannot be fetched.
    """
    path = Path(words).expanduser()
    if path.exists():
        return path
    if remote := _on_hub(words):
        from fastfcn_jax.weights import hub

        return hub.download(remote[1], remote[2] or "model.safetensors", offline=offline)
    if words.startswith(("https://", "http://")):
        target = (
            local.cache()
            / "addresses"
            / sha256(words.encode()).hexdigest()[:16]
            / _last_part(words)
        )
        if not target.exists():
            _fetch(words, target, _checksum_in(target.name), "the same command", offline)
        return target
    if registry.is_known(words):
        return get_file(words, offline=offline)
    if path.parent != Path() or path.suffix:
        raise UserError(f"config.init.backbone={words}: there is no such file.")
    return get_file(words, offline=offline)  # raises the error that suggests similar names


def licence(words: str | Path) -> str | None:
    """The licence of registered weights; None for any other words that `checkpoint` takes."""
    known = registry.is_known(str(words))
    return registry.find(str(words)).licence if known else None


def checkpoint(words: str | Path, *, offline: bool = False) -> Path:
    """The checkpoint folder that `--checkpoint` refers to.

    Args:
      words: a checkpoint folder, a folder in the Hugging Face hub's format, a registered name, or
        hf://OWNER/NAME.

    Raises:
      UserError: it is none of these, or cannot be fetched.
    """
    from fastfcn_jax.weights import hub

    path, text = Path(words).expanduser(), str(words)
    if remote := re.fullmatch(r"hf:/+([^/]+/[^/]+)", text):
        return hub.as_checkpoint(hub.download_folder(remote[1], offline=offline))
    if path.exists():
        return hub.as_checkpoint(path) if hub.is_hub_folder(path) else path
    if registry.is_known(text) or (path.parent == Path() and ":" in text):
        return get(text, offline=offline)
    return path  # opening it reports that it does not exist


def _on_hub(words: str) -> re.Match | None:
    """Matches hf://OWNER/REPO[/FILE]: the repository and the file."""
    return re.fullmatch(r"hf:/+([^/]+/[^/]+)(?:/(.+))?", words)


def _fetch(address: str, path: Path, checksum: str, command: str, offline: bool) -> None:
    by_hand = f"download it elsewhere, put it into {path.parent} and continue with {command}"
    if path.exists():
        return
    if local.is_offline(offline):
        raise UserError(f"{address}: is not in the cache, and the run is offline; {by_hand}.")
    print(f"fetching {address}", file=sys.stderr, flush=True)
    fetch.download(address, path, checksum=checksum, remedy=by_hand)


def _unpack(archive: Path, path: Path, checksum: str) -> None:
    """Extracts the file named like `path` from a zip archive, then deletes the archive."""
    part = path.with_name(f".{path.name}.part")
    try:
        with fetch.locked(path):
            if path.exists():
                return
            with zipfile.ZipFile(archive) as entries:
                info = entries.getinfo(path.name)
                if info.file_size > _LARGEST:
                    raise UserError(f"{archive}: holds {info.file_size} bytes, too many to unpack.")
                with entries.open(info) as source, open(part, "wb") as target:
                    shutil.copyfileobj(source, target)
            if wrong := fetch.verify(part, checksum):
                raise UserError(f"{archive}: holds another {path.name}: {wrong}; remove it.")
            os.replace(part, path)
            archive.unlink()
    except (zipfile.BadZipFile, KeyError, NotImplementedError) as error:
        raise UserError(
            f"{archive}: is not a zip archive that contains {path.name}; remove it."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _last_part(address: str) -> str:
    """The file name at the end of an address, made safe for a file system."""
    name = address.split("?")[0].split("#")[0].rstrip("/").rpartition("/")[2]
    return re.sub(r"[^\w.+-]", "_", name)[-100:].lstrip(".") or "weights.pth"


def _checksum_in(name: str) -> str:
    """By PyTorch's convention, a file name ends with the first digits of the SHA-256."""
    found = re.search(r"-([0-9a-f]{8,64})\.", name)
    return f"sha256:{found[1]}" if found else ""
