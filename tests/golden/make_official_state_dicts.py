"""Keeps the names and shapes of the official models' state dicts, part by part.

python tests/golden/make_official_state_dicts.py CHECKOUT

CHECKOUT as in `make_official.py`. ResNet-50, 59 classes. Writes `official_state_dicts.json`:
{part: {name: shape}}; a model is the backbone, a neck, a head and the auxiliary head.
"""

import json
import sys
from pathlib import Path

import make_official
import official_cases as cases
import torch


def parts_of(state_dict, case) -> dict[str, dict[str, list[int]]]:
    """The state dict's entries by the part they belong to."""
    head = case.head
    if case.head == "enc" and case.neck == "none":
        head = "enc without neck"  # its first convolution is 3x3 there
    tops = {"pretrained": "backbone", "jpu": case.neck, "head": head, "auxlayer": "auxiliary"}
    parts = {}
    for name, tensor in state_dict.items():
        part = parts.setdefault(tops[name.split(".")[0]], {})
        part[name] = list(tensor.shape)
    return parts


def main(checkout: str) -> None:
    package = make_official.import_official(checkout)
    make_official.oracle.randomize = lambda module: module
    found = {}
    with torch.device("meta"):
        for head in ("enc", "psp", "aspp", "fcn"):
            for neck in ("jpu", "jpu_x", "none"):
                case = cases.Case(head, neck)
                model = make_official.build(package, case)
                for part, entries in parts_of(model.state_dict(), case).items():
                    assert found.setdefault(part, entries) == entries, part
    path = Path(__file__).with_name("official_state_dicts.json")
    lines = (
        f'"{part}": {{\n'
        + ",\n".join(f'"{name}": {json.dumps(shape)}' for name, shape in entries.items())
        + "\n}"
        for part, entries in found.items()
    )
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1])
