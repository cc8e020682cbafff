"""Evaluates a checkpoint folder: the scores on the terminal, metrics.json and report.html."""

import re
from pathlib import Path

from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from fastfcn_jax import measured_forms, models, runtime
from fastfcn_jax.checkpoints import model_folder, preprocessing
from fastfcn_jax.config import experiment
from fastfcn_jax.data import datasets
from fastfcn_jax.evaluation.boundaries import BoundaryIoU
from fastfcn_jax.evaluation.calibration import Calibration
from fastfcn_jax.evaluation.evaluate import Extra, Result, evaluate
from fastfcn_jax.evaluation.metrics import written
from fastfcn_jax.evaluation.report import baselines, document, paired
from fastfcn_jax.files import make_folder, write_json
from fastfcn_jax.inference import predictor
from fastfcn_jax.weights import store


def evaluate_folder(
    folder: str | Path,
    *,
    config: str | Path | ConfigDict | None = None,
    protocol: str | None = None,
    output: str | Path | None = None,
    compare: str | Path | None = None,
    calibration: bool = False,
    boundary: bool = False,
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

    Raises:
      UserError: no checkpoint, no data, other classes than the model has, or no output folder.
    """
    given, folder = folder, store.checkpoint(folder)
    runtime.cache_compilations()
    compare = None if compare is None else Path(compare).expanduser()
    other = [] if compare is None else [baselines.read(compare)]
    # Now, since the output may replace the file.
    counts = None if compare is None else paired.read(compare)
    loaded = model_folder.load_model(folder)
    if config is None:
        config = loaded.config
    else:
        chosen = config if isinstance(config, ConfigDict) else experiment.load(str(config))
        config = preprocessing.as_trained(loaded.config, chosen)
    source = datasets.open_split(config.data, config.data.val_split)
    if note := model_folder.compare_classes(folder, loaded.info, source.info):
        print(note)
    computed, choice = measured_forms.resolved(loaded.config)
    if choice.file is not None:
        print(choice.note)
    model = models.build(computed.model, loaded.info.num_classes)
    tested = predictor.build(config, model, loaded.variables, protocol=protocol)
    output = Path(output or output_folder(given, folder, "eval")).expanduser()
    make_folder(output)  # fails now, not after the evaluation
    extras: list[Extra] = []
    if calibration:
        extras.append(Calibration(source.info.num_classes))
    if boundary:
        extras.append(BoundaryIoU(source.info.class_names))
    result = evaluate(tested, source, announce=print, extras=extras)
    write_json(output / "metrics.json", result.metrics())
    paired.save(output, result)
    print_table(result)
    said = "" if compare is None else _difference(result, compare, counts)
    document.write_run(
        output / "report.html", folder, loaded.step, result, tested, source, config, other, said
    )
    print(f"{said}wrote {output / 'metrics.json'}, {paired.NAME} and report.html")
    return result


def output_folder(given: str | Path, folder: Path, kind: str) -> Path:
    """Where results go by default: nobody looks for them in the cache of fetched weights."""
    if Path(given).expanduser() == folder:
        return folder / kind
    return Path(f"{kind}_" + re.sub(r"[^\w.-]+", "_", Path(given).name))


def _difference(result: Result, compare: Path, counts: paired.Counts | None) -> str:
    """A line about the difference to another evaluation."""
    if counts is None:
        return f"--compare: no {paired.NAME} beside it; evaluate it again for an interval\n"
    found = paired.compare(result, counts)
    if found is None:
        return "--compare: other images or classes, so there is no interval\n"
    return f"to {compare}: {found}\n"


def print_table(result: Result) -> None:
    """Prints the scores of each class and their means."""
    scores = result.scores
    columns = ("IoU", "Acc") if result.foreground is None else ("IoU", "Acc", "F1", "Precision")
    means = {
        "IoU": scores.miou,
        "Acc": scores.macc,
        "F1": scores.mf1,
        "Precision": scores.mprecision,
    }
    table = Table("class", title=f"{result.num_images} images, protocol {result.protocol}")
    for name in columns:
        table.add_column(name, justify="right")
    for k, name in enumerate(result.class_names):
        found = scores.of_class(k)
        table.add_row(name, *(written(found[column]) for column in columns))
    table.add_section()
    table.add_row("mean", *(written(means[column]) for column in columns), style="bold")
    console = Console()
    console.print(table)
    console.print(result.summary(), soft_wrap=True)  # the object itself rich would print by field
