"""Interprets names of files and folders: photograph or label, kind of label, split."""

import re
import unicodedata
from pathlib import PurePath


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


LABEL_WORDS = _set(
    "label labels mask masks ann anno annot annots annotation annotations gt gts gtfine gtcoarse "
    "groundtruth truth seg segs segm segmentation segmentations segmap segmaps semantic semantics "
    "segmentationclass segmentationobject trainannot valannot testannot target targets instance "
    "instances panoptic"
)
PHOTO_WORDS = _set(
    "image images img imgs photo photos picture pictures pic pics jpegimages rgb sat original "
    "originals orig raw input inputs frame frames"
)
# Words for kinds of label, see `rank`: class numbers are best to learn from; the others show
# something else, or the classes in colour.
CLASS_WORDS = _set("class classes semantic semantics machine index indices id ids")
COLOR_WORDS = _set("color colors colour colours colored coloured rgb")
OBJECT_WORDS = _set(
    "object objects instance instances inst panoptic edge edges boundary boundaries contour "
    "contours depth disparity"
)
OVERLAY_WORDS = _set(
    "overlay overlays visualization visualizations visualisation viz vis blend blended preview "
    "previews human"
)
SPLITS = {
    "train": "train",
    "training": "train",
    "trainannot": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "valannot": "val",
    "test": "test",
    "testing": "test",
    "testannot": "test",
}
_LABEL_ENDING = re.compile(
    r"(.+)[-_. ](labels?|label(train)?ids?|instance(ids?|s)?|train_?ids?|masks?|"
    r"seg(m|mentations?|mentationclass)?|ann|anno|annot(ations?)?|gt|gtfine|gtcoarse|"
    r"ground_?truth|truth|semantics?|class(es)?|ids?|index|targets?|lab|l|colou?rs?|rgb|objects?|"
    r"overlay|vi[sz]|png|jpe?g|tiff?|bmp)"
)
_PHOTO_ENDING = re.compile(
    r"(.+)[-_. ](sat|rgb|images?|img|im|photo|leftimg8bit|orig|original|raw|input|training)"
)
_LABEL_START = re.compile(
    r"(?:labels?|masks?|segmentations?|seg|gt|annotations?|annot|ann|targets?)"
    r"(?:[-_. ]+|(?=\d))(.+)"
)
_PHOTO_START = re.compile(
    r"(?:images?|img|photos?|pictures?|pic|rgb|sat|frames?|input|orig|original)"
    r"(?:[-_. ]+|(?=\d))(.+)"
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def words(name: str) -> frozenset[str]:
    """The words of a name in lower case, also split at capitals."""
    parts = re.split(r"[^A-Za-z]+", name)
    found = {part.lower() for part in parts}
    found |= {word.lower() for part in parts for word in _WORD.findall(part)}
    return frozenset(found - {""})


def plain(name: str) -> str:
    """A name for comparison; NFC because macOS stores accents separately from their letters."""
    return unicodedata.normalize("NFC", name).casefold()


def says_label(folder: str) -> bool | None:
    """Whether a folder of this name holds labels, or None if it does not say."""
    said = words(folder)
    if said & {"dataset", "datasets", "data"}:  # it holds both
        return None
    if said & LABEL_WORDS:
        return True
    return False if said & PHOTO_WORDS else None


def rank(name: str) -> int:
    """How far the labels of a folder or suffix are from class numbers; less is better."""
    said = words(name)
    ordered = ((OVERLAY_WORDS, 4), (OBJECT_WORDS, 3), (COLOR_WORDS, 2))
    for known, value in ordered:
        if said & known or any(w.startswith("instance") for w in said if value == 3):
            return value
    if "trainids" in said or {"train", "ids"} <= said or "labeltrainids" in said:
        return -1
    return 0 if said & CLASS_WORDS or said & {"labelids", "segmentationclass"} else 1


def part(path: PurePath) -> str:
    """The split named by the innermost such folder of a relative path, or ''."""
    found = (SPLITS.get(p.name.lower(), "") for p in path.parents)
    return next(filter(None, found), "")


def label_keys(path: PurePath) -> list[str]:
    """Names that the photograph of a label may have, the most likely first."""
    stem = plain(path.stem)
    return list(dict.fromkeys([stem, *_stripped(stem, _LABEL_ENDING, _LABEL_START, LABEL_WORDS)]))


def photo_keys(path: PurePath) -> list[str]:
    """Names by which a label may refer to a photograph, the most likely first."""
    stem = plain(path.stem)
    return list(dict.fromkeys([stem, *_stripped(stem, _PHOTO_ENDING, _PHOTO_START, PHOTO_WORDS)]))


def _stripped(stem: str, ending: re.Pattern, start: re.Pattern, own: frozenset[str]) -> list[str]:
    """The name without these words; "" if nothing is left, as with `img.png` and `label.png`."""
    found, rest = [], stem
    while match := ending.fullmatch(rest):
        rest = match[1]
        found.append(rest)
    starts = [start.fullmatch(name) for name in [stem, *found]]
    found += [match[1] for match in starts if match]
    return [*found, ""] if rest in own else found
