"""The frame of a page in one file, and the strips of pictures in it."""

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from fastfcn_jax.evaluation.report import charts

PICTURE_WIDTH = 1024  # of a picture in a strip that is opened
_FOLDER = Path(__file__).parent
_STYLE = (_FOLDER / "document.css").read_text(encoding="utf-8")
_SCRIPT = (_FOLDER / "document.js").read_text(encoding="utf-8")


def page(
    title: str,
    intro: str,
    sections: Iterable[tuple[str, str]],
    above: str = "",
    *,
    rules: str = "",
) -> str:
    """A whole page, which may be shown under a strict content security policy.

    It states its own: nothing is loaded, and nothing runs but its one script, which it can do
    without. What a data set or a run is called cannot become a script.

    Args:
      title: plain text; intro: HTML of the first paragraph.
      sections: (heading, HTML); those without content are left out.
      above: HTML above the sections.
      rules: more CSS, see `colors.rules`.
    """
    body = "".join(f"<section><h2>{name}</h2>{text}</section>" for name, text in sections if text)
    name, style = html.escape(title), _STYLE + rules
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(_SCRIPT)}"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{name}</title><style>{style}</style></head><body>'
        f"<h1>{name}</h1><p>{intro}</p>{above}{body}<script>{_SCRIPT}</script></body></html>\n"
    )


def escape(words: str) -> str:
    """Plain text as HTML."""
    return html.escape(words)


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], foot: str = "", *, words: bool = False
) -> str:
    """A table of HTML cells that scrolls sideways; the first column names the row and stays.

    Args:
      words: the cells are words, not numbers, which are right-aligned.
    """
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join(
        f"<tr><th>{first}</th>{''.join(f'<td>{cell}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    kind = ' class="words"' if words else ""
    found = f"<table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return scrolling(found) + foot


def scrolling(content: str) -> str:
    """Something wide that scrolls by itself; a script shows the hint where that is needed."""
    hint = '<p class="hint" hidden>wider than the screen: scroll sideways</p>'
    return f'{hint}<div class="scroll" tabindex="0">{content}</div>'


def listed(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and their values, plain text, as a list; pairs without a value are left out."""
    items = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{unbroken(value)}</dd>" for name, value in pairs if value
    )
    return f'<dl class="card">{items}</dl>' if items else ""


def unbroken(text: str) -> str:
    """Plain text as HTML that is broken between words alone: a browser also breaks at hyphens."""
    words = (html.escape(word) for word in text.split(" "))
    return " ".join(f"<span>{word}</span>" if "-" in word else word for word in words)


def strip(caption: str, parts: Iterable[tuple[str, UInt8[np.ndarray, "_ _ 3"]]]) -> str:
    """Named pictures side by side under a caption, which is plain text; each opens when clicked."""
    pictures = "".join(
        f'<figure><span class="stack"><img src="{charts.data_url(part, photograph=True)}" '
        f'alt="{name}"></span><figcaption>{name}</figcaption></figure>'
        for name, part in parts
    )
    return f'<h3>{html.escape(caption)}</h3><div class="strip">{pictures}</div>'


def shrink(
    picture: UInt8[np.ndarray, "h w *c"], widest: int = PICTURE_WIDTH
) -> UInt8[np.ndarray, "h2 w2 *c"]:
    """The picture with sides of at most `widest` pixels; a label map keeps its values."""
    height, width = picture.shape[:2]
    factor = widest / max(height, width)
    if factor >= 1:
        return picture
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    is_map = picture.ndim == 2
    return cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST if is_map else cv2.INTER_AREA)


def _hash(text: str) -> str:
    """The source expression that allows an inline element with this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
