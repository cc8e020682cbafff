"""Figures of the docs from runs on CamVid; they contain no photograph.

python benchmarks/camvid_figures.py curves --output docs/FILE.svg NAME=RUN/metrics.jsonl ...
python benchmarks/camvid_figures.py classes --output docs/FILE.png --checkpoint RUN --root CAMVID

`curves`: mIoU over steps, one line for each run; NAME=RUN.json takes a run of `camvid_parity.py`.
`classes`: the classes predicted for four validation photographs, above a legend.
"""

import argparse
import html
import json
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]  # works without installing the package

WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 720, 320, 44, 170, 30, 26  # in user units
COLOURS = ("#1d5fbf", "#6fa8ff", "#c2410c", "#fb923c", "#15803d", "#4ade80")


def evaluations(path: Path) -> list[tuple[int, float]]:
    """(step, mIoU) of a metrics.jsonl, or of a run's JSON."""
    text = path.read_text()
    records = (
        json.loads(text)["records"]
        if path.suffix == ".json"
        else map(json.loads, text.splitlines())
    )
    return [(r["step"], r["mIoU"]) for r in records if r["kind"] == "eval"]


def curves(runs: dict[str, list[tuple[int, float]]]) -> str:
    """A standalone SVG with a white background, so that it is readable on any page."""
    last = max(step for points in runs.values() for step, _ in points)
    high = 10 * np.ceil(max(value for points in runs.values() for _, value in points) / 10)

    def place(step: float, value: float) -> tuple[float, float]:
        x = LEFT + step / last * (WIDTH - LEFT - RIGHT)
        return x, HEIGHT - BOTTOM - value / high * (HEIGHT - BOTTOM - TOP)

    parts = []
    for value in np.arange(0, high + 1, 10):
        x, y = place(0, value)
        parts.append(f'<path d="M{x:.1f},{y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(_text(x - 6, y + 4, f"{value:g}", "end"))
    for step in np.linspace(0, last, 5):
        x, y = place(step, 0)
        parts.append(_text(x, y + 18, f"{step:g}", "middle"))
    parts.append(_text(8, 14, "mIoU, %", "start"))
    for k, (name, points) in enumerate(runs.items()):
        colour = COLOURS[k % len(COLOURS)]
        path = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        y = TOP + 20 + 18 * k
        x = WIDTH - RIGHT + 10
        parts.append(f'<path d="M{x},{y - 4}h16" stroke="{colour}" stroke-width="3"/>')
        parts.append(_text(x + 22, y, f"{name} {points[-1][1]:.1f}", "start"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12"><rect width="{WIDTH}" height="{HEIGHT}" '
        f'fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def classes(checkpoint: Path, root: str, count: int = 4) -> np.ndarray:
    """RGB picture: predicted label maps of evenly spaced validation photographs, and a legend."""
    import fastfcn_jax
    from fastfcn_jax.data import datasets
    from fastfcn_jax.pictures import colorize, with_legend

    model = fastfcn_jax.load(checkpoint)
    source = datasets.load("camvid", root, "val")
    chosen = np.linspace(0, len(source) - 1, count).astype(int)
    maps = np.stack([model(source[int(i)].image) for i in chosen])
    rows = [np.concatenate(list(maps[i : i + 2]), axis=1) for i in range(0, count, 2)]
    labels = np.concatenate(rows)
    info = source.info
    return with_legend(colorize(labels, info.palette), labels, info.class_names, info.palette)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figure", choices=("curves", "classes"))
    parser.add_argument("runs", nargs="*", help="curves: NAME=FILE")
    parser.add_argument("--checkpoint", type=Path, help="classes: folder of the run")
    parser.add_argument("--root", default="", help="classes: folder of CamVid")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_intermixed_args()
    if arguments.figure == "curves":
        pairs = (run.rpartition("=") for run in arguments.runs)
        runs = {name: evaluations(Path(path)) for name, _, path in pairs}
        arguments.output.write_text(curves(runs))
    else:
        picture = classes(arguments.checkpoint, arguments.root)
        cv2.imwrite(str(arguments.output), picture[..., ::-1])


if __name__ == "__main__":
    main()
