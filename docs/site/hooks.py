"""For `mkdocs build`: pages of the repository that are not in docs/, and the links to them."""

import json
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
# Where files outside docs/ go in the site. Notebooks become pages.
PLACES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "fastfcn_jax/weights/camvid_small/README.md": "camvid_small.md",
    "fastfcn_jax/models/ops/forms.py": "forms.py",
    "notebooks/first_prediction.ipynb": "notebooks/first_prediction.md",
    "notebooks/own_photos.ipynb": "notebooks/own_photos.md",
}
SOURCES = {place: source for source, place in PLACES.items()}
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#]+)((?:#[^)\s]*)?)\)")
SHORT = re.compile(r"<code>(?=[^<]{1,26}</code>)")  # fits on a line of a phone


def on_files(files, config):
    for source, place in PLACES.items():
        files.append(File.generated(config, place, content=content(ROOT / source)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links to files of the repository become links of the site, a page's name its title."""
    place = page.file.src_uri
    source = SOURCES.get(place, f"docs/{place}")

    def moved(match: re.Match) -> str:
        text, link, anchor = match.groups()
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
        if "://" in link or not (ROOT / target).is_file():
            return match[0]
        there = PLACES.get(target, target.removeprefix("docs/"))
        if text in (link, posixpath.basename(target)):
            text = title(ROOT / target)
        return f"[{text}]({posixpath.relpath(there, posixpath.dirname(place) or '.')}{anchor})"

    return LINK.sub(moved, markdown)


def on_page_content(html, page, config, files):
    return SHORT.sub('<code class="short">', html)


def title(path: Path) -> str:
    """The first heading of a page, or the name of another file."""
    found = re.search(r"^# (.+)$", path.read_text(encoding="utf-8"), re.M)
    return found[1] if found and path.suffix == ".md" else path.name


def content(path: Path) -> str:
    """A file as a page: a notebook's cells one below the other, others as they are."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    parts = [f"`{path.name}` in the folder `notebooks` runs as it is, also on Colab."]
    for cell in cells:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    parts[:2] = [parts[1], parts[0]]  # the title first
    return "\n\n".join(parts) + "\n"
