"""Renames a class in a run and its model."""

from pathlib import Path

from fastfcn_jax import files, stored
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.errors import UserError


def rename_class(folder: Path, old: str, new: str) -> list[str]:
    """Renames a class in `model.json` and, if the folder has one, in `run.json`.

    Returns:
      One line per file written, and a reminder about the data set's list of classes.

    Raises:
      UserError: not a checkpoint folder, no class `old`, or `new` exists already or is not a name.
    """
    card = model_folder.read_card(folder)
    names = card["dataset"]["class_names"]
    if old not in names:
        raise UserError(f"{folder}: no class '{old}'; it has {', '.join(names)}.")
    if new in names:
        raise UserError(f"{folder}: there is a class '{new}' already; give another name.")
    if not new.strip() or not new.isprintable():
        raise UserError(f"'{new}' is not a class name; give a name of printable characters.")
    number = names.index(old)
    names[number] = new
    run_file = folder / "run.json"
    form = {"data": {"classes?": [str]}}
    run = stored.read(run_file, form, "fix it or move it away") if run_file.is_file() else None
    files.write_json(folder / "model.json", card)
    lines = [f"{folder / 'model.json'}: class {number} is '{new}', was '{old}'"]
    classes = run["data"].get("classes", []) if run else []
    if run and number < len(classes) and classes[number] == old:
        classes[number] = new
        files.write_json(run_file, run)
        lines.append(f"{run_file}: the same")
    return [*lines, "rename it in the classes.json of the data set too, if it is a folder's"]
