"""Reads a file of outlines from any supported program."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

from fastfcn_jax.data.annotations import (
    coco,
    cvat,
    label_studio,
    labelme,
    supervisely,
    voc,
    yolo,
)
from fastfcn_jax.data.annotations.shapes import Annotations
from fastfcn_jax.data.source import read_file
from fastfcn_jax.errors import UserError

SUFFIXES = (".json", ".xml", ".yaml", ".yml")


def read(path: Path) -> Annotations | None:
    """The outlines in a file, or None if its format is not known.

    Raises:
      UserError: the format is known, but the content is not valid.
    """
    content = _content(path)
    if content is None:
        return None
    try:
        if isinstance(content, ElementTree.Element):
            return next((f.parse(content) for f in (cvat, voc) if f.matches(content)), None)
        if path.suffix.lower() in (".yaml", ".yml"):
            return yolo.parse(content, path.parent) if yolo.matches(content) else None
        formats = (coco, labelme, label_studio, supervisely)
        found = next((f.parse(content) for f in formats if f.matches(content)), None)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, OSError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{path}: not valid for its format ({reason}); export it again.") from error
    if found is not None and found.program == "Supervisely":
        name = path.name.removesuffix(".json")
        return found._replace(pictures=[p._replace(names=(name,)) for p in found.pictures])
    return found


def _content(path: Path) -> Any:
    data = read_file(str(path))
    try:
        if path.suffix.lower() == ".xml":
            return ElementTree.fromstring(data)
        if path.suffix.lower() == ".json":
            return json.loads(data.decode("utf-8-sig"))
        return yaml.safe_load(data.decode("utf-8-sig"))
    except (ElementTree.ParseError, ValueError, yaml.YAMLError, RecursionError):
        return None
