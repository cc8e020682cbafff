"""Times the forms of single operations against each other, turn by turn, on this machine.

python benchmarks/time_forms.py [--size 64 128] [--batch 1] [--rounds 7] [--calls 1]
    [--json FILE] [FAMILY ...]

Prints, for every form and pass, the median milliseconds and the ratio to the plain form, which
comes first. On a CPU the processor time of all threads is printed too: other processes disturb
that less. On a GPU each turn makes many calls and waits for the last, so that starting them is not
what is timed.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import jax
import jax.numpy as jnp
from forms import FAMILIES


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=", ".join(FAMILIES))
    parser.add_argument("--size", type=int, nargs=2, default=(64, 128), help="of the 1/8 map")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, help="in a turn; 1 on a CPU, 20 on a GPU")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--json", help="file for the (wall, processor) seconds of each form")
    arguments = parser.parse_args()
    calls = arguments.calls or (1 if jax.default_backend() == "cpu" else 20)
    found = {}
    for name in arguments.families or FAMILIES:
        forms = FAMILIES[name](jnp.dtype(arguments.dtype), arguments.batch, tuple(arguments.size))
        programs = {form: compiled(function, shapes) for form, function, shapes in forms}
        found[name] = measure(programs, arguments.rounds, calls)
        report(name, found[name])
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=2) + "\n")


def compiled(function, shapes):
    """Returns a function that calls the compiled one n times on noise and waits."""
    key = jax.random.key(0)
    values = jax.tree.map(lambda s: jax.random.normal(key, s.shape).astype(s.dtype) / 4, shapes)
    program = jax.jit(function)

    def run(calls):
        for _ in range(calls):
            result = program(*values)
        jax.block_until_ready(result)

    run(1)
    return run


def measure(programs, rounds, calls):
    """Returns the median (wall, processor) seconds of a call of each program, all in turns."""
    times = {name: [] for name in programs}
    for _ in range(rounds):
        for name, run in programs.items():
            wall, processor = time.perf_counter(), time.process_time()
            run(calls)
            spent = time.perf_counter() - wall, time.process_time() - processor
            times[name].append([seconds / calls for seconds in spent])
    return {
        name: tuple(statistics.median(column) for column in zip(*rows, strict=True))
        for name, rows in times.items()
    }


def report(family, medians):
    print(f"\n{family}: ms wall, processor; ratios to the plain form")
    plain = {}
    for name, (wall, processor) in medians.items():
        rest = name.split(" ")[1:]
        base = plain.setdefault(" ".join(rest), (wall, processor))
        ratios = f"{wall / base[0]:6.2f} {processor / base[1]:6.2f}"
        print(f"{name:45} {1e3 * wall:9.3f} {1e3 * processor:9.3f}  {ratios}", flush=True)


if __name__ == "__main__":
    main()
