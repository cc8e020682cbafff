"""The notebooks run from top to bottom in a kernel, and what they show there is what they say."""

import json
import os
import re
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest
import small

from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.data import datasets

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_cleared_and_installs_first(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "%pip install" in codes[0].source
    assert all(cell.outputs == [] and cell.execution_count is None for cell in codes)
    title, blank, question = notebook.cells[0].source.splitlines()[:3]
    assert (title[:2], blank, question[-1:]) == ("# ", "", "?")


def run(path: Path, folder: Path, parameters: str) -> dict[str, nbformat.NotebookNode]:
    """Executes a notebook in `folder` with other parameters; its cells by id."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            cell.source = parameters
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}
    ).execute()
    return {cell.id: cell for cell in notebook.cells}


def text(cell) -> str:
    """What a cell printed, and the text of its result."""
    parts = [
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for output in cell.outputs
    ]
    return "".join(parts)


@pytest.fixture(autouse=True)
def kernel(monkeypatch, tmp_path):
    """A kernel of this Python that finds this checkout, with its files in a folder of the test."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    for name in ("XDG_CACHE_HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))


@pytest.mark.slow
def test_first_prediction(tmp_path):
    config = small.config("psp", "jpu", backbone="resnet18", data="camvid")
    info = datasets.info("camvid", "")
    card = model_folder.model_card(config, info, {})
    variables = small.variables(config.model, info.num_classes)
    model_folder.save_model(tmp_path / "model", variables, card, step=5)
    cells = run(ROOT / "notebooks/first_prediction.ipynb", tmp_path, 'MODEL = "model"')
    assert text(cells["load"]).startswith("Model model\n  resnet18, JPU, PSP head")
    announced, shown = cells["predict"].outputs
    assert (announced.name, announced.text) == ("stderr", "compiling for 360x480 (once)\n")
    assert shown.data["image/png"]
    assert shown.data["text/plain"].startswith("Prediction 360x480: ")
    shares = json.loads(text(cells["shares"]).replace("'", '"'))
    assert sum(shares.values()) == pytest.approx(100)
    written = {path.name for path in (tmp_path / "predictions").iterdir()}
    assert written == {"street.png", "street_overlay.png", "street_confidence.png"}
    (error,) = cells["errors"].outputs
    (sentence,) = error.traceback  # no stack of frames
    assert re.fullmatch(
        r"UserError: ndarray float64 \(3, 360, 480, 3\) is 3 images; "
        r"model\.predict_batch\(images\) takes them\.",
        sentence,
    )


@pytest.mark.slow
def test_own_photos(tmp_path):
    parameters = 'FOLDER = "my_photos"\nSTEPS = 1\nWIDTH = 8'
    cells = run(ROOT / "notebooks/own_photos.ipynb", tmp_path, parameters)
    assert "40 photos with a label each" in text(cells["doctor"])
    live = [o for o in cells["train"].outputs if "text/html" in o.get("data", {})]
    assert len(live) == 1, "one output, replaced in place"
    assert '<progress value="1" max="1">' in live[0].data["text/html"]
    assert re.search(r">validation mIoU, %: [\d.]+<", live[0].data["text/html"])
    assert re.search(r">loss: [\d.]+<", live[0].data["text/html"])
    printed = "".join(o.get("text", "") for o in cells["train"].outputs)
    assert "step 1/1" not in printed, "the curves say it"
    assert re.search(r"step 1: mIoU", printed)
    bars = [o.data["text/html"] for o in cells["score"].outputs if "text/html" in o.get("data", {})]
    assert any("<progress" in bar and "evaluating (single) 8/8" in bar for bar in bars)
    assert "8 images, protocol single: mIoU" in text(cells["score"])
    assert "step 1, mIoU" in text(cells["model"])
    assert cells["predict"].outputs[-1].data["image/png"]
    metrics = json.loads((tmp_path / "runs/mine/eval/metrics.json").read_text())
    assert np.isfinite(metrics["mIoU"])
