"""What README and docs say: links lead somewhere, configurations load, Python blocks run."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import small

from fastfcn_jax import api
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.config import experiment
from fastfcn_jax.convert import fit, pth_writer
from fastfcn_jax.data import datasets
from fastfcn_jax.data.datasets import street_scene
from fastfcn_jax.export import export

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
NARROW = """
def get_config(variant=""):
    import small

    return small.config("psp", "jpu", data="{data}", backbone="resnet18")
"""


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text()) if kind == language]


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as the usual renderers make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    for link in (link for link in links if "://" not in link):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_reached_from_the_readme():
    listed = set(re.findall(r"\]\(docs/([\w.]+)", (ROOT / "README.md").read_text()))
    assert {page.name for page in PAGES[1:]} <= listed


# The test that types a command as a user does, in a process of its own.
TYPED = {
    "train.py": "test_end_to_end.py",
    "eval.py": "test_end_to_end.py",
    "fastfcn_jax.bench": "tests/bench/test_bench.py",
    "fastfcn_jax.predict": "test_end_to_end.py",
    "fastfcn_jax.replay": "test_end_to_end.py",
    "fastfcn_jax.convert": "tests/convert/test_convert.py",
    "fastfcn_jax.config": "test_commands.py",
    "fastfcn_jax.data.cache": "test_commands.py",
    "fastfcn_jax.data.photos": "test_commands.py",
    "fastfcn_jax.data.prepare": "test_commands.py",
    "fastfcn_jax.doctor": "test_commands.py",
    "fastfcn_jax.export": "test_commands.py",
    "fastfcn_jax.serve": "test_commands.py",
    "fastfcn_jax.submit": "test_commands.py",
}
# Minutes to hours long, or in need of another code base: typed by hand; what they printed stands
# beside them on the pages. So are benchmarks/*.py. These are the tests of what is in them.
BY_HAND = {
    "benchmarks.fuzz_pth": "tests/convert/test_pth.py",
    "tests/golden/make_official.py": "tests/models/test_official.py",
}
ELSEWHERE = {"build"}  # other people's programs
COMMAND = re.compile(r"(?:srun )?(?:python (?:-m )?|(make ))([\w./]+)(.*)")


def commands(page: Path) -> list[tuple[str, str]]:
    """(program, arguments) of every command in a page's blocks and between its backticks."""
    text = page.read_text()
    fenced = "\n".join(block for kind, block in BLOCK.findall(text) if kind != "python")
    inline = [" ".join(words.split()) for words in re.findall(r"`([^`]+)`", BLOCK.sub("", text))]
    lines = [line.strip() for line in [*fenced.splitlines(), *inline]]
    found = [COMMAND.match(line.replace("\\|", "|")) for line in lines]
    return [((m[1] or "") + m[2], m[3].partition(" #")[0]) for m in found if m]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_exists_with_its_flags_and_is_run_somewhere(page):
    for program, arguments in commands(page):
        if program.startswith("make "):
            target = program.removeprefix("make ")
            assert f"\n{target}:" in (ROOT / "Makefile").read_text()
            continue
        if program in ELSEWHERE:
            continue
        file = ROOT / program
        if not program.endswith(".py"):
            file = ROOT / f"{program.replace('.', '/')}.py"
        assert file.is_file(), program
        text = file.read_text()
        if file.parent.name == "benchmarks":
            text = "".join(path.read_text() for path in file.parent.glob("*.py"))  # they share
        else:
            test = TYPED.get(program) or BY_HAND[program]
            assert program.removeprefix("fastfcn_jax.") in (ROOT / "tests" / test).read_text()
        for flag in re.findall(r"--(\w[\w-]*)", arguments.partition(" -- ")[0]):
            spellings = {flag, flag.replace("-", "_"), f"--{flag}"}
            assert any(f'"{name}"' in text for name in spellings), f"{program} has no --{flag}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_configurations_and_variants_load(page):
    for spec in set(re.findall(r"--config[ =](configs/\w+\.py(?::\w+)?)", page.read_text())):
        experiment.load(str(ROOT / spec))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder: photographs, and narrow models under the names that the pages use."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("photo.jpg", "a.jpg", "b.jpg")):
        scene = street_scene.Scene(np.random.default_rng(seed), (64, 96)).draw()[0]
        cv2.imwrite(name, scene[..., ::-1])
    narrow = small.config("psp", "jpu", backbone="resnet18")
    narrow.data.test_scale = (96, 64)
    variables = small.variables(narrow.model, 19)
    card = model_folder.model_card(narrow, datasets.info("cityscapes", ""), {})
    model_folder.save_model(tmp_path / "runs" / "demo", variables, card)
    Path("configs").mkdir()
    for data in ("ade20k", "cityscapes"):
        Path(f"configs/jpu_psp_{data}.py").write_text(NARROW.format(data=data))
    return tmp_path


@pytest.mark.parametrize("name", ["api.md", "export.md"])
def test_python_blocks_run(name, folder):
    text = "\n".join(blocks(ROOT / "docs" / name, "python"))
    names = {}
    if "weights.pth" in text:
        model = small.config("psp", "jpu", data="ade20k", backbone="resnet18").model
        tensors = fit.to_tensors(small.variables(model, 150), "mmseg", step=0)
        pth_writer.write(folder / "weights.pth", tensors, "mmseg", datasets.info("ade20k", ""))
    for file_format in ("stablehlo", "onnx"):
        file = folder / f"model.{file_format}"
        if file.name in text:
            export.export(folder / "runs" / "demo", file, (64, 96), file_format)
            names["images"] = api.read(folder / "photo.jpg")[None]
    exec(compile(text, name, "exec"), names)
    if name == "export.md":
        labels = api.load(folder / "runs" / "demo")("photo.jpg")
        np.testing.assert_array_equal(names["labels"], labels[None])
