"""Damages pictures at random and reads them: nothing but a sentence may come of it.

python benchmarks/fuzz_pictures.py [--count 10000] [--seed 0] [--output FILE.json]

Pictures of every kind that is read (JPEG of several subsamplings, PNG grey, palette, RGB, RGBA and
16-bit, GIF, TIFF, BMP, WebP) lose and gain bits and bytes, are cut, spliced and emptied in parts,
and go through the readers of photographs, labels and sizes. Counted is what came of it, by kind:

    same        the pixels of the undamaged file
    refused     a UserError
    different   other pixels, without a word: for a PNG never; JPEG and the others have no checksums
    sizes       `size` and `image` disagree
    traceback   any other error

The exit status is 1 after a traceback, or a PNG that gave other pixels. Each kind is read in a
process of its own, so that a crash is counted and ends nothing else.
"""

import argparse
import concurrent.futures
import io
import json
import sys
import traceback
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from fastfcn_jax.data import decode
from fastfcn_jax.errors import UserError

SIZE = 61, 83  # height, width: no multiple of a JPEG's blocks
BAD = ("traceback", "sizes")
FROM_ONE = 20  # damaged pictures of a sound one


def pictures(rng: np.random.Generator) -> dict[str, bytes]:
    """A sound file of each kind."""
    height, width = SIZE
    coarse = rng.integers(0, 256, (7, 9, 3), np.uint8)
    photo = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    noise = rng.integers(-9, 10, photo.shape)
    photo = np.clip(photo + noise, 0, 255).astype(np.uint8)
    label = np.kron(rng.integers(0, 11, (8, 9), np.uint8), np.ones((10, 10), np.uint8))
    label = label[:height, :width]
    tags = Image.Exif()
    tags[0x112] = int(rng.integers(1, 9))
    return {
        "jpeg 4:4:4": _saved(photo, "JPEG", subsampling=0),
        "jpeg 4:2:0": _saved(photo, "JPEG", subsampling=2, exif=tags),
        "jpeg progressive": _saved(photo, "JPEG", progressive=True),
        "jpeg restarts": _saved(photo, "JPEG", restart_marker_blocks=4),
        "jpeg grey": _saved(photo, "JPEG", "L"),
        "jpeg cmyk": _saved(photo, "JPEG", "CMYK"),
        "png grey": _saved(label, "PNG"),
        "png palette": _saved(label, "PNG", "P"),
        "png palette 4 bits": _saved(label, "PNG", "P", bits=4),
        "png rgb": _saved(photo, "PNG", exif=tags),
        "png rgba": _saved(photo, "PNG", "RGBA"),
        "png 16 bits": cv2.imencode(".png", photo.astype(np.uint16) * 257)[1].tobytes(),
        "gif": _saved(label, "GIF", "P"),
        "tiff": _saved(photo, "TIFF", exif=tags),
        "tiff lzw": _saved(label, "TIFF", "P", compression="tiff_lzw"),
        "bmp": _saved(photo, "BMP"),
        "webp": _saved(photo, "WEBP", exif=tags),
    }


def _saved(pixels: np.ndarray, kind: str, mode: str = "", **options) -> bytes:
    picture = Image.fromarray(pixels)
    if mode == "P":
        picture = Image.frombytes("P", picture.size, pixels.tobytes())
        picture.putpalette(list(range(256)) * 3)
    elif mode:
        picture = picture.convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def damaged(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """`data` after one to three accidents; `other` is a file that a part may come from."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(0, max(len(changed), 1)))
        length = int(rng.integers(1, max(len(data) // 2, 2)))
        match rng.integers(0, 7):
            case 0 if changed:
                changed[min(place, len(changed) - 1)] ^= 1 << int(rng.integers(8))
            case 1 if changed:
                changed[min(place, len(changed) - 1)] = int(rng.integers(256))
            case 2:
                del changed[place:]
            case 3:
                del changed[place : place + length]
            case 4:
                end = min(place + length, len(changed))
                changed[place:end] = bytes(end - place)
            case 5:
                start = int(rng.integers(0, len(other)))
                changed[place : place + length] = other[start : start + length]
            case 6:
                changed[place:place] = changed[place : place + length]
    return bytes(changed)


def fuzz(kind: str, count: int, seed: int) -> tuple[Counter, list[str]]:
    """What came of `count` damaged pictures of a kind, and the tracebacks."""
    rng = np.random.default_rng((seed, *kind.encode()))
    found, errors = Counter(), []
    for i in range(count):
        if i % FROM_ONE == 0:
            kinds = pictures(rng)
        sound, other = kinds[kind], kinds[str(rng.choice(list(kinds)))]
        changed = damaged(sound, other, rng)
        try:
            found[outcome(sound, changed, kind)] += 1
        except Exception:  # that there is none is what is asked
            found["traceback"] += 1
            errors.append(traceback.format_exc())
    return found, errors


def outcome(sound: bytes, changed: bytes, kind: str) -> str:
    """The worse of what a reader of photographs and one of labels make of it."""
    outcomes = {_read(decode.image, sound, changed)}
    if kind != "png 16 bits":
        outcomes.add(_read(decode.label, sound, changed))
    try:
        size = decode.size(changed, "x")
    except UserError:
        size = None
    try:
        if size != decode.image(changed, "x").shape[:2]:
            outcomes.add("sizes")
    except UserError:
        pass
    order = ("sizes", "different", "same", "refused")
    return next(o for o in order if o in outcomes)


def _read(read, sound: bytes, changed: bytes) -> str:
    try:
        pixels = read(changed, "x")
    except UserError:
        return "refused"
    try:
        return "same" if np.array_equal(pixels, read(sound, "x")) else "different"
    except UserError:  # 4 bits of grey are no label
        return "different"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    kinds = list(pictures(np.random.default_rng(0)))
    each = -(-arguments.count // len(kinds))
    table: dict[str, Counter] = {}
    for kind in kinds:
        with concurrent.futures.ProcessPoolExecutor(1) as pool:
            try:
                table[kind], errors = pool.submit(fuzz, kind, each, arguments.seed).result()
            except concurrent.futures.process.BrokenProcessPool:
                table[kind], errors = Counter(crash=each), ["the process was ended\n"]
        sys.stderr.writelines(errors[:3])
        print(f"{kind:20}", *(f"{count} {what}" for what, count in table[kind].items()), sep="  ")
    total = sum(table.values(), Counter())
    print(f"{'all':20}", *(f"{count} {what}" for what, count in total.items()), sep="  ")
    if arguments.output:
        arguments.output.write_text(json.dumps(table, indent=2) + "\n")
    silent = sum(table[kind]["different"] for kind in kinds if kind.startswith("png"))
    return int(bool(silent or any(total[what] for what in (*BAD, "crash"))))


if __name__ == "__main__":
    sys.exit(main())
