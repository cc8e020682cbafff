"""Package layout: no import cycles or upward imports, unique file names, at most 300 lines."""

import ast
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fastfcn_jax"

# From the lowest layer up: a subpackage or module imports only from its own and lower layers.
LAYERS = [
    ["errors", "rooms", "provenance", "text", "polygons", "relay", "share"],
    ["files", "runtime", "peers", "stored", "terminal", "pictures", "addresses", "ray_cluster"],
    ["config"],
    ["cli", "launch", "measured_forms"],
    ["models", "data"],
    ["inference", "checkpoints"],
    ["convert", "weights"],
    ["evaluation"],
    ["training"],
    ["api", "described", "photographs", "export"],
    ["predict", "serve", "doctor", "bench", "replay", "submit", "servers"],
    ["demo", "__main__"],
]
LAYER_OF = {part: layer for layer, parts in enumerate(LAYERS) for part in parts}


def modules() -> dict[str, Path]:
    """The files of all modules of the package, by dotted name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = [PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts]
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imported(module: str) -> set[str]:
    """The modules of the package that a module imports, at the top level or in a function."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE.name):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else node.module for name in names}
    return found - {module}


# The package itself and the `__main__` modules are left out: they import every command.
IMPORTS = {
    module: imported(module)
    for module in MODULES
    if module != PACKAGE.name and not module.endswith("__main__")
}


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else "errors"  # the package only has a version


@pytest.mark.parametrize("module", sorted(IMPORTS))
def test_imports_point_to_lower_layers(module):
    layer = LAYER_OF[part(module)]
    upwards = [
        other
        for other in IMPORTS[module]
        if part(other) != part(module) and LAYER_OF[part(other)] > layer
    ]
    assert not upwards


def test_there_is_no_import_cycle():
    below = {module: set(arrows) for module, arrows in IMPORTS.items()}
    while free := [m for m, arrows in below.items() if not arrows & below.keys()]:
        for module in free:
            del below[module]
    circle = {module: arrows & below.keys() for module, arrows in below.items()}
    while free := circle.keys() - set().union(*circle.values()):  # nothing in a cycle imports these
        circle = {module: arrows for module, arrows in circle.items() if module not in free}
    assert not circle, "these modules import each other in a cycle"


def test_file_names_are_unique():
    names = Counter(path.name for path in MODULES.values())
    del names["__init__.py"], names["__main__.py"]
    assert [name for name, count in names.items() if count > 1] == []


def test_no_file_is_long_and_each_says_its_job():
    for path in MODULES.values():
        text = path.read_text()
        assert len(text.splitlines()) <= 300, path
        assert ast.get_docstring(ast.parse(text)), path


def test_data_never_imports_jax():
    """Each of Grain's worker processes would otherwise initialise a device."""
    for module, path in MODULES.items():
        if part(module) == "data":
            names = {
                alias.name if isinstance(node, ast.Import) else node.module
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Import | ast.ImportFrom)
                for alias in node.names
            }
            assert not {name for name in names if name.split(".")[0] in ("jax", "flax")}, module
