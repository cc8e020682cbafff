"""Predicts pictures on a Ray cluster of two nodes while actors, a node and the driver are killed.

python benchmarks/ray_survives.py [--pictures 2000] [--kills 12] [--every 6] [--seed 0]

Two `ray start` on loopback, the tiny model of `tests/tiny.py`, and `fastfcn predict --ray
--skip-existing`, started again with the same command whenever it was killed. After each 0.5 to 1.5
times EVERY seconds something is killed by SIGKILL: an actor three times in five, else the second
node (another one joins after some seconds) or the driver.
Exit status 0: each picture is in the manifest once, and each result is, byte by byte, that of
`fastfcn predict` in one process.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

KINDS = ("actor", "actor", "actor", "node", "driver")
DIFFERENT = 64  # pictures; the others are links to them
PER_FOLDER = 1000
JOINS = 5.0  # seconds until a new node takes the place of one that was killed


def draw(folder: Path, pictures: int) -> None:
    """Writes the pictures into `in`, and one of each into the folder `different` beside it."""
    import toy

    different = folder / "different"
    toy.lay(different, *(f"{i}.png" for i in range(DIFFERENT)))
    for i in range(pictures):
        path = folder / "in" / str(i // PER_FOLDER) / f"{i}.png"
        if i % PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        os.link(different / f"{i % DIFFERENT}.png", path)


def drive(words: list[str]) -> int:
    """`fastfcn predict` with the tiny model: what the driver's process runs."""
    import ray_tiny

    from fastfcn_jax.predict import chosen_model
    from fastfcn_jax.predict.__main__ import COMMAND

    chosen_model.load_model = ray_tiny.load_model
    return COMMAND.main(words)


def command(folder: Path, source: str, output: str, *flags: str) -> list[str]:
    return [
        sys.executable, __file__, "--drive", "--checkpoint", str(folder / "model"),
        "--input", str(folder / source), "--output", str(folder / output), "--no-overlay",
        "--batch-size=32", *flags,
    ]  # fmt: skip


def kill(kind: str, nodes, driver: subprocess.Popen, dice: random.Random) -> bool:
    """Whether there was something of this kind to kill."""
    if kind == "driver":
        driver.kill()
        driver.wait()
    elif kind == "node" and len(nodes.nodes) > 1:
        nodes.kill(1)
    elif kind == "actor" and (found := nodes.workers("Labeller")):
        with contextlib.suppress(ProcessLookupError):
            os.kill(dice.choice(found).pid, signal.SIGKILL)
    else:
        return False
    return True


def run(folder: Path, kills: int, every: float, dice: random.Random) -> collections.Counter:
    """Predicts everything; returns how often each kind was killed, and how often it started."""
    import ray_nodes

    done: collections.Counter = collections.Counter()
    with ray_nodes.Nodes(2) as nodes, (folder / "driver.log").open("w") as log:
        words = command(folder, "in", "out", "--skip-existing", f"--ray={nodes.address}")
        lost = 0.0
        while True:
            driver = subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
            done["start"] += 1
            while driver.poll() is None:
                end = time.monotonic() + every * dice.uniform(0.5, 1.5)
                while driver.poll() is None and time.monotonic() < end:
                    time.sleep(0.25)
                    if len(nodes.nodes) < 2 and time.monotonic() - lost > JOINS:
                        nodes.add()
                kind = KINDS[(done.total() - done["start"]) % len(KINDS)]
                wanted = done.total() - done["start"] < kills and driver.poll() is None
                if wanted and kill(kind, nodes, driver, dice):
                    done[kind] += 1
                    lost = time.monotonic() if kind == "node" else lost
                    print(f"{done.total() - done['start']:4} killed: {kind}", flush=True)
            if driver.returncode != -signal.SIGKILL:
                break
    if driver.returncode:
        print((folder / "driver.log").read_text()[-2000:])
        done["failed"] += 1
    return done


def check(folder: Path, pictures: int) -> tuple[int, int, int]:
    """Numbers of pictures not recorded once, of other results, and of temporary files left."""
    names = collections.Counter()
    for line in (folder / "out" / "predictions.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["status"] != "started":
            names[record["name"]] += 1 if record["status"] == "ok" else 1000
    wanted = [f"{i // PER_FOLDER}/{i}" for i in range(pictures)]
    not_once = sum(names[name] != 1 for name in wanted) + len(names.keys() - set(wanted))
    results = [(folder / "one" / f"{i}.png").read_bytes() for i in range(DIFFERENT)]
    other = sum(
        not (path := folder / "out" / f"{name}.png").is_file()
        or path.read_bytes() != results[i % DIFFERENT]
        for i, name in enumerate(wanted)
    )
    return not_once, other, sum(1 for _ in (folder / "out").rglob(".*"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--every", type=float, default=6.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    folder = options.output or Path(tempfile.mkdtemp())
    draw(folder, options.pictures)
    training = [sys.executable, "tests/tiny.py", "--config=tests/tiny.py"]
    training += [f"--workdir={folder / 'model'}", "--config.train.steps=4"]
    for words in (training, command(folder, "different", "one")):
        subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    started = time.monotonic()
    done = run(folder, options.kills, options.every, random.Random(options.seed))
    seconds = time.monotonic() - started
    not_once, other, left = check(folder, options.pictures)
    print(
        f"{options.pictures} pictures in {seconds:.0f} s; killed: {done['actor']} actors, "
        f"{done['node']} nodes, {done['driver']} drivers ({done['start']} starts); not recorded "
        f"once: {not_once}; other results than of one process: {other}; temporary files left by "
        f"the killed: {left}"
    )
    return int(not_once > 0 or other > 0 or done["failed"] > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--drive"]:
        sys.exit(drive(sys.argv[2:]))
    sys.exit(main())
