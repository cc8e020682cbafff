"""Reads a weight file's metadata: class names, colours, training steps, preprocessing."""

import ast
from typing import Any, NamedTuple

_LONGEST_CONFIG = 1 << 20  # characters; the reference configurations have about ten thousand
Color = tuple[int, int, int]


class FileMeta(NamedTuple):
    """The metadata; empty or 0 if the file does not have it.

    Attributes:
      class_names: in the order of the classifier's outputs.
      palette: RGB of each class.
      iteration: training steps.
      mean, std: of the image normalisation, in RGB order if `is_rgb`, else BGR.
      test_scale: (width, height) that test images are scaled to fit.
      slide: window and stride (height, width) for sliding-window testing.
      threshold: probability above which a pixel is of the second class (one-channel models).
    """

    class_names: tuple[str, ...] = ()
    palette: tuple[Color, ...] = ()
    iteration: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    is_rgb: bool = True
    test_scale: tuple[int, ...] = ()
    slide: tuple[tuple[int, ...], ...] = ()
    threshold: float = 0.0


def read(top: dict) -> FileMeta:
    """Reads `meta` as mmengine (`dataset_meta`) and mmsegmentation 0.x (`CLASSES`) write it.

    Args:
      top: the file's outermost dictionary. Values of unexpected types are ignored.
    """
    meta = _as_dict(top.get("meta"))
    dataset = _as_dict(meta.get("dataset_meta"))
    names = dataset.get("classes") or dataset.get("CLASSES") or meta.get("CLASSES")
    palette = dataset.get("palette") or dataset.get("PALETTE") or meta.get("PALETTE")
    iteration = meta.get("iter") or top.get("global_step")
    config = _settings(meta.get("cfg") or meta.get("config"))
    normalization = _as_dict(
        config.get("img_norm_cfg")
        or config.get("data_preprocessor")
        or _as_dict(config.get("model")).get("data_preprocessor")
    )
    model = _as_dict(config.get("model"))
    test = _as_dict(model.get("test_cfg"))
    slides = test.get("mode") == "slide"
    window = (_integers(test.get("crop_size")), _integers(test.get("stride"))) if slides else ()
    return FileMeta(
        class_names=_names(names),
        palette=_palette(palette),
        iteration=iteration if type(iteration) is int and iteration > 0 else 0,
        mean=_numbers(normalization.get("mean")),
        std=_numbers(normalization.get("std")),
        is_rgb=(normalization.get("to_rgb", normalization.get("bgr_to_rgb", True)) is not False),
        test_scale=_test_scale(config.get("test_pipeline")),
        slide=window if all(len(size) == 2 for size in window) else (),
        threshold=_share(_as_dict(model.get("decode_head")).get("threshold")),
    )


def _settings(text: Any) -> dict[str, Any]:
    """The literal assignments in a configuration's Python source, which is not executed."""
    if not isinstance(text, str) or len(text) > _LONGEST_CONFIG:
        return {}
    try:
        statements = ast.parse(text).body
        return {
            statement.targets[0].id: _literal(statement.value)
            for statement in statements
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
        }
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}


def _literal(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value):
            return value
        case ast.List(elements) | ast.Tuple(elements):
            return [_literal(element) for element in elements]
        case ast.Call(func=ast.Name("dict"), args=[], keywords=pairs):
            return {pair.arg: _literal(pair.value) for pair in pairs if pair.arg}
        case ast.Dict(keys, values):
            pairs = zip(keys, values, strict=True)
            return {k.value: _literal(v) for k, v in pairs if isinstance(k, ast.Constant)}
    return None


def _test_scale(pipeline: Any) -> tuple[int, ...]:
    for step in pipeline if isinstance(pipeline, list) else ():
        step = _as_dict(step)
        if step.get("type") == "MultiScaleFlipAug":
            return _integers(step.get("img_scale"))
        if step.get("type") == "Resize":
            return _integers(step.get("scale"))
    return ()


def _as_dict(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, (list, tuple)) and all(type(item) is kind for item in value)


def _names(value: Any) -> tuple[str, ...]:
    """Class names; none if one has control characters, which a terminal would execute."""
    if not _is_list(value, str) or not all(name.isprintable() for name in value):
        return ()
    return tuple(name[:200] for name in value)


def _palette(value: Any) -> tuple[Color, ...]:
    if not isinstance(value, (list, tuple)):
        return ()
    colors = [tuple(color) for color in value if _is_list(color, int) and len(color) == 3]
    whole = len(colors) == len(value) and all(0 <= n <= 255 for color in colors for n in color)
    return tuple((r, g, b) for r, g, b in colors) if whole else ()


def _integers(value: Any) -> tuple[int, ...]:
    return tuple(value) if _is_list(value, int) and min(value, default=0) > 0 else ()


def _share(value: Any) -> float:
    return float(value) if isinstance(value, float) and 0.0 < value < 1.0 else 0.0


def _numbers(value: Any) -> tuple[float, ...]:
    if not isinstance(value, (list, tuple)):
        return ()
    return tuple(float(x) for x in value if isinstance(x, (int, float)))
