"""README and docs: links have targets, commands parse, Python blocks run."""

import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
import small

from fastfcn_jax import __main__ as door
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.config import experiment
from fastfcn_jax.convert import fit, pth_writer
from fastfcn_jax.data import datasets
from fastfcn_jax.data.datasets import street_scene

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
NARROW = """
def get_config(variant=""):
    import small

    return small.config("psp", "jpu", data="{data}", backbone="resnet18")
"""


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text()) if kind == language]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as Markdown renderers generate them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_have_targets(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    for link in (link for link in links if "://" not in link):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_listed_in_the_index_and_begins_with_its_question():
    index = ROOT / "docs" / "index.md"
    links = re.findall(r"\]\(([\w./]+\.md)\)", index.read_text())
    listed = {(index.parent / link).resolve() for link in links} | {index, ROOT / "README.md"}
    assert set(PAGES) <= listed
    for page in set(PAGES) - {ROOT / "README.md"}:
        title, blank, question = page.read_text().splitlines()[:3]
        assert (title[:2], blank, question[-1:]) == ("# ", "", "?"), page


def test_published_scores_are_those_of_the_configurations():
    """Rows of docs/models.md: mIoU, then multi-scale + flip, or only the one named in the row."""
    rows = re.findall(r"^\| `(\w+(?::\w+)?)`(.*)$", (ROOT / "docs/models.md").read_text(), re.M)
    scores = {name: re.findall(r"\b\d\d\.\d+\b", rest) for name, rest in rows}
    assert len([name for name in scores if scores[name]]) == 28
    for name, rest in rows:
        published = experiment.load(name).published
        if "official" in name:
            dilated = f"{name}_dilated" if ":" in name else f"{name}:dilated"
            key = "miou_ms_flip" if "multi-scale" in rest else "miou"
            expected = [published[key], experiment.load(dilated).published[key]]
        else:
            expected = [published.miou, published.miou_flip, published.miou_ms_flip]
        assert list(map(float, scores[name])) == [score for score in expected if score], name


# The test that runs each command as a user does, in its own process.
TYPED = {
    "train": "test_end_to_end.py",
    "eval": "test_end_to_end.py",
    "report": "test_end_to_end.py",
    "bench": "bench/test_bench.py",
    "predict": "test_end_to_end.py",
    "replay": "test_end_to_end.py",
    "convert": "convert/test_convert.py",
    "config": "test_commands.py",
    "cache": "test_commands.py",
    "demo": "test_first_hour.py",
    "prepare": "test_commands.py",
    "doctor": "test_commands.py",
    "export": "test_commands.py",
    "serve": "test_commands.py",
    "submit": "test_commands.py",
    "weights": "weights/test_store.py",
}
# No test runs the benchmarks, which take minutes to hours or need other code bases; the pages show
# their output. Other programs on the pages, with the test file that covers them:
BY_HAND = {"tests/golden/make_official.py": "models/test_official.py", "build": "test_packaging.py"}
COMMAND = re.compile(r"(?:srun )?(fastfcn|python -m|python|make) ([\w./]+)(.*)")
PLACEHOLDER = re.compile(
    r"(?<=--config )(?:CONFIG|NAME|FILE|…|(?:photos|streets)/fastfcn_config\.py:small)"
)


def commands(page: Path) -> list[tuple[bool, str, str, str]]:
    """(in a block?, start, program, arguments) of all commands in code blocks and code spans."""
    text = page.read_text()
    fenced = "\n".join(block for kind, block in BLOCK.findall(text) if kind != "python")
    fenced = [line.strip() for line in fenced.replace("\\\n", " ").splitlines()]
    inline = [" ".join(words.split()) for words in re.findall(r"`([^`]+)`", BLOCK.sub("", text))]
    lines = [(True, line) for line in fenced] + [(False, line) for line in inline]
    found = [(block, COMMAND.match(line.replace("\\|", "|"))) for block, line in lines]
    return [(block, m[1], m[2], re.split(" #| &&| > ", m[3])[0]) for block, m in found if m]


def parse(name: str, words: str) -> None:
    """Parses a whole line with the command's own parser; UserError if it is invalid."""
    words = re.sub(r"[\[\]]", "", PLACEHOLDER.sub("demo", words))  # include what is optional
    words = re.sub(r"--config\.[\w.]+=…", "", words)
    words = re.sub(r"(\w+)\|[\w|-]+", r"\1", words)  # the first of several values
    door.command(name).parser().parse(shlex.split(words))


def test_the_page_of_commands_lists_all_commands():
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/commands.md").read_text(), re.M)
    assert set(rows) == set(door.COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_documented_command_parses_and_is_run_by_a_test(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for block, start, program, words in commands(page):
        name = {"train.py": "train", "eval.py": "eval"}.get(program, program)
        flags = re.findall(r"--\w[\w-]*(?![\w.-])", words.partition(" -- ")[0])
        if start == "make":
            assert f"\n{program}:" in (ROOT / "Makefile").read_text()
        elif start == "fastfcn" or name != program:
            if program == "COMMAND":
                continue
            assert name in (ROOT / "tests" / TYPED[name]).read_text()
            assert set(flags) <= set(door.command(name).parser().flags()), words
            if block:
                parse(name, words)
        elif program.startswith("benchmarks"):
            file = ROOT / (
                program if program.endswith(".py") else program.replace(".", "/") + ".py"
            )
            assert file.is_file(), program
            texts = "".join(path.read_text() for path in file.parent.glob("*.py"))  # they share
            for flag in flags:
                spellings = (f'"{flag[2:]}"', f'"{flag[2:].replace("-", "_")}"', f'"{flag}"')
                assert any(name in texts for name in spellings), f"{program} has no {flag}"
        elif program != "fastfcn_jax":
            assert Path(program).name in (ROOT / "tests" / BY_HAND[program]).read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_configurations_and_variants_load(page):
    for spec in set(re.findall(r"\bconfigs/\w+\.py(?::\w+)?", page.read_text())):
        experiment.load(str(ROOT / spec))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder: photographs, and narrow models with the names used in the docs."""
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


@pytest.mark.slow
def test_python_blocks_run(folder):
    text = "\n".join(blocks(ROOT / "docs" / "api.md", "python"))
    model = small.config("psp", "jpu", data="ade20k", backbone="resnet18").model
    tensors = fit.to_tensors(small.variables(model, 150), "mmseg", step=0)
    pth_writer.write(folder / "weights.pth", tensors, "mmseg", datasets.info("ade20k", ""))
    exec(compile(text, "api.md", "exec"), {})
