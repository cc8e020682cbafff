r"""What else a user could train on a small machine: CamVid, two cores, the same minutes each.

Needs mmsegmentation and PyTorch (`make test` installs them), and two packages beside the
environment, not in it, with what of their requirements the environment lacks:

pip install --no-deps --target=DIR ultralytics ultralytics-thop polars polars-runtime-32 \
    segmentation-models-pytorch
PYTHONPATH=DIR python benchmarks/peers.py --root CAMVID --output OUT --json OUT/peers.json
PYTHONPATH=DIR python benchmarks/peers.py --output OUT --json OUT/peers.json --latency \
    --root CAMVID
python benchmarks/peers.py --json OUT/peers.json --show

The first trains every contender from random weights in a process of its own (`--minutes`, 60 each;
`--contender NAME` one alone; `--rehearse` half a minute each), and scores it on the 101 validation
photographs at 360x480 by our counts, void left out. A contender that the file holds already is not
trained again, so an interrupted table goes on. The second times all stored models in turns: one
photograph at a time, from its pixels to its classes. `peer_trainers.py` says how each is trained.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import camvid_mmseg
import cv2
import numpy as np
from jaxtyping import Int, UInt8
from peer_trainers import CONTENDERS, VALIDATES, Contender, Job, Predict

from fastfcn_jax import files
from fastfcn_jax.evaluation import metrics

NAMES = camvid_mmseg.camvid.INFO.class_names
CORES, ROUNDS, IN_A_ROUND = 2, 15, 4


def pairs(layout: Path) -> Iterable[tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]]:
    """The validation photographs (RGB) and labels (void 255)."""
    for path in sorted((layout / "images" / "val").iterdir()):
        label = cv2.imread(str(layout / "labels" / "val" / f"{path.stem}.png"), -1)
        yield cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), label


def count(predict: Predict, pairs: Iterable) -> Int[np.ndarray, "k k"]:
    """The confusion matrix over all photographs.

    Raises:
      ValueError: a prediction has another size than its photograph.
    """
    matrix = np.zeros((len(NAMES),) * 2, np.int64)
    for image, label in pairs:
        predicted = predict(image)
        if predicted.shape != label.shape:
            raise ValueError(f"predicted {predicted.shape} for a photograph of {label.shape}")
        matrix += metrics.confusion_matrix(label, predicted, len(NAMES))
    return matrix


def scored(matrix: Int[np.ndarray, "k k"]) -> dict[str, Any]:
    found = metrics.scores(matrix)
    iou = {name: float(value) for name, value in zip(NAMES, found.iou, strict=True)}
    return {"mIoU": found.miou, "mAcc": found.macc, "aAcc": found.aacc, "IoU": iou}


def stored(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text()) if file.is_file() else {}


def run(name: str, job: Job) -> dict[str, Any]:
    """Trains and scores one contender in this process."""
    contender = CONTENDERS[name]
    shutil.rmtree(job.folder, ignore_errors=True)  # an interrupted training would be resumed
    job.folder.mkdir(parents=True)
    facts = contender.train(job)
    facts["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    which = "best" if name in VALIDATES else "last"
    found = scored(count(contender.predictor(job.folder, which), pairs(job.layout)))
    last = found["mIoU"]
    if which == "best":
        matrix = count(contender.predictor(job.folder, "last"), pairs(job.layout))
        last = metrics.scores(matrix).miou
    return {**facts, "budget": job.minutes, "weights": which, **found, "last_mIoU": last}


def merge(file: Path, name: str, found: dict[str, Any]) -> None:
    """Adds to what `file` has of a contender."""
    everything = stored(file)
    everything[name] = {**everything.get(name, {}), **found}
    text = json.dumps(everything, indent=1)
    files.write_text(file, text.replace("NaN", "null") + "\n")


def missing(contenders: dict[str, Contender], file: Path, minutes: float) -> list[str]:
    """Those that are to be trained; tells of each other why it is not."""
    have, found = stored(file), []
    for name, contender in contenders.items():
        if have.get(name, {}).get("budget") == minutes:
            print(f"{name}: already in {file}")
        elif sentence := contender.absent():
            print(f"{name}: {sentence}")
        else:
            found.append(name)
    return found


def serve(name: str, folder: Path, layout: Path, pipe) -> None:
    """Answers each request with the milliseconds of one photograph, or () at the end."""
    _two_cores()
    predict = CONTENDERS[name].predictor(folder, "best" if name in VALIDATES else "last")
    image, _ = next(iter(pairs(layout)))
    for _ in range(3):
        predict(image)
    pipe.send("ready")
    while pipe.recv():
        spent, network = [], []
        for _ in range(IN_A_ROUND):
            started = time.perf_counter()
            predict(image)
            spent.append(1e3 * (time.perf_counter() - started))
            network.append(getattr(predict, "network_ms", float("nan")))
        pipe.send((spent, network))


def latency(names: list[str], output: Path, layout: Path) -> dict[str, dict[str, float]]:
    """Medians of the milliseconds an image of all models, which take turns."""
    context = multiprocessing.get_context("spawn")
    pipes, processes, spent = {}, [], {name: ([], []) for name in names}
    for name in names:
        pipes[name], far = context.Pipe()
        # A daemon, or one that waits would keep this process from ending after another's error.
        process = context.Process(
            target=serve, args=(name, output / name, layout, far), daemon=True
        )
        process.start()
        far.close()  # so that a dead one ends the wait below
        processes.append(process)
        pipes[name].recv()
    for turn in range(ROUNDS):
        for name in names if turn % 2 == 0 else reversed(names):
            pipes[name].send(True)
            for kept, new in zip(spent[name], pipes[name].recv(), strict=True):
                kept.extend(new)
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(False)
        process.join()
    middle = {name: [statistics.median(x) for x in both] for name, both in spent.items()}
    return {
        name: {"ms": whole} | ({} if np.isnan(network) else {"network_ms": network})
        for name, (whole, network) in middle.items()
    }


def table(found: dict[str, Any]) -> str:
    lines = [
        "| | batch, size | optimiser | parameters | minutes | batches (epochs) | mIoU | last "
        "weights | mAcc | pixel acc. | ms an image |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in CONTENDERS:
        if "mIoU" not in (row := found.get(name, {})):
            lines.append(f"| {name} | missing |" + " |" * 9)
            continue
        ms = f"{row['ms']:.0f}" if "ms" in row else "missing"
        if "network_ms" in row:
            ms += f" (network {row['network_ms']:.0f})"
        cells = (
            name,
            f"{row['batch']}, {row['size']}",
            row["optimiser"],
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['minutes']:.1f}",
            f"{row['steps']} ({row['epochs']:.1f})",
            *(f"{row[key]:.2f}" for key in ("mIoU", "last_mIoU", "mAcc", "aAcc")),
            ms,
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _two_cores() -> None:
    """A larger machine must not change what is compared; PyTorch's own default is also 2 then."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    os.environ["OMP_NUM_THREADS"] = str(CORES)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="folder of CamVid")
    parser.add_argument("--output", type=Path, help="folder for trained models")
    parser.add_argument("--json", type=Path, required=True, help="results, added to")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rehearse", action="store_true", help="half a minute each")
    parser.add_argument("--contender", choices=CONTENDERS, help="this one alone")
    parser.add_argument("--latency", action="store_true", help="time the stored models")
    parser.add_argument("--show", action="store_true", help="print the table alone")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.show:
        print(table(stored(given.json)))
        return 0
    if not given.root or not given.output:
        parser.error("--root, the folder of CamVid, and --output are needed")
    layout = given.output / "camvid"
    if not layout.is_dir():
        written = layout.with_name("camvid.part")  # not taken for the whole after an interruption
        shutil.rmtree(written, ignore_errors=True)
        camvid_mmseg.write_layout(given.root, written).rename(layout)
    chosen = {given.contender: CONTENDERS[given.contender]} if given.contender else CONTENDERS
    if given.latency:
        names = [name for name in chosen if "mIoU" in stored(given.json).get(name, {})]
        for name, row in latency(names, given.output, layout).items():
            merge(given.json, name, row)
        print(table(stored(given.json)))
        return 0
    minutes = 0.5 if given.rehearse else given.minutes
    if given.here:
        _two_cores()
        job = Job(given.root, layout, given.output / given.contender, minutes)
        merge(given.json, given.contender, run(given.contender, job))
        return 0
    failed = [
        name for name in missing(chosen, given.json, minutes) if _process(name, minutes, given)
    ]
    print(table(stored(given.json)))
    if failed:
        print(f"failed, see above: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _process(name: str, minutes: float, given: argparse.Namespace) -> int:
    """Runs one contender in a process of its own; its exit status."""
    print(f"== {name}", flush=True)
    words = ["--root", given.root, "--output", given.output, "--json", given.json]
    words += ["--minutes", minutes, "--contender", name, "--here"]
    return subprocess.run([sys.executable, __file__, *map(str, words)]).returncode


if __name__ == "__main__":
    sys.exit(main())
