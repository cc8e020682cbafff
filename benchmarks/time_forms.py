"""Times the forms of single operations against each other, turn by turn, on this machine.

python benchmarks/time_forms.py [--size 64 128] [--batch 1] [--rounds 7] [FAMILY ...]

Prints, for every form and pass, the median seconds and the ratio to the direct form, which comes
first. On a CPU the processor seconds of all threads are printed too: other processes disturb
those less.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import jax
import jax.numpy as jnp
from forms import FAMILIES


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=", ".join(FAMILIES))
    parser.add_argument("--size", type=int, nargs=2, default=(64, 128), help="of the 1/8 map")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    for name in arguments.families or FAMILIES:
        forms = FAMILIES[name](jnp.dtype(arguments.dtype), arguments.batch, tuple(arguments.size))
        programs = {form: compiled(function, shapes) for form, function, shapes in forms}
        report(name, measure(programs, arguments.rounds))


def compiled(function, shapes):
    """Returns a call of the compiled function on noise."""
    key = jax.random.key(0)
    values = jax.tree.map(lambda s: jax.random.normal(key, s.shape).astype(s.dtype) / 4, shapes)
    program = jax.jit(function)
    jax.block_until_ready(program(*values))
    return lambda: jax.block_until_ready(program(*values))


def measure(programs, rounds):
    """Returns the median (wall, processor) seconds of each program, all of them in turns."""
    times = {name: [] for name in programs}
    for _ in range(rounds):
        for name, run in programs.items():
            wall, processor = time.perf_counter(), time.process_time()
            run()
            times[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return {
        name: tuple(statistics.median(column) for column in zip(*rows, strict=True))
        for name, rows in times.items()
    }


def report(family, medians):
    print(f"\n{family}: seconds wall, processor; ratios to the direct form")
    direct = {}
    for name, (wall, processor) in medians.items():
        rest = name.split(" ")[1:]
        base = direct.setdefault(" ".join(rest), (wall, processor))
        ratios = f"{wall / base[0]:6.2f} {processor / base[1]:6.2f}"
        print(f"{name:45} {wall:8.4f} {processor:8.4f}  {ratios}", flush=True)


if __name__ == "__main__":
    main()
