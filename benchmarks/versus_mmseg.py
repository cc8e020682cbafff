"""Speed of this package and of mmsegmentation 1.2.2: same weights, same inputs, taking turns.

python benchmarks/versus_mmseg.py --mode=train --head=psp --height=256 --width=512 --batch=2
python benchmarks/versus_mmseg.py --mode=inference --head=psp,enc,aspp --height=1024 --width=2048

Each contender has its own process; in every round each takes its turn, so that a busy machine
affects all alike. Logits (or the losses of the first steps) are compared in the same run, which is
why dropout is 0 and the learning rate 1e-6 on both sides. Printed are medians, the ratio of times
in each round (median, smallest, largest) and peak memory: on a GPU what the framework allocated, on
a CPU the resident set of the process.

Two commits of this package are compared by `--contenders=ours@OLD,ours`, where OLD is a checkout of
the older one.

`mmseg` is PyTorch by default, `mmseg+channels_last+compile+bf16` is tuned; see contenders.py. Needs
mmsegmentation and PyTorch (`make test` installs them) and, for `+compile`, a C++ compiler.
"""

import itertools
import json
import multiprocessing
import os
import platform
import statistics
import tempfile

import contenders
import numpy as np
from absl import app, flags

CPU = "mmseg,mmseg+channels_last,mmseg+compile,mmseg+channels_last+compile,ours"
GPU = "mmseg,mmseg+channels_last+compile,mmseg+channels_last+compile+bf16,ours,ours+bf16"

flags.DEFINE_list("head", ["psp"], "psp, enc, aspp: one comparison each.")
flags.DEFINE_list("mode", ["forward"], "forward, inference, train: one comparison each.")
flags.DEFINE_integer("height", 512, "Of the images.")
flags.DEFINE_integer("width", 1024, "Of the images.")
flags.DEFINE_list("batch", ["1"], "Images at a time: one comparison each.")
flags.DEFINE_integer("num_classes", 19, "Of the classifier.")
flags.DEFINE_list("contenders", None, f"Default on a CPU: {CPU}; on a GPU: {GPU}.")
flags.DEFINE_integer("rounds", 5, "Turns that each contender takes.")
flags.DEFINE_integer("iterations", 0, "Iterations in a turn; 0: 1 on a CPU, 20 on a GPU.")
flags.DEFINE_bool("gpu", False, "Run on the GPU.")
flags.DEFINE_string("json", "", "File to append one JSON line per comparison to.")


def compare(job: contenders.Job, names: list[str], rounds: int, iterations: int) -> dict:
    """Runs one comparison; seconds are per iteration."""
    context = multiprocessing.get_context("spawn")
    writer = context.Process(target=contenders.write_weights, args=(job,))
    writer.start()
    writer.join()
    processes, pipes, result = {}, {}, {}

    def ask(name: str, iterations: int | None = None):
        """A contender's answer; without a number of iterations, its message that it is ready."""
        try:
            if iterations is not None:
                pipes[name].send(iterations)
            return pipes[name].recv()
        except (EOFError, OSError):
            processes[name].join(20)
            status = processes[name].exitcode
            raise RuntimeError(f"{name} died, exit status {status}") from None

    try:
        for name in names:  # one after the other, as compilers use all cores
            pipe, far = context.Pipe()
            process = context.Process(target=contenders.serve, args=(name, job, far), daemon=False)
            process.start()
            far.close()
            processes[name] = process
            pipes[name] = pipe
            ready, evidence = ask(name)
            result[name] = {"ready_seconds": ready, "evidence": evidence, "seconds": []}
        for turn in range(rounds):
            for name in names if turn % 2 == 0 else reversed(names):
                result[name]["seconds"].append(ask(name, iterations) / iterations)
        for name in names:
            result[name]["peak_bytes"], result[name]["versions"] = ask(name, 0)
    except BaseException:
        for process in processes.values():  # the others would wait for ever
            process.terminate()
        raise
    finally:
        for process in processes.values():
            process.join(20)
            process.kill()
    return result


def disagreement(mode: str, evidence: np.ndarray, reference: np.ndarray) -> dict:
    """Largest difference of a contender's logits or losses from mmseg's."""
    error = float(np.abs(evidence - reference).max())
    found = {"max_error": error, "of_largest": error / float(np.abs(reference).max())}
    if mode != "train":
        other = evidence.argmax(-1) != reference.argmax(-1)
        found["other_class"] = float(other.mean())
    return found


def summarize(job: contenders.Job, result: dict) -> dict:
    names = list(result)
    reference = next((name for name in names if name.startswith("mmseg")), names[0])
    for row in result.values():
        row["median"] = statistics.median(row["seconds"])
        row["images_per_second"] = job.batch / row["median"]
        row["disagreement"] = disagreement(job.mode, row["evidence"], result[reference]["evidence"])
    for row in result.values():
        del row["evidence"]
    ratios = {}
    for ours, other in itertools.product(names, names):
        if ours.startswith("ours") and other.startswith(("mmseg", "ours@")) and ours != other:
            pairs = zip(result[ours]["seconds"], result[other]["seconds"], strict=True)
            each = sorted(a / b for a, b in pairs)
            ratios[f"{ours} / {other}"] = {
                "median": statistics.median(each),
                "min": each[0],
                "max": each[-1],
                "memory": result[ours]["peak_bytes"] / result[other]["peak_bytes"],
            }
    machine = {"cores": os.cpu_count(), "processor": platform.machine(), "load": os.getloadavg()}
    shape = {key: getattr(job, key) for key in ("head", "mode", "height", "width", "batch", "gpu")}
    return {**shape, "machine": machine, "contenders": result, "time_ratios": ratios}


def report(summary: dict) -> None:
    print(
        f"\n{summary['head']} {summary['mode']} "
        f"{summary['height']}x{summary['width']} batch {summary['batch']}"
    )
    header = ("contender", "seconds", "min", "max", "images/s", "peak GiB", "ready s", "error")
    print("{:36} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>9}".format(*header))
    for name, row in summary["contenders"].items():
        print(
            f"{name:36} {row['median']:9.4f} {min(row['seconds']):9.4f} {max(row['seconds']):9.4f}"
            f" {row['images_per_second']:9.2f} {row['peak_bytes'] / 2**30:9.2f}"
            f" {row['ready_seconds']:8.1f} {row['disagreement']['of_largest']:9.1e}"
        )
    print(f"{'time ratio, round by round':64} {'median':>7} {'min':>7} {'max':>7} {'memory':>7}")
    for name, ratio in summary["time_ratios"].items():
        print(f"{name:64} " + " ".join(f"{ratio[key]:7.3f}" for key in ratio), flush=True)


def main(_) -> None:
    f = flags.FLAGS
    names = f.contenders or (GPU if f.gpu else CPU).split(",")
    iterations = f.iterations or (20 if f.gpu else 1)
    with tempfile.TemporaryDirectory() as folder:
        for head, mode, batch in itertools.product(f.head, f.mode, f.batch):
            job = contenders.Job(
                head=head,
                mode=mode,
                height=f.height,
                width=f.width,
                batch=int(batch),
                num_classes=f.num_classes,
                gpu=f.gpu,
                weights=f"{folder}/{head}.npz",
            )
            summary = summarize(job, compare(job, names, f.rounds, iterations))
            report(summary)
            if f.json:
                with open(f.json, "a") as file:
                    file.write(json.dumps(summary) + "\n")


if __name__ == "__main__":
    app.run(main)
