"""The table of mutants matches the code that it mutates."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import mutants

BUGS = mutants.planted_bugs()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_each_mutant_finds_its_text_and_its_tests(bug):
    assert mutants.is_applicable(bug)
    assert bug.new != bug.old
    for test in bug.tests:
        path, _, name = test.partition("::")
        assert (mutants.ROOT / path).exists()
        if name:
            assert f"def {name.partition('[')[0]}(" in (mutants.ROOT / path).read_text()


def test_mutants_have_distinct_names():
    assert len({bug.name for bug in BUGS}) == len(BUGS)
