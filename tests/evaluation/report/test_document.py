"""report.html: self-contained, right numbers, and clean in a browser at phone width."""

import base64
import hashlib
import html.parser
import json
import re

import browser
import numpy as np
import pytest

from fastfcn_jax.errors import UserError
from fastfcn_jax.evaluation.evaluate import Result
from fastfcn_jax.evaluation.report import baselines, document, facts, gallery, statistics

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
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (60, 90, 3), dtype=np.uint8)
    label, prediction = rng.integers(0, 2, (2, 60, 90), dtype=np.uint8)
    label[:5] = 255
    result = make_result()
    strip = gallery.Strip("frame <1>", 12.5, (120, 180), photo, label, prediction, result.counts[0])
    history = [
        {"kind": "train", "step": s, "loss": 3 / s, "loss_decode": 2 / s, "loss_auxiliary": 1 / s,
         "learning_rate": 0.01, "time": f"2026-01-02T03:0{s // 10}:30+0000"}
        for s in (1, 10, 20)
    ]  # fmt: skip
    for step, miou in ((10, 31.5), (20, 41.5)):
        scores = {"road": {"IoU": miou}, NAMES[1]: {"IoU": 40}, "never": {"IoU": None}}
        record = {"kind": "eval", "step": step, "mIoU": miou, "per_class": scores}
        history.append({**record, "time": "2026-01-02T03:02:20+0000"})
    start = {"step": 0, "time": "2026-01-02T03:00:00+0000", "devices": ["gpu", "gpu"]}
    start["command"] = "python train.py --config a<b"
    document.write(
        path,
        "run & co",
        result,
        palette=PALETTE,
        images=gallery.Gallery([strip], [strip], [strip]),
        history=history,
        baselines=[baselines.Baseline("other", 40.0, {"road": 50.0, "never": None})],
        card={
            "config": {"seed": 0, "train": {"steps": 40}},
            "starts": [start],
            "parameters": 1_234_567,
            "note": "</pre><script>alert(1)</script>",
        },
    )
    return path


class Outline(html.parser.HTMLParser):
    """Checks that tags close in order, and collects what a page loads and says."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.urls, self.words, self.tags, self.inline = [], [], [], [], set()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.urls += [value for name, value in attributes if name in ("src", "href")]
        self.inline |= {name for name, _ in attributes if name == "style" or name[:2] == "on"}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_is_whole_and_loads_nothing(report):
    outline = Outline(report.read_text())
    assert all(url.startswith("data:") for url in outline.urls)
    kinds = [url.split(";")[0] for url in outline.urls if url.startswith("data:image")]
    assert (kinds.count("data:image/jpeg"), kinds.count("data:image/png")) == (3 * 2, 3 * 3)


def test_its_policy_allows_its_own_script_and_style_and_no_other(report):
    text = report.read_text()
    outline = Outline(text)
    assert outline.tags.count("script") == 1, "what a run is called must not become markup"
    assert not outline.inline, "the policy forbids styles and handlers in attributes"
    policy = re.search(r'Security-Policy" content="([^"]*)"', text)[1]
    for tag in ("script", "style"):
        content = re.search(f"<{tag}>(.*?)</{tag}>", text, re.S)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_the_page_says_the_scores_and_the_differences(report):
    words = " ".join(Outline(report.read_text()).words)
    scores = make_result().scores
    assert f"{scores.miou:.2f}" in words
    assert f"{scores.miou - 40.0:+.2f}" in words
    assert f"{scores.iou[0] - 50.0:+.2f}" in words
    assert "<sky> & more" in words
    assert "nan" not in words.lower()


def test_the_run_card_stands_on_top(report):
    text = report.read_text()
    words = " ".join(Outline(text).words)
    for fact in ("2 min 30 s", "20 of 40", "1.23 million", "2 x gpu", "--config a<b"):
        assert fact in words, fact
    assert text.index("1.23 million") < text.index("<h2>Curves")


def test_each_curve_has_its_values(report):
    text = report.read_text()

    def values(name):
        return re.search(f'data-name="{name}" data-steps="([^"]*)" data-values="([^"]*)"', text)

    assert values("decode").groups() == ("1 10 20", "2 0.2 0.1")
    assert values("road").groups() == ("10 20", "31.5 41.5")
    assert values("Learning rate")[2] == "0.01 0.01 0.01"
    assert values("never") is None, "a class without a score has no curve"


def test_a_duration_counts_the_starts_and_not_the_time_between():
    starts = [{"time": f"2026-01-02T0{hour}:00:00+0000"} for hour in (1, 5)]
    records = ("01:30:00", "02:00:00", "05:00:40")
    history = [{"step": 1, "time": f"2026-01-02T{time}+0000"} for time in records]
    assert facts.duration({"starts": starts}, history) == "1 h 0 min"
    assert facts.duration({"starts": starts}, [*history, {"step": 1}]) == "", "older records"
    assert facts.of_training({}, []) == [(name, "") for name, _ in facts.of_training({}, [])]


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


def test_worst_median_and_best_images_are_told_apart():
    scores = np.array([50.0, 10, 90, 30, 70, 60, 20, 80, 40, 55])
    found = statistics.extremes(scores, 2)
    assert found.worst == [1, 6]
    assert sorted(scores[found.median]) == [50, 55]
    assert found.best == [2, 7]
    assert [len(part) for part in statistics.extremes(scores[:3], 2)] == [1, 1, 1]
    assert [len(part) for part in statistics.extremes(scores[:2], 2)] == [1, 0, 1]
    scores[1] = np.nan  # nothing in it is labelled
    assert statistics.extremes(scores, 2).worst == [6, 3]
    chosen = statistics.extremes(scores, 9)
    assert sorted(i for part in chosen for i in part) == [0, *range(2, 10)]


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


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    if browser.CHROMIUM is None:
        pytest.skip("chromium is not installed")
    page = browser.Browser(tmp_path_factory.mktemp("profile"))
    yield page
    page.close()


def test_browser_at_phone_width_shows_hints_values_and_pictures(report, page):
    """From a file and under the page's own policy: without any network."""
    page.open(report.as_uri(), width=390, height=800)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    hints = "[...document.querySelectorAll('.hint')].map(hint => hint.hidden)"
    assert page.evaluate(hints)[0] is False, "the table of the classes is wider than a phone"
    page.evaluate("document.querySelector('.scroll').scrollTo(200, 0)")
    page.wait(f"{hints}[0]")

    chart = "document.querySelector('.chart svg')"
    place = page.evaluate(
        f"(() => {{ {chart}.scrollIntoView({{block: 'center'}}); const box = "
        f"{chart}.getBoundingClientRect(); return [box.right - 15, box.top + box.height / 2]; }})()"
    )
    x, y = place
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    page.wait("!!document.querySelector('.tip')")
    said = page.evaluate("document.querySelector('.tip').innerText").split("\n")
    assert said == ["step 20", "loss: 0.15", "decode: 0.1", "auxiliary: 0.05"]
    page.press("Escape", 27)
    assert page.evaluate("document.querySelector('.tip') === null")

    page.evaluate("document.querySelector('.strip .stack').click()")
    shown = "[...document.querySelectorAll('dialog[open] .stack img')].map(img => img.alt)"
    assert page.evaluate(shown) == ["image"]
    assert page.evaluate("document.querySelector('dialog .legend').innerText.includes('road')")
    page.press("ArrowLeft", 37)
    assert page.evaluate(shown) == ["image", "errors"]
    assert page.evaluate("document.querySelector('dialog img').naturalWidth") == 90
    page.press("Escape", 27)
    page.wait("!document.querySelector('dialog[open]')")
    assert page.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_browser_bars_and_curves_differ_from_the_page(report, page, scheme):
    """The class "never" is black in the palette; the bars of all have a visible outline."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.call("Emulation.setEmulatedMedia", features=features)
    page.open(report.as_uri())
    colors = page.evaluate(
        "[...document.querySelectorAll('.bar rect.value'), ...document.querySelectorAll('.swatch'),"
        " ...document.querySelectorAll('.curve polyline')].map(element => { const style = "
        "getComputedStyle(element); return element.matches('.swatch') ? style.borderTopColor : "
        "style.stroke; })"
    )
    assert len(colors) > 10
    light = {color: sum(map(int, re.findall(r"\d+", color)[:3])) / 3 for color in colors}
    assert all((level > 75) if scheme == "dark" else (level < 180) for level in light.values())
