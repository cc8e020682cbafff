"""Every block of commands on the pages is run here or by another test, or says why not.

A block without a mark is run here, page by page and from top to bottom, in a folder such as a
reader has; networks have three layers and trainings two steps. A mark is a comment above a block:
`<!-- run by tests/FILE.py::TEST -->` or `<!-- not run: REASON -->`. A block right behind another
one is what that printed.
"""

import re
import shlex
import shutil
import tomllib
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import messy
import numpy as np
import pytest
import tifffile
import tiny

from fastfcn_jax import __main__ as door
from fastfcn_jax import demo
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.data import datasets
from fastfcn_jax.data.datasets import street_scene, synthetic

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?P<mark>^<!-- (?P<kind>run by|not run:) (?P<says>.+?) -->\n)?"
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.M | re.S,
)
COMMAND = re.compile(r"(?:srun )?(fastfcn|python|python -m|make) [\w./]+")
# Behind each command of that name: what makes it short.
SHORT = {
    "demo": ["--steps=2"],
    "train": ["--config.train.steps=2", "--config.train.eval_every=2", "--config.train.pictures=0"],
}
# Ten megabytes and a real network; test_first_hour.py runs it.
STAND_IN = {"camvid-small": "runs/demo"}


def blocks(page: Path) -> list[tuple[str, str, list[str]]]:
    """(kind of mark, what it says, lines that are commands) of the blocks that have commands."""
    text = page.read_text()
    found, end = [], -1
    for block in BLOCK.finditer(text):
        printed, end = block.start() == end + 1, block.end()
        lines = [line.strip() for line in block["text"].replace("\\\n", " ").splitlines()]
        lines = [line for line in lines if COMMAND.match(line)]
        if lines and not printed and block["language"] != "python":
            found.append((block["kind"] or "", block["says"] or "", lines))
    return found


def unmarked(page: Path) -> list[str]:
    return [line for kind, _, lines in blocks(page) if not kind for line in lines]


RUN = [page for page in PAGES if unmarked(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_marks_name_tests_or_reasons(page):
    marks = re.findall(r"^<!-- (run by|not run)(.*) -->$", page.read_text(), re.M)
    assert len(marks) == len([kind for kind, _, _ in blocks(page) if kind]), "above no block"
    for kind, says, _ in blocks(page):
        if kind == "run by":
            file, _, name = says.partition("::")
            assert f"def {name}(" in (ROOT / file).read_text(), says
        elif kind:
            assert len(says.split()) > 1, says
            for file in re.findall(r"tests/[\w/.]*\w", says):
                assert (ROOT / file).exists(), says


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_what_is_run_here_are_commands_of_this_package(page):
    for line in unmarked(page):
        assert line.startswith("fastfcn "), f"{line}: mark its block"


def test_extras_that_the_pages_install_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = "".join(page.read_text() for page in PAGES)
    named = re.findall(r"""pip install (?:-e )?["']?(?:fastfcn-jax|\.)\[([\w,]+)\]""", text)
    assert set(",".join(named).split(",")) <= set(project["optional-dependencies"])
    assert len(named) > 5


@pytest.fixture
def folder(tiny_model, tmp_path, monkeypatch):
    """A reader's folder: photographs, labelled ones, multispectral ones, a model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(synthetic.SPLIT_SIZES, "val", 6)  # the demo evaluates on all of them
    monkeypatch.setattr(demo, "DRAWN", 6)
    monkeypatch.setattr(demo, "SIZE", (64, 96))
    for i in range(6):
        photo = messy.photo(i, (64, 96))
        messy.put(tmp_path / f"photos/pictures/IMG_{i}.jpg", photo)
        label = messy.COLORS[messy.index(i, (64, 96))]
        messy.put(tmp_path / f"photos/painted/IMG_{i}_mask.png", label)
        messy.put(tmp_path / f"new/IMG_{i + 20}.jpg", messy.photo(i + 20, (64, 96)))
        bands = np.concatenate([photo, photo[..., :2]], axis=2).astype(np.uint16)
        (tmp_path / "fields/images").mkdir(parents=True, exist_ok=True)
        file = tmp_path / f"fields/images/{i}.tif"
        tifffile.imwrite(file, np.moveaxis(4 * bands, 2, 0), photometric="minisblack")
        messy.put(tmp_path / f"fields/labels/{i}.png", messy.index(i, (64, 96)))
    scene = street_scene.Scene(np.random.default_rng(0), (64, 96)).draw()[0]
    cv2.imwrite("photo.jpg", scene[..., ::-1])
    config = tiny.config()
    info = datasets.info("synthetic", "")
    card = model_folder.model_card(config, info, {})
    model = tiny.build(config.model, info.num_classes)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 64, 96, 3)))
    model_folder.save_model(tmp_path / "runs" / "demo", variables, card)
    return tmp_path


def run(line: str, capsys) -> None:
    """A command line as a user types it, in this process."""
    line = re.split(r" +#| &&| > ", line)[0]
    _, name, *words = [STAND_IN.get(word, word) for word in shlex.split(line)]
    if "--draw" not in words:
        words += SHORT.get(name, [])
    status = door.command(name).main(words)
    assert status in (0, None), f"{line}: {capsys.readouterr().err}"


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_the_commands_of_a_page_run(page, folder, capsys):
    if page.name == "first_hour.md":  # whose first block is run elsewhere, with a real network
        shutil.rmtree("runs")
        run("fastfcn demo --draw streets", capsys)
    for line in unmarked(page):
        run(line, capsys)
    if page.name == "first_hour.md":
        for left in ("checkpoints", "evaluation/metrics.json", "predictions"):
            assert Path("runs/demo", left).exists()
