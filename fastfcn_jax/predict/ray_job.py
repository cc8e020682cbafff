"""`predict --ray`: photographs labelled by the actors of a Ray cluster, recorded here."""

import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastfcn_jax import addresses, ray_cluster
from fastfcn_jax.errors import UserError
from fastfcn_jax.files import make_folder
from fastfcn_jax.predict import chosen_model, coco_results, inputs, names, outputs, ray_rows
from fastfcn_jax.predict.announcement import announce
from fastfcn_jax.predict.inputs import Photographs
from fastfcn_jax.predict.manifest import FAILED, Call, Manifest
from fastfcn_jax.predict.outputs import Summary
from fastfcn_jax.predict.ray_actor import Labeller
from fastfcn_jax.predict.settings import Settings
from fastfcn_jax.predict.unfinished import Unfinished
from fastfcn_jax.predict.writer import Writer
from fastfcn_jax.terminal.progress import track


class Given(NamedTuple):
    """The input: listed photographs, or files that hold them."""

    found: Photographs | None
    tables: list[str]
    shards: list[str]


class Work(NamedTuple):
    """A data set of photographs, their number, if known, and the sizes to plan for."""

    rows: Any
    total: int | None = None
    sizes: Sequence[tuple[int, int]] = ()


def predict(
    input: str | Path,
    output: str | Path,
    address: str = "",
    *,
    checkpoint: str | Path | None = None,
    model: str | Path | None = None,
    protocol: str | None = None,
    batch_size: int | None = None,
    skip_existing: bool = False,
    **choices: Any,
) -> Summary:
    """As `outputs.predict`, on a Ray cluster; all nodes have to see `output` and the model.

    Args:
      input: also Parquet tables or tar shards, by the suffixes `.parquet` and `.tar`.
      address: of the cluster, see `ray_cluster.joined`.
      choices: as in `Settings`.

    Raises:
      UserError: as `outputs.predict` does; or there is no cluster, or a node does not see the
        folder or has another model.
    """
    settings = Settings(**choices)
    source, folder = outputs.where(input, output)
    folder = folder.absolute()  # the actors have working folders of their own
    given = _find(source, folder, settings)
    files = [_absolute(path) for path in (checkpoint, model)]
    options = {"protocol": protocol, "batch_size": batch_size, "tile": settings.tile}
    load = functools.partial(chosen_model.load_model, *files, **options)
    check = chosen_model.checksum
    with ray_cluster.joined(address) as ray:
        ray_cluster.stay_on_cpu()
        loaded = load()
        writer = Writer(folder, loaded.info, settings)
        choice = settings.described() | chosen_model.protocol(loaded)
        call = Call(check(loaded, files[1]), choice)
        make_folder(folder)
        with Manifest(folder, call, checkpoint=str(checkpoint or model)) as manifest:
            work = _work(ray, given, loaded, writer, manifest, skip_existing)
            manifest.begin()  # before there are results: those without a line are not trusted
            team = ray_cluster.workers(ray, reads=given.found is None)
            arguments = {
                "load": load,
                "checksum": lambda other: check(other, files[1]),
                "folder": folder,
                "call": call,
                "settings": settings,
                "sizes": work.sizes,
                "skips": skip_existing and given.found is None,
            }
            answers: Iterable[dict[str, Any]] = ()
            if work.total != 0:
                print(f"{team.count} actors, each with {team.cpus} CPUs and {team.gpus} GPUs")
                answers = ray_cluster.through(
                    work.rows, Labeller, arguments, team, batch=ray_rows.BATCH
                )
            if work.total:
                answers = track(answers, work.total, "predicting")
            total, failures = _record(answers, manifest)
    if given.found is not None:
        total = len(given.found)
        if settings.polygons == "coco":
            results = outputs.predicted(given.found, writer)
            coco_results.write(folder / "predictions_coco.json", results, loaded.info)
    print(f"{total - len(failures)} of {total} images -> {folder}")
    return Summary(total, failures)


def _find(source: str, folder: Path, settings: Settings) -> Given:
    """Looks for the input; UserError if it is nothing that actors can share."""
    if source == inputs.STDIN or inputs.is_video(source):
        raise UserError(
            f"--input {source}: one picture or video is not for --ray; leave --ray out."
        )
    if not addresses.is_address(source):
        source = str(Path(source).absolute())
    tables = ray_rows.packed(source, ray_rows.TABLE)
    shards = [] if tables else ray_rows.packed(source, ray_rows.SHARDS)
    if not tables and not shards:
        found = inputs.find(source, folder, settings)
        names.refuse_to_overwrite(found, folder, settings)
        return Given(found, [], [])
    files, kind = (tables, "tables") if tables else (shards, "tar files")
    print(f"input: {len(files)} {kind}; pictures beside them only by a pattern, such as '*.jpg'")
    if settings.polygons == "coco":
        raise UserError("--polygons coco needs single files as its input; leave --polygons out.")
    return Given(None, tables, shards)


def _absolute(path: str | Path | None) -> Path | None:
    """A file or folder by its whole path; a published name as it is."""
    if path is None:
        return None
    path = Path(path).expanduser()
    return path.absolute() if path.exists() else path


def _work(
    ray: Any, given: Given, loaded: Any, writer: Writer, manifest: Manifest, skips: bool
) -> Work:
    settings = writer.settings
    if given.tables:
        return Work(*ray_rows.of_tables(ray, given.tables, settings))
    if given.found is None:
        return Work(ray_rows.of_shards(ray, given.shards, settings))
    left = Unfinished(given.found, writer, manifest) if skips else given.found
    sizes = announce(loaded, left, settings)
    return Work(ray_rows.of_listed(ray, left), len(left), sizes)


def _record(answers: Iterable[dict[str, Any]], manifest: Manifest) -> Summary:
    """Writes each record once: Ray repeats what a lost actor may have done already."""
    seen: set[int] = set()  # hashes: the names of millions of photographs take gigabytes
    failures, skipped = [], 0
    for answer in answers:
        record = json.loads(answer["record"]) if answer["record"] else None
        if record is None:
            skipped += 1
        elif hash(record["name"]) not in seen:
            seen.add(hash(record["name"]))
            manifest.append(record)
            if record["status"] == FAILED:
                failures.append(record["reason"])
    if skipped:
        print(f"{skipped} were done already (--skip-existing)")
    return Summary(len(seen) + skipped, failures)
