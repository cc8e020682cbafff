"""Prints the largest difference of every stage from both references, with random weights.

python benchmarks/parity.py [mmseg] [official]

mmseg: mmsegmentation 1.2.2, FastFCN's three heads at the four sizes of the tests (the
configurations of a head differ in the class count alone, 19 or 150), and the dilated twins.
official: golden values in `tests/golden/official.npz`, relative to each stage's largest value if
that exceeds 1. The output is Markdown.
"""

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "models")]

STAGES = ("stem", "c2", "c3", "c4", "c5", "neck", "logits", "auxiliary", "se")


def mmseg():
    import test_mmseg as tests
    from stages import our_stages

    print_header()
    for neck, num_classes, sizes in (
        ("jpu", 19, tests.SIZES),
        ("jpu", 150, tests.SIZES),
        ("none", 19, tests.SIZES),
    ):
        for head in tests.HEADS:
            reference, ours, variables = tests.pair(head, neck, num_classes=num_classes)
            for size in sizes:
                images = tests.images_of(*size)
                expected = tests.reference_stages(reference, images)
                found = our_stages(ours, variables, images)
                errors = {name: np.abs(found[name] - expected[name]).max() for name in found}
                print_row(f"{head} {neck} {num_classes} {size[0]}x{size[1]}", errors)


def official():
    import official_cases as cases
    import test_official as tests
    from stages import our_stages

    print_header()
    for case in cases.CASES:
        found = our_stages(tests.build(case), tests.variables_of(case), cases.images(case))
        golden, errors = tests.golden(), {}
        for name, value in found.items():
            key = f"{case.name}/{name}"
            error = np.abs(cases.sample(value, name) - golden[key]).max()
            errors[name] = error / max(1.0, golden[f"{key}_peak"])
        print_row(f"{case.name} {case.size[0]}x{case.size[1]}", errors)


def print_header():
    print("\n| model | " + " | ".join(STAGES) + " |\n|" + "---|" * (len(STAGES) + 1))


def print_row(name, errors):
    cells = [f"{errors[stage]:.1e}" if stage in errors else "" for stage in STAGES]
    print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    for part in sys.argv[1:] or ("mmseg", "official"):
        {"mmseg": mmseg, "official": official}[part]()
