"""The frame of a page in one file, and the strips of pictures in it."""

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from fastfcn_jax.evaluation.report import charts

PICTURE_WIDTH = 400  # of each picture in a strip
_STYLE = (Path(__file__).parent / "document.css").read_text(encoding="utf-8")


def page(title: str, intro: str, sections: Iterable[tuple[str, str]], tiles: str = "") -> str:
    """A whole page.

    Args:
      title: plain text; intro: HTML of the first paragraph.
      sections: (heading, HTML); those without content are left out.
      tiles: HTML above the sections.
    """
    body = "".join(f"<section><h2>{name}</h2>{text}</section>" for name, text in sections if text)
    name = html.escape(title)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{name}</title><style>{_STYLE}</style></head><body>'
        f"<h1>{name}</h1><p>{intro}</p>"
        f'<div class="tiles">{tiles}</div>{body}</body></html>\n'
    )


def escape(words: str) -> str:
    """Plain text as HTML."""
    return html.escape(words)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], foot: str = "") -> str:
    """A table of HTML cells that scrolls sideways; the first column names the row."""
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join(
        f"<tr><th>{first}</th>{''.join(f'<td>{cell}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        f"</div>{foot}"
    )


def strip(caption: str, parts: Iterable[tuple[str, UInt8[np.ndarray, "_ _ 3"]]]) -> str:
    """Named pictures side by side under a caption, which is plain text."""
    pictures = "".join(
        f'<figure><img src="{charts.data_url(part, photograph=True)}" alt="{name}">'
        f"<figcaption>{name}</figcaption></figure>"
        for name, part in parts
    )
    return f'<h3>{html.escape(caption)}</h3><div class="strip">{pictures}</div>'


def shrink(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The picture, at most as wide as a strip shows it."""
    height, width = picture.shape[:2]
    if width <= PICTURE_WIDTH:
        return picture
    size = (PICTURE_WIDTH, max(round(height * PICTURE_WIDTH / width), 1))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
