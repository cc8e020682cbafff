"""The installed package: requirements, files in the wheel, no device initialised at import."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEPENDENCIES = PROJECT["project"]["dependencies"]
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def lines(name: str) -> set[str]:
    content = (ROOT / name).read_text().splitlines()
    return {line for line in content if line and not line.startswith("#")}


def test_requirements_match_the_project():
    assert lines("requirements.txt") - {"pytest>=8"} == set(DEPENDENCIES)


def test_the_lock_pins_every_dependency_within_its_range():
    pinned = dict(line.split("==") for line in lines("requirements.lock"))
    names = {re.sub("[-_.]+", "-", name).lower(): version for name, version in pinned.items()}
    for line in [*DEPENDENCIES, *PROJECT["project"]["optional-dependencies"]["test"]]:
        wanted = Requirement(line)
        version = names[re.sub("[-_.]+", "-", wanted.name).lower()]
        assert wanted.specifier.contains(version), line


def test_every_package_folder_is_listed():
    folders = {
        ".".join(init.parent.relative_to(ROOT).parts)
        for init in (ROOT / "fastfcn_jax").rglob("__init__.py")
    }
    assert set(SETUPTOOLS["packages"]) == folders | {"fastfcn_jax.configs"}


def test_the_wheel_contains_every_other_file_of_the_package():
    listed = {
        path
        for package, patterns in SETUPTOOLS["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    files = {path for path in (ROOT / "fastfcn_jax").rglob("*") if path.is_file()}
    others = {path for path in files if path.suffix not in (".py", ".pyc")}
    assert ROOT / "fastfcn_jax" / "py.typed" in others
    assert others == listed


def test_the_version_is_the_same_everywhere():
    import fastfcn_jax

    assert fastfcn_jax.__version__ == PROJECT["project"]["version"]
    assert f"## {fastfcn_jax.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {fastfcn_jax.__version__}" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.parametrize("then", ["fastfcn_jax.load, fastfcn_jax.build", "jax.devices()"])
def test_importing_initialises_no_device(then):
    """Imports with a platform that does not exist: initialising a device would raise an error."""
    run = subprocess.run(
        [sys.executable, "-c", f"import fastfcn_jax, jax; {then}"],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "none_such"},
        capture_output=True,
        text=True,
    )
    assert (run.returncode == 0) == ("load" in then), run.stderr
