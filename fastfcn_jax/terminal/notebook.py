"""Output in a notebook that is replaced in place: progress, and the curves of a training."""

import html
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

SECONDS_BETWEEN = 0.3  # updates; each is a message to the browser
_WIDTH, _HEIGHT, _LEFT, _FLOOR, _TOP = 330, 160, 40, 140, 24  # of a curve, in pixels
_LOSS, _SCORE = "#1f77b4", "#2ca02c"


def is_here() -> bool:
    """Whether this runs in the kernel of a notebook (Jupyter, Colab, VS Code)."""
    module = sys.modules.get("IPython")
    return module is not None and hasattr(module.get_ipython(), "kernel")


class Live:
    """A piece of HTML below the cell, replaced by each `show`."""

    def __init__(self):
        self._handle: Any = None
        self._last = 0.0

    def show(self, text: str, *, now: bool = False) -> None:
        """Shows `text`; drops it if the last one is recent, unless `now`."""
        from IPython.display import HTML, display  # pyright: ignore[reportMissingImports]

        if self._handle is None:
            self._handle = display(HTML(text), display_id=True)
        elif now or time.monotonic() - self._last > SECONDS_BETWEEN:
            self._handle.update(HTML(text))
        else:
            return
        self._last = time.monotonic()


def bar(done: int, total: int, text: str) -> str:
    """A progress bar with a text beside it."""
    return f'<progress value="{done}" max="{max(total, 1)}"></progress> {html.escape(text)}'


class Curves:
    """Shows the progress of a training, its loss and its validation mIoU, record by record."""

    def __init__(self, total_steps: int):
        self._total = total_steps
        self._live = Live()
        self._losses: list[tuple[int, float]] = []
        self._scores: list[tuple[int, float]] = []
        self._text = "starting"
        self._step = 0

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Takes one record of metrics.jsonl."""
        key, points = (
            ("loss", self._losses) if record["kind"] == "train" else ("mIoU", self._scores)
        )
        self._step = record["step"]
        if record.get(key) is not None:
            points.append((self._step, record[key]))
        self._show(now=record["kind"] == "eval")

    def say(self, text: str) -> None:
        """Replaces the text beside the bar."""
        self._text = text
        self._show()

    def close(self) -> None:
        self._show(now=True)

    def _show(self, *, now: bool = False) -> None:
        charts = [
            curve(title, points, color)
            for title, points, color in (
                ("loss", self._losses, _LOSS),
                ("validation mIoU, %", self._scores, _SCORE),
            )
            if points
        ]
        self._live.show(
            bar(self._step, self._total, self._text) + "<br>" + "".join(charts), now=now
        )


def curve(title: str, points: Sequence[tuple[int, float]], color: str) -> str:
    """A curve over steps as inline SVG, with its smallest, largest and last value."""
    steps, values = zip(*points, strict=True)
    low, high = min(values), max(values)
    across = (_WIDTH - _LEFT - 8) / max(steps[-1] - steps[0], 1)
    down = (_FLOOR - _TOP) / max(high - low, 1e-9)
    places = [
        (_LEFT + (step - steps[0]) * across, _FLOOR - (value - low) * down)
        for step, value in points
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    x, y = places[-1]
    frame = f'<path d="M{_LEFT},{_TOP}V{_FLOOR}H{_WIDTH - 8}" fill="none" stroke="gray"/>'
    line = f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>'
    texts = (
        (_LEFT - 4, _TOP + 4, "end", f"{high:.3g}"),
        (_LEFT - 4, _FLOOR, "end", f"{low:.3g}"),
        (_LEFT, _HEIGHT - 4, "start", f"{steps[0]}"),
        (_WIDTH - 8, _HEIGHT - 4, "end", f"step {steps[-1]}"),
        (_LEFT, 12, "start", f"{title}: {values[-1]:.4g}"),
    )
    labels = "".join(
        f'<text x="{a}" y="{b}" text-anchor="{anchor}">{html.escape(text)}</text>'
        for a, b, anchor, text in texts
    )
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" font-size="11" fill="gray" role="img" '
        f'aria-label="{html.escape(title)}">{frame}{line}'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>{labels}</svg>'
    )
