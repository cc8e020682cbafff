"""Writes what an evaluation leaves: a table on the terminal, metrics.json, counts and report."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from fastfcn_jax.evaluation.evaluate import Result
from fastfcn_jax.evaluation.metrics import written
from fastfcn_jax.evaluation.report import baselines, document, paired
from fastfcn_jax.evaluation.report.baselines import Baseline
from fastfcn_jax.evaluation.subject import Subject
from fastfcn_jax.files import write_json


class Comparison(NamedTuple):
    """Another evaluation: where its scores are, and its scores and counts (None: not there)."""

    file: Path
    scores: Baseline
    counts: paired.Counts | None

    @classmethod
    def read(cls, file: str | Path | None) -> "Comparison | None":
        """The evaluation given as --compare; None without one.

        Read before anything is written: the output may replace the file.

        Raises:
          UserError: there is no such file, or it is no metrics.json.
        """
        if file is None:
            return None
        path = Path(file).expanduser()
        return cls(path, baselines.read(path), paired.read(path))


def write(
    output: Path,
    result: Result,
    config: ConfigDict,
    folder: Path,
    step: int,
    palette,
    compared: Comparison | None,
    found: Subject | None,
) -> None:
    """Prints the scores and writes them.

    Args:
      folder, step: of the checkpoint.
      palette: colours of the classes, uint8 RGB.
      found: model and images, for the report's pictures; None: it has none.
    """
    write_json(output / "metrics.json", result.metrics())
    paired.save(output, result)
    print_table(result)
    said = "" if compared is None else _difference(result, compared)
    others = [] if compared is None else [compared.scores]
    report = output / "report.html"
    if found is None:
        document.write(
            report,
            f"{folder.absolute().name}, step {step}",
            result,
            palette=np.array(palette, np.uint8),
            baselines=[*baselines.published(config, result.protocol), *others],
            comparison=said,
        )
    else:
        document.write_run(
            report, folder, step, result, found.predictor, found.source, config, others, said
        )
    print(f"{said}wrote {output / 'metrics.json'}, {paired.NAME} and report.html")


def _difference(result: Result, compared: Comparison) -> str:
    """A line about the difference to another evaluation."""
    if compared.counts is None:
        return f"--compare: no {paired.NAME} beside it; evaluate it again for an interval\n"
    found = paired.compare(result, compared.counts)
    if found is None:
        return "--compare: other images or classes, so there is no interval\n"
    return f"to {compared.file}: {found}\n"


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
