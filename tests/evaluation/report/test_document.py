"""report.html: self-contained, right numbers, and clean in a browser at phone width."""

import html.parser
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from fastfcn_jax.errors import UserError
from fastfcn_jax.evaluation.evaluate import Result
from fastfcn_jax.evaluation.report import baselines, document, statistics

NAMES = ("road", "<sky> & more", "never")
PALETTE = np.array([[128, 64, 128], [70, 130, 180], [0, 0, 0]], np.uint8)


def make_result() -> Result:
    rng = np.random.default_rng(0)
    counts = np.zeros((12, 3, 3), np.int64)
    for image in counts:
        right = rng.integers(100, 400, 2)
        errors = rng.integers(1, 200, 2)
        image[0, :2] = right
        image[1, :2] = right + errors
        image[2, :2] = right + errors[::-1]
    right, label, _ = counts.sum(axis=0)
    matrix = np.diag(right)
    matrix[0, 1], matrix[1, 0] = label[:2] - right[:2]
    ids = tuple(f"image {i}" for i in range(12))
    return Result("single", NAMES, matrix, ids, counts, 12)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    strip = document.Strip("frame <1>", 12.5, (picture,) * 4)
    history = [
        {"kind": "train", "step": s, "loss": 3 / s, "learning_rate": 0.01} for s in (1, 10, 20)
    ]
    history.append({"kind": "eval", "step": 20, "mIoU": 41.5})
    document.write(
        path,
        "run & co",
        make_result(),
        palette=PALETTE,
        gallery=([strip], [strip]),
        history=history,
        baselines=[baselines.Baseline("other", 40.0, {"road": 50.0, "never": None})],
        card={"config": {"seed": 0}, "note": "</pre><script>alert(1)</script>"},
    )
    return path


class Outline(html.parser.HTMLParser):
    """Checks that tags close in order, and collects what a page loads and says."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.urls, self.words, self.tags = [], [], [], set()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.urls += [value for name, value in attributes if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_is_whole_and_loads_nothing(report):
    outline = Outline(report.read_text())
    assert all(url.startswith("data:") for url in outline.urls)
    assert "script" not in outline.tags, "what a run is called must not become markup"
    assert sum(url.startswith("data:image/jpeg") for url in outline.urls) == 8


def test_the_page_says_the_scores_and_the_differences(report):
    words = " ".join(Outline(report.read_text()).words)
    scores = make_result().scores
    assert f"{scores.miou:.2f}" in words
    assert f"{scores.miou - 40.0:+.2f}" in words
    assert f"{scores.iou[0] - 50.0:+.2f}" in words
    assert "<sky> & more" in words
    assert "41.5 % at the last step" in words
    assert "nan" not in words.lower()


def test_bootstrap_brackets_the_score_and_shrinks_with_equal_images():
    result = make_result()
    low, high = statistics.bootstrap(result.counts)
    iou = result.scores.iou
    assert (low[:2] < iou[:2]).all()
    assert (iou[:2] < high[:2]).all()
    assert np.isnan([low[2], high[2]]).all()
    same = np.repeat(result.counts[:1], 30, axis=0)
    low, high = statistics.bootstrap(same)
    np.testing.assert_allclose(low[:2], high[:2])


def test_worst_and_median_images_are_told_apart():
    scores = np.array([50.0, 10, 90, 30, 70, 60, 20, 80, 40, 55])
    worst, median = statistics.worst_and_median(scores, 2)
    assert worst == [1, 6]
    assert sorted(scores[median]) == [50, 55]
    worst, median = statistics.worst_and_median(scores[:3], 2)
    assert not set(worst) & set(median)
    scores[1] = np.nan  # nothing in it is labelled
    assert statistics.worst_and_median(scores, 2)[0] == [6, 3]
    assert all(1 not in chosen for chosen in statistics.worst_and_median(scores, 9))


def test_image_scores_average_the_classes_that_occur():
    counts = np.array([[[3, 0, 0], [4, 0, 0], [3, 1, 0]]])
    assert statistics.image_scores(counts) == pytest.approx([100 * (3 / 4 + 0) / 2])
    assert np.isnan(statistics.image_scores(np.zeros_like(counts))).all()


def test_without_a_labelled_pixel_the_report_shows_no_score(tmp_path):
    zeros = np.zeros((2, 3, 3), np.int64)
    result = Result("official", NAMES, zeros[0], ("a", "b"), zeros, 2, absent_counts_zero=True)
    published = [baselines.Baseline("published", 40.0, {"road": 50.0})]
    document.write(tmp_path / "report.html", "x", result, palette=PALETTE, baselines=published)
    text = (tmp_path / "report.html").read_text()
    assert "<b>-</b>mIoU" in text
    assert ">nan" not in text
    (tmp_path / "metrics.json").write_text(json.dumps(result.metrics()))
    with pytest.raises(UserError, match="met no labelled pixel"):
        baselines.read(tmp_path)


def test_another_run_is_read_from_its_metrics(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps(make_result().metrics()))
    other = baselines.read(tmp_path)
    assert other.miou == pytest.approx(make_result().scores.miou)
    assert other.iou["never"] is None
    (tmp_path / "metrics.json").write_text("[]")
    with pytest.raises(UserError, match="is no metrics"):
        baselines.read(tmp_path)


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_browser_at_phone_width_has_no_error_and_no_sideways_scroll(report, tmp_path):
    probe = tmp_path / "probe.html"
    text = report.read_text()
    measured = (
        "<script>addEventListener('load',()=>{document.title="
        "'wide='+document.documentElement.scrollWidth})</script>"
    )
    probe.write_text(text.replace("</body>", measured + "</body>"))
    result = subprocess.run(
        [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900"),
            *("--enable-logging=stderr", "--v=0", "--dump-dom", probe.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "CONSOLE" not in result.stderr
    width = int(re.search(r"wide=(\d+)", result.stdout)[1])
    assert width <= 500
