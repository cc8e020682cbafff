"""Checks the part of `model.json` about the classes: names, palette, stored values."""

from typing import Any

from fastfcn_jax import stored

MOST_CLASSES = 254  # a label is a byte, 255 is ignored


def fault(content: Any) -> str:
    """Says what is wrong with the "dataset" of a model card; "" if nothing is."""
    parts = {"name": str, "class_names": [str], "palette": [_colour], "values?": [_value]}
    if wrong := stored.fault(content, parts):
        return wrong
    count, colours = len(content["class_names"]), len(content["palette"])
    if not 0 < count <= MOST_CLASSES:
        return f"class_names must be 1 to {MOST_CLASSES} names, not {count}"
    if count != colours:
        return f"palette has {colours} colours for {count} classes"
    values = len(content.get("values", content["palette"]))
    return "" if count == values else f"values has {values} entries for {count} classes"


def _colour(row: Any) -> str:
    whole = isinstance(row, list) and [type(value) for value in row] == [int] * 3
    if whole and all(0 <= value <= 255 for value in row):
        return ""
    return "must be three whole numbers from 0 to 255"


def _value(value: Any) -> str:
    if not _colour(value) or (type(value) is int and 0 <= value <= 255):
        return ""
    return "must be a whole number from 0 to 255, or a colour of three"
