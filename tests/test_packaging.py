"""requirements.txt repeats pyproject.toml; every package and config travels in the wheel."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_requirements_are_those_of_the_project():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    required = {line for line in lines if line and not line.startswith("#")}
    assert required - {"pytest>=8"} == set(PROJECT["project"]["dependencies"])


def test_every_package_folder_is_listed():
    folders = {
        ".".join(init.parent.relative_to(ROOT).parts)
        for init in (ROOT / "fastfcn_jax").rglob("__init__.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == folders | {"fastfcn_jax.configs"}


def test_the_version_is_said_once():
    import fastfcn_jax

    assert fastfcn_jax.__version__ == PROJECT["project"]["version"]
