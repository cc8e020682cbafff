"""The house: no circle of imports, no arrow upwards, no file name twice, no file over 300 lines."""

import ast
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fastfcn_jax"

# From the ground up: a room imports from its own floor's rooms only where they stand before it,
# and from the floors below.
FLOORS = [
    ["errors", "rooms", "provenance", "text"],
    ["files", "runtime", "stored", "terminal", "pictures"],
    ["config"],
    ["cli"],
    ["models", "data"],
    ["inference", "checkpoints"],
    ["convert", "weights"],
    ["evaluation"],
    ["training"],
    ["api", "export"],
    ["predict", "serve", "doctor", "bench", "replay", "submit"],
    ["demo", "__main__"],
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = [PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts]
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imported(module: str) -> set[str]:
    """The modules of the package that a module imports, anywhere in its text."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE.name):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else node.module for name in names}
    return found - {module}


# The package itself and the mains name everything: they are the door.
ARROWS = {
    module: imported(module)
    for module in MODULES
    if module != PACKAGE.name and not module.endswith("__main__")
}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "errors"  # the package has its version alone


@pytest.mark.parametrize("module", sorted(ARROWS))
def test_arrows_point_downwards(module):
    floor = FLOOR_OF[room(module)]
    upwards = [
        other
        for other in ARROWS[module]
        if room(other) != room(module) and FLOOR_OF[room(other)] > floor
    ]
    assert not upwards


def test_there_is_no_circle():
    below = {module: set(arrows) for module, arrows in ARROWS.items()}
    while free := [m for m, arrows in below.items() if not arrows & below.keys()]:
        for module in free:
            del below[module]
    circle = {module: arrows & below.keys() for module, arrows in below.items()}
    while free := circle.keys() - set().union(*circle.values()):  # only lead into it
        circle = {module: arrows for module, arrows in circle.items() if module not in free}
    assert not circle, "these import each other in a circle"


def test_no_file_name_is_there_twice():
    names = Counter(path.name for path in MODULES.values())
    del names["__init__.py"], names["__main__.py"]
    assert [name for name, count in names.items() if count > 1] == []


def test_no_file_is_long_and_each_says_its_job():
    for path in MODULES.values():
        text = path.read_text()
        assert len(text.splitlines()) <= 300, path
        assert ast.get_docstring(ast.parse(text)), path


def test_data_never_imports_jax():
    """Grain's worker processes would each start a device."""
    for module, path in MODULES.items():
        if room(module) == "data":
            names = {
                alias.name if isinstance(node, ast.Import) else node.module
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Import | ast.ImportFrom)
                for alias in node.names
            }
            assert not {name for name in names if name.split(".")[0] in ("jax", "flax")}, module
