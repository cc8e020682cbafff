"""Reads JSON files and checks their form; a mismatch is reported in one sentence.

A form is a type or a tuple of types; a dict of forms by key, "key?" if the key is optional; a list
with the form of each entry; or a function that returns an error message, "" if the value is valid.
"""

import json
from pathlib import Path
from typing import Any

from fastfcn_jax.errors import UserError

WORDS = {
    bool: "true or false",
    dict: "an object",
    float: "a finite number",
    int: "a whole number",
    list: "a list",
    str: "a text",
    type(None): "null",
}
NUMBER = (float, type(None))  # null: undefined or not finite
RECORD = {
    "kind": lambda kind: "" if kind in ("train", "eval") else "must be train or eval",
    "step": lambda step: fault(step, int) or ("must be 0 or more" if step < 0 else ""),
    "losses?": [NUMBER],
    "mIoU?": NUMBER,
}


def read(path: Path, form: Any, remedy: str) -> Any:
    """Reads a JSON file.

    Args:
      form: the expected form, see the module's docstring.
      remedy: what to do if the file is invalid; the end of the error message.

    Raises:
      UserError: the file cannot be read, is not JSON, or does not have this form.
    """
    try:
        content = json.loads(path.read_bytes(), parse_constant=_refuse)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {remedy}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); {remedy}.") from error
    if wrong := fault(content, form):
        raise UserError(f"{path}: {wrong}; {remedy}.")
    return content


def read_records(path: Path) -> list[dict[str, Any]]:
    """All records of a metrics.jsonl file; ignores a last line truncated by a crash.

    Raises:
      UserError: any other line is not a record; the file is not changed.
    """
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else []
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}; fix that or choose another --workdir."
        ) from error
    if lines and not lines[-1]:
        lines.pop()  # the empty text after the final line break
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line.decode())
            wrong = fault(record, RECORD)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            wrong = f"not JSON ({error})"
        if wrong:
            raise UserError(
                f"{path}, line {number} of {len(lines)}: {wrong}; fix or remove that line, or "
                "move the file away. The file was not changed."
            )
        records.append(record)
    return records


def fault(value: Any, form: Any, name: str = "") -> str:
    """Says which key of `value` does not have the given form, and why; "" if all do."""
    if isinstance(form, dict):
        if not isinstance(value, dict):
            return _says(name, f"must be an object, not {_shown(value)}")
        for key, inner in form.items():
            plain = key.removesuffix("?")
            path = f"{name}.{plain}" if name else plain
            if plain not in value:
                if plain == key:
                    return f"{path} is missing"
            elif found := fault(value[plain], inner, path):
                return found
        return ""
    if isinstance(form, list):
        if not isinstance(value, list):
            return _says(name, f"must be a list, not {_shown(value)}")
        entries = (fault(entry, form[0], f"{name}[{i}]") for i, entry in enumerate(value))
        return next(filter(None, entries), "")
    if isinstance(form, type | tuple):
        kinds = form if isinstance(form, tuple) else (form,)
        if any(_is(value, kind) for kind in kinds):
            return ""
        wanted = " or ".join(WORDS[kind] for kind in kinds)
        return _says(name, f"must be {wanted}, not {_shown(value)}")
    wrong = form(value)
    return _says(name, wrong) if wrong else ""


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        whole_or_not = isinstance(value, int | float) and not isinstance(value, bool)
        return whole_or_not and abs(value) < 1e300  # excludes NaN and integers beyond float range
    if kind is int and isinstance(value, int) and abs(value) >= 2**63:
        return False
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _says(name: str, what: str) -> str:
    return f"{name} {what}".strip()


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."
