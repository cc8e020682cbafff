"""Evaluates a checkpoint folder: the scores on the terminal, metrics.json and report.html."""

import re
from pathlib import Path

from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from fastfcn_jax import models, runtime
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.data import datasets
from fastfcn_jax.evaluation.evaluate import Result, evaluate
from fastfcn_jax.evaluation.metrics import written
from fastfcn_jax.evaluation.report import baselines, document
from fastfcn_jax.files import make_folder, write_json
from fastfcn_jax.inference import predictor
from fastfcn_jax.weights import store


def evaluate_folder(
    folder: str | Path,
    *,
    config: ConfigDict | None = None,
    protocol: str | None = None,
    output: Path | None = None,
    compare: Path | None = None,
) -> Result:
    """Evaluates the model of a checkpoint folder on its validation split.

    Args:
      folder: a training's workdir, converted weights, or the name of published ones.
      config: data and test settings; None: as stored with the model.
        The model itself is always the stored one.
      protocol: overrides `config.eval.protocol`.
      output: folder for metrics.json and report.html; None: eval/ in `folder`, or eval_NAME/
        here for a published name.
      compare: metrics.json of another evaluation, for the report.

    Raises:
      UserError: no checkpoint, no data, other classes than the model has, or no output folder.
    """
    given, folder = folder, store.checkpoint(folder)
    runtime.cache_compilations()
    other = [] if compare is None else [baselines.read(compare)]
    loaded = model_folder.load_model(folder)
    config = loaded.config if config is None else config
    source = datasets.load(config.data.name, config.data.root, config.data.val_split)
    if note := model_folder.compare_classes(folder, loaded.info, source.info):
        print(note)
    model = models.build(loaded.config.model, loaded.info.num_classes)
    tested = predictor.build(config, model, loaded.variables, protocol=protocol)
    output = make_folder(output or _output(given, folder))  # fails now, not after the evaluation
    result = evaluate(tested, source, announce=print)
    write_json(output / "metrics.json", result.metrics())
    print_table(result)
    document.write_run(
        output / "report.html", folder, loaded.step, result, tested, source, config, other
    )
    print(f"wrote {output / 'metrics.json'} and report.html")
    return result


def _output(given: str | Path, folder: Path) -> Path:
    """Where scores go by default: nobody looks for them in the cache of fetched weights."""
    if Path(given).expanduser() == folder:
        return folder / "eval"
    return Path("eval_" + re.sub(r"[^\w.-]+", "_", Path(given).name))


def print_table(result: Result) -> None:
    """Prints IoU and accuracy per class and their means."""
    scores = result.scores
    table = Table("class", title=f"{result.num_images} images, protocol {result.protocol}")
    table.add_column("IoU", justify="right")
    table.add_column("Acc", justify="right")
    for name, iou, acc in zip(result.class_names, scores.iou, scores.acc, strict=True):
        table.add_row(name, written(iou), written(acc))
    table.add_section()
    table.add_row("mean", written(scores.miou), written(scores.macc), style="bold")
    console = Console()
    console.print(table)
    console.print(str(scores))  # the object itself rich would print field by field
