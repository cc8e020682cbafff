"""What README and docs name exists: links, scripts, modules, configurations and their variants."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from fastfcn_jax import config

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_name_files_and_modules_that_exist(page):
    text = page.read_text()
    modules = re.findall(r"python -m (fastfcn_jax[\w.]*)", text)
    assert [name for name in modules if find_spec(name) is None] == []
    scripts = re.findall(r"python ((?:\w+/)*\w+\.py)", text)
    assert [name for name in scripts if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_configurations_and_variants_load(page):
    for spec in set(re.findall(r"--config[ =](configs/\w+\.py(?::\w+)?)", page.read_text())):
        config.load(str(ROOT / spec))
