"""`fastfcn report`: several runs in one page, with intervals of scores and differing settings."""

import html
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from fastfcn_jax.errors import UserError
from fastfcn_jax.evaluation.report import (
    charts,
    colors,
    curves,
    facts,
    frame,
    paired,
    run_curves,
    statistics,
    stored_runs,
)
from fastfcn_jax.evaluation.report.stored_runs import Run
from fastfcn_jax.files import write_text

FEW = 12  # classes whose charts are not folded away


class Line(NamedTuple):
    """The scores of one run, in percent.

    low, high: 95 % interval of `miou`; NaN without the counts of the images.
    best, best_step: of the training's validations; NaN and 0 without one.
    to_first: difference to the first run; None for that run itself, and if it is not known.
    """

    name: str
    miou: float
    low: float
    high: float
    best: float
    best_step: int
    to_first: paired.Difference | None


def report(runs: Sequence[str | Path], output: str | Path = "comparison.html") -> list[Line]:
    """Compares runs in a page of one file, and prints their scores; no model is loaded.

    Args:
      runs: workdirs of trainings, of this or an older version, or folders of evaluations.
      output: the page; one that exists is replaced.

    Raises:
      UserError: no run is given, one is not a run, or the page cannot be written.
    """
    if not runs:
        raise UserError("name the folders of runs; for example fastfcn report runs/a runs/b.")
    output = Path(output).expanduser()
    if output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--output {output}: the page is HTML; give a name that ends with .html.")
    found = stored_runs.read([Path(run).expanduser() for run in runs])
    lines = [_line(run, found[0]) for run in found]
    notes = list(_notes(found, lines))
    write_text(output, _page(found, lines, notes))
    _print(lines)
    for note in notes:
        print(f"note: {note}")
    print(f"wrote {output}")
    return lines


def _line(run: Run, first: Run) -> Line:
    miou = low = high = float("nan")
    to_first = None
    if run.scored is not None:
        miou, counts = run.scored.miou, run.scored.counts
        if counts is not None:
            low, high = paired.interval(counts.counts, absent_counts_zero=counts.absent_counts_zero)
            if run is not first and first.scored is not None and first.scored.counts is not None:
                to_first = paired.difference(counts, first.scored.counts)
    best_step, best = max(
        run_curves.points(run.history, "eval", "mIoU"),
        key=lambda point: point[1],
        default=(0.0, float("nan")),
    )
    return Line(run.name, miou, low, high, best, int(best_step), to_first)


def _notes(runs: Sequence[Run], lines: Sequence[Line]) -> Iterator[str]:
    first = runs[0].scored
    for run, line in zip(runs, lines, strict=True):
        if run.scored is None:
            yield f"{run.name} has no evaluation with a score"
        elif run.scored.counts is None:
            yield (
                f"{run.name} has no {paired.NAME} of its evaluation, so no interval; "
                f"fastfcn eval --checkpoint {run.folder} stores it"
            )
        elif first and first.counts and run is not runs[0] and line.to_first is None:
            yield f"{run.name} was evaluated on other images or classes than {runs[0].name}"
        elif first and first.counts and line.to_first is not None:
            both, all_of = line.to_first.images, (run.scored.counts.ids, first.counts.ids)
            if both < max(map(len, all_of)):
                yield f"the difference of {run.name} is that on {both} common images"
    protocols = {str(run.scored.metrics.get("protocol", "")) for run in runs if run.scored}
    if len(protocols) > 1:
        yield f"the scores are of different protocols: {', '.join(sorted(protocols))}"


def _page(runs: Sequence[Run], lines: Sequence[Line], notes: Sequence[str]) -> str:
    heads = ["", *(_named(i, run) for i, run in enumerate(runs))]
    sections = [
        ("Scores", _scores(runs, lines) + "".join(f"<p>{html.escape(n)}.</p>" for n in notes)),
        *_curves(runs),
        ("Classes", _classes(runs)),
        ("Differing configuration", _differing(heads, stored_runs.differing_keys(runs))),
        ("Differing data, versions, commit", _differing(heads, stored_runs.differing_facts(runs))),
        ("Runs", _facts(heads, runs)),
    ]
    title = ", ".join(run.name for run in runs)
    intro = "One run" if len(runs) == 1 else f"{len(runs)} runs; differences are to the first one"
    palette = np.array(list(runs[0].palette.values()), np.uint8).reshape(-1, 3)
    return frame.page(title, f"{intro}; scores in percent", sections, rules=colors.rules(palette))


def _curves(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """One run's curves in charts of their own, several runs' over one another."""
    if len(runs) == 1:
        names = list(runs[0].palette) or stored_runs.class_names(runs)
        return [("Curves", run_curves.of_run(runs[0].history, names))]
    histories = [(run.name, run.history) for run in runs]
    each = run_curves.classes_of_runs(histories)
    folded = "" if len(stored_runs.class_names(runs)) > FEW else " open"
    each = f"<details{folded}><summary>curves</summary>{each}</details>" if each else ""
    return [("Curves", run_curves.of_runs(histories)), ("IoU of each class over the steps", each)]


def _named(index: int, run: Run) -> str:
    return f'<span class="{curves.style(index)}"><i class="line"></i></span>{html.escape(run.name)}'


def _scores(runs: Sequence[Run], lines: Sequence[Line]) -> str:
    several = len(runs) > 1
    rows = []
    for i, (run, line) in enumerate(zip(runs, lines, strict=True)):
        metrics = run.scored.metrics if run.scored else {}
        known = not np.isnan(line.miou)
        d = line.to_first
        rows.append(
            (
                _named(i, run),
                charts.bar(line.miou, line.low, line.high, curves.style(i)) if known else "",
                _number(line.miou),
                _between(line.low, line.high),
                *((_difference(d), f"{100 * d.worse:.1f} %" if d else "") if several else ()),
                _best(line),
                *(_number(metrics.get(key)) for key in ("mAcc", "aAcc")),
                html.escape(_evaluation(run.scored)) if run.scored else "",
            )
        )
    to_first = ("to the first (95 %)", "not better") if several else ()
    heads = ("run", "", "mIoU", "95 % interval", *to_first, "best", "mAcc", "aAcc", "evaluation")
    said = (
        "<p>Intervals: bootstrap over the images; those of differences draw the same images for "
        "both runs. Not better: share of the draws in which the run is not above the first. Best: "
        "of the validations while training.</p>"
    )
    return frame.table(heads, rows, said)


def _evaluation(scored: stored_runs.Scored) -> str:
    images, protocol = (scored.metrics.get(key) for key in ("num_images", "protocol"))
    parts = (scored.where, f"{images} images" if images else "", str(protocol or ""))
    return ", ".join(filter(None, parts))


def _difference(found: paired.Difference | None) -> str:
    return "" if found is None else f"{found.value:+.2f} ({found.low:+.2f} to {found.high:+.2f})"


def _best(line: Line) -> str:
    return "" if np.isnan(line.best) else f"{line.best:.2f} (step {line.best_step})"


def _classes(runs: Sequence[Run]) -> str:
    """The IoU of each class in each run, the highest bold, with its interval where known."""
    columns = []
    for run in runs:
        scores = run_curves.per_class(run.scored.metrics) if run.scored else {}
        counts = run.scored.counts if run.scored else None
        bounds = statistics.bootstrap(counts.counts) if counts is not None else None
        order = list(counts.class_names) if counts is not None else []
        columns.append((scores, bounds, order or list(scores)))
    rows = []
    for name in stored_runs.class_names(runs):
        values = [column[0].get(name) for column in columns]
        highest = max((v for v in values if v is not None), default=None)
        cells = []
        for value, (_, bounds, order) in zip(values, columns, strict=True):
            k = order.index(name) if name in order else -1
            within = _between(bounds[0][k], bounds[1][k]) if bounds and k >= 0 else ""
            written = _number(value)
            is_best = len(runs) > 1 and value is not None and value == highest
            cells += [f"<b>{written}</b>" if is_best else written, within]
        rows.append((html.escape(name), *cells))
    heads = [text for i, run in enumerate(runs) for text in (_named(i, run), "95 % interval")]
    return frame.table(("class", *heads), rows) if rows else ""


def _differing(heads: Sequence[str], found: Sequence[tuple[str, list[str]]]) -> str:
    if len(heads) <= 2:
        return ""
    if not found:
        return "<p>None.</p>"
    rows = [(html.escape(k), *(html.escape(v) or "–" for v in values)) for k, values in found]
    return frame.table(heads, rows, words=True)


def _facts(heads: Sequence[str], runs: Sequence[Run]) -> str:
    each = [dict(facts.of_training(run.card, run.history)) for run in runs]
    names = [name for name in each[0] if any(known[name] for known in each)]
    rows = [(name, *(frame.unbroken(known[name]) for known in each)) for name in names]
    return frame.table(heads, rows, words=True) if rows else ""


def _print(lines: Sequence[Line]) -> None:
    table = Table()
    table.add_column("run", overflow="fold")
    for head in ("mIoU", "95 % interval", "best", "to the first (95 %)"):
        table.add_column(head, justify="right", no_wrap=True)
    for line in lines:
        cells = (_number(line.miou), _between(line.low, line.high), _best(line))
        table.add_row(line.name, *cells, _difference(line.to_first))
    Console().print(table)


def _between(low: float, high: float) -> str:
    return "" if np.isnan(low) else f"{low:.1f} to {high:.1f}"


def _number(value: float | int | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.2f}"
