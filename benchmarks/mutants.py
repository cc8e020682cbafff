"""Plants bugs in the code, one at a time, and shows that a test notices each.

    python benchmarks/mutants.py                    every mutant, two at a time
    python benchmarks/mutants.py --only=losses      those whose file or name contains this
    python benchmarks/mutants.py --list             what is planted where

Each mutant is one replacement of `mutants.toml` in a copy of the tree, in which its tests then run
(`-x`). Before that the same tests run in an unchanged copy, where they have to pass. Exit status 1
if a mutant survives, does not even import, or no longer finds its text.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PASSED, FAILED = 0, 1  # pytest's exit statuses


class Bug(NamedTuple):
    """One entry of `mutants.toml`, which says what its parts are."""

    name: str
    file: str
    old: str
    new: str
    tests: list[str]


class Outcome(NamedTuple):
    """What became of one mutant: "killed", "survived" or a mishap; and the test that failed."""

    bug: Bug
    verdict: str
    by: str
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description="Shows that a planted bug makes a test fail.")
    parser.add_argument("--only", default="", help="mutants whose file or name contains this")
    parser.add_argument("--jobs", type=int, default=2, help="mutants tried at the same time")
    parser.add_argument("--list", action="store_true", help="print the mutants and stop")
    options = parser.parse_args()
    chosen = [m for m in planted_bugs() if options.only in f"{m.file} {m.name}"]
    if options.list:
        print("\n".join(f"{m.file}: {m.name}" for m in chosen))
        return 0
    lost = [Outcome(m, "text not found once", "", 0.0) for m in chosen if not is_applicable(m)]
    chosen = [m for m in chosen if is_applicable(m)]
    failing = tests_that_fail_anyway(chosen)
    if failing:
        print(f"these tests fail without any mutant:\n{failing}")
        return 1
    print("verdict    seconds  mutant -> the test that fails")
    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = list(pool.map(reported, lost)) + list(pool.map(attempt, chosen))
    killed = sum(outcome.verdict == "killed" for outcome in outcomes)
    print(f"{killed} of {len(outcomes)} mutants killed")
    return int(killed < len(outcomes))


def planted_bugs() -> list[Bug]:
    table = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    return [Bug(**entry) for entry in table["bug"]]


def is_applicable(bug: Bug) -> bool:
    return (ROOT / bug.file).read_text("utf-8").count(bug.old) == 1


def tests_that_fail_anyway(bugs: list[Bug]) -> str:
    """The end of pytest's output if the mutants' tests do not all pass in an unchanged tree."""
    tests = sorted({test for bug in bugs for test in bug.tests})
    with tempfile.TemporaryDirectory() as folder:
        copy_tree(Path(folder))
        status, output = run_tests(Path(folder), tests)
    return "" if status == PASSED else output[-3000:]


def attempt(bug: Bug) -> Outcome:
    """Plants one bug in a copy of the tree and runs its tests there."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copy_tree(Path(folder))
        path = Path(folder, bug.file)
        path.write_text(path.read_text("utf-8").replace(bug.old, bug.new), "utf-8")
        status, output = run_tests(Path(folder), bug.tests)
    verdict = {PASSED: "survived", FAILED: "killed"}.get(status, f"broken: status {status}")
    failure = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    by = failure[1] if failure else ""
    return reported(Outcome(bug, verdict, by, time.monotonic() - started))


def reported(outcome: Outcome) -> Outcome:
    name = f"{outcome.bug.file}: {outcome.bug.name}"
    print(f"{outcome.verdict:10} {outcome.seconds:7.0f}  {name} -> {outcome.by}", flush=True)
    return outcome


def copy_tree(folder: Path) -> None:
    """The files that git knows or would add, as they lie here."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in listed.splitlines():
        if (ROOT / name).is_file():  # a deleted file stays listed until the next commit
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)


def run_tests(folder: Path, tests: list[str]) -> tuple[int, str]:
    """pytest's exit status and output. Everything is imported from `folder`, not from here."""
    # The cache would give a mutant's compiled file to the next one: sizes and times may agree.
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-rfE", "-p", "no:cacheprovider", *tests]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return result.returncode, result.stdout + result.stderr


if __name__ == "__main__":
    sys.exit(main())
