"""Evaluates a checkpoint folder: the scores on the terminal, metrics.json and report.html."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from fastfcn_jax import peers, provenance, ray_cluster, runtime, share
from fastfcn_jax.config import experiment
from fastfcn_jax.errors import UserError
from fastfcn_jax.evaluation import extras, ray_eval, stored_shares, subject, tally
from fastfcn_jax.evaluation.evaluate import Result, count, result_of
from fastfcn_jax.evaluation.outcome import Comparison, write
from fastfcn_jax.evaluation.subject import Subject
from fastfcn_jax.files import make_folder
from fastfcn_jax.weights import store

AGAIN = "nothing is written; start the evaluation again in all processes, this one by: "


def evaluate_folder(
    folder: str | Path,
    *,
    config: str | Path | ConfigDict | None = None,
    protocol: str | None = None,
    output: str | Path | None = None,
    compare: str | Path | None = None,
    calibration: bool = False,
    boundary: bool = False,
    shard: str | None = None,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    ray: str | None = None,
) -> Result:
    """Evaluates the model of a checkpoint folder on its validation split.

    Args:
      folder: a training's workdir, converted weights, or the name of published ones.
      config: data and test settings, a configuration or its name or file; None: as stored with the
        model. The model itself, and how its images are normalised, are always the stored ones.
      protocol: overrides `config.eval.protocol`.
      output: folder for metrics.json and report.html; None: eval/ in `folder`, or eval_NAME/
        here for a published name.
      compare: metrics.json of another evaluation, for the report.
      calibration: also compute the expected calibration error.
      boundary: also compute boundary IoU.
      shard: "I/N", to count share I of N and store the counts for `merge_shards`.
      coordinator: address of process 0, if several divide the images as in `train`; it writes.
      num_processes: how many there are.
      process_id: which of them this is.
      ray: "HOST:PORT" of a Ray cluster that predicts; see `ray_cluster.joined` for "". All nodes
        have to see the data and the model.

    Returns:
      The scores, the same in all processes; with `shard` those of the share.

    Raises:
      UserError: no checkpoint, no data, other classes than the model has, or no output folder.
    """
    part = None if shard is None else share.parse(shard)
    if ray is not None:
        ray_cluster.refuse(
            shard=shard,
            coordinator=coordinator,
            num_processes=num_processes,
            process_id=process_id,
        )
        ray_cluster.stay_on_cpu()
        relay = None
    else:
        relay = runtime.join_processes(coordinator, num_processes, process_id)
    asked = {"calibration": calibration, "boundary": boundary}
    chosen = [name for name in extras.EXTRAS if asked[name]]
    with peers.watch(AGAIN + provenance.command(), relay):
        given, folder = folder, runtime.together(lambda: store.checkpoint(folder))
        target = Path(output or output_folder(given, folder, "eval")).expanduser()
        compared = runtime.together(lambda: Comparison.read(compare))
        runtime.cache_compilations()
        found = runtime.together(lambda: subject.prepare(folder, config, protocol))
        # Fails now, not after the evaluation.
        runtime.together(lambda: make_folder(target) if jax.process_index() == 0 else None)
        if ray is None:
            return _evaluate(found, target, chosen, part, compared)
        for note in found.notes:
            print(note)
        there = folder.absolute() if Path(given).expanduser() == folder else given
        counted = ray_eval.count(ray, there, found, protocol, chosen)
        return _written(found, target, chosen, counted, compared)


def _evaluate(
    found: Subject,
    output: Path,
    chosen: Sequence[str],
    part: tuple[int, int] | None,
    compared: Comparison | None,
) -> Result:
    facts = subject.facts(found)
    runtime.agree({**facts, "choice of scores": chosen, "--shard": part}, "evaluation")
    first = jax.process_index() == 0
    say = print if first else (lambda _: None)
    for note in found.notes:
        say(note)
    counted = count(
        found.predictor,
        found.source,
        share=part or (0, 1),
        extras=extras.build(chosen, found.source.info.class_names),
        announce=say,
    )
    if part is None:
        result = _written(found, output, chosen, counted, compared)
    else:
        result = _result(found, chosen, counted)
    if first and part is not None:
        file = output / stored_shares.file_name(part)
        about = {
            "share": list(part),
            "facts": facts,
            "scores": list(chosen),
            "folder": str(found.folder.absolute()),
            "step": found.loaded.step,
            "config": experiment.to_json(found.config),
            "palette": found.source.info.palette.tolist(),
            "absent_counts_zero": found.predictor.protocol.is_official,
        }
        stored_shares.write(file, counted, about)
        print(
            f"wrote {file}: {len(counted.ids)} of {len(found.source)} images; when all "
            f"{part[1]} shares are there: fastfcn eval --merge {output} --output SCORES"
        )
    runtime.wait_for_all()
    return result


def _result(found: Subject, chosen: Sequence[str], counted: tally.Tally) -> Result:
    test, names = found.predictor.protocol, found.source.info.class_names
    return result_of(counted, test.name, names, extras.build(chosen, names), test.is_official)


def _written(
    found: Subject,
    output: Path,
    chosen: Sequence[str],
    counted: tally.Tally,
    compared: Comparison | None,
) -> Result:
    """The scores of all images; process 0 writes them."""
    result = _result(found, chosen, counted)
    if jax.process_index() == 0:
        write(output, result, found.config, found.folder, found.loaded.step,
              found.source.info.palette, compared, found)  # fmt: skip
    return result


def merge_shards(
    shards: Sequence[str | Path],
    *,
    output: str | Path,
    compare: str | Path | None = None,
) -> Result:
    """Adds the counts that `evaluate_folder` has stored of all shares of an evaluation.

    Writes what the evaluation of all images would have written. The report's pictures need the
    model and the images where the shares were counted; without them it has none.

    Args:
      shards: files, or folders of such files.
      output: folder for metrics.json and report.html.
      compare: metrics.json of another evaluation, for the report.

    Raises:
      UserError: a file is no share, shares do not belong together, are missing or there twice, or
        no output folder.
    """
    found = stored_shares.read_all(shards)
    compared = Comparison.read(compare)
    target = make_folder(Path(output).expanduser())
    about = found[0].about
    facts, names = about["facts"], about["facts"]["classes"]
    counted = tally.join([one.counted for one in found])
    scores = extras.build(about["scores"], names)
    result = result_of(counted, facts["protocol"], names, scores, about["absent_counts_zero"])
    config = experiment.from_json(about["config"], found[0].file)
    folder = Path(about["folder"])
    again = _again(folder, config, facts)
    write(target, result, config, folder, about["step"], about["palette"], compared, again)
    return result


def _again(folder: Path, config: ConfigDict, facts: dict[str, Any]) -> Subject | None:
    """The model and the images of stored shares, for the pictures; None if they are not here."""
    runtime.cache_compilations()
    try:
        found = subject.prepare(folder, config, facts["protocol"])
        now = subject.facts(found)
        if now == facts:
            return found
        other = next(name for name in facts if now.get(name) != facts[name])
        why = f"{folder} or the images have changed since, or this machine is another: {other}"
    except UserError as error:
        why = str(error).rstrip(".")
    print(f"the report has no pictures of images: {why}")
    return None


def output_folder(given: str | Path, folder: Path, kind: str) -> Path:
    """Where results go by default: nobody looks for them in the cache of fetched weights."""
    if Path(given).expanduser() == folder:
        return folder / kind
    return Path(f"{kind}_" + re.sub(r"[^\w.-]+", "_", Path(given).name))
