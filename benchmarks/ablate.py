r"""What each row of `models/ops/forms.py` earns: the program with one operation in its plain form.

python benchmarks/ablate.py --head=psp --batch=2 --height=256 --width=256
python benchmarks/ablate.py --show=inference --head=psp --batch=1
PYTHONPATH=DIR python benchmarks/ablate.py --gpu --head=psp,aspp,enc    # DIR: see gpu_program.py

On this machine's CPU, float32: seconds to trace and to compile, temporary memory, and the medians
of the wall and the processor time of a run, all variants in turns in one process. With --gpu what
`gpu_program.py` reads from the program for an H200, by default bfloat16 at batch 8.
"""

import contextlib
import os
import statistics
import sys
import time
from typing import Any
from unittest import mock

if "--gpu" not in sys.argv:
    os.environ["JAX_PLATFORMS"] = "cpu"
import gpu_program
import gpu_report
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from contenders import Job

from fastfcn_jax import models
from fastfcn_jax.models import folding
from fastfcn_jax.models.ops import forms
from fastfcn_jax.training import optim, state, step, strategy

flags.DEFINE_bool("gpu", False, "Compile for an H200 instead of running here.")
flags.DEFINE_integer("rounds", 5, "On a CPU: timed runs of each variant.")
flags.DEFINE_list("plain", list(forms.TABLE), "Operations to take plain, one at a time.")


@contextlib.contextmanager
def plain(operations: list[str]):
    """The table without these operations, and nothing in use that was traced before."""
    jax.clear_caches()
    rows = {name: row for name, row in forms.TABLE.items() if name not in operations}
    with mock.patch.dict(forms.TABLE, rows, clear=True):
        yield


def variants() -> dict[str, list[str]]:
    """Returns the operations that each variant has plain."""
    return {"all fast": [], **{name: [name] for name in flags.FLAGS.plain if name}}


def compile_for_gpu(title: str, config) -> None:
    train = flags.FLAGS.show == "train"
    for name, operations in variants().items():
        with plain(operations):
            start = time.perf_counter()
            program = gpu_program.training(config, 1) if train else gpu_program.inference(config)
            seconds = time.perf_counter() - start
        gpu_program.describe(f"{title}: {name} ({seconds:.0f} s)", program)


def time_on_cpu(title: str, config) -> None:
    config.model.precision = "float32"
    programs, texts, times, notes = {}, {}, {}, {}
    make = training if flags.FLAGS.show == "train" else inference
    model, variables = initial(config)
    for name, operations in variants().items():
        with plain(operations):
            run, arguments = make(config, model, variables)
            options = strategy.compiler_options("cpu") if make is training else None
            start = time.perf_counter()
            lowered = jax.jit(run, compiler_options=options).lower(*arguments)
            traced = time.perf_counter() - start
            if (text := lowered.as_text()) in texts.values():
                print(f"{title}: {name}: not in this program", flush=True)
                continue
            texts[name] = text
            start = time.perf_counter()
            programs[name] = lowered.compile()
        memory = programs[name].memory_analysis().temp_size_in_bytes / 2**30
        notes[name] = f"{traced:7.1f} {time.perf_counter() - start:10.1f} {memory:9.2f}"
        times[name] = []
        print(f"{title}: {name}: trace s, compile s, temp GiB {notes[name]}", flush=True)
    arguments = jax.device_put(arguments)
    for turn in range(flags.FLAGS.rounds + 1):
        for name, run in programs.items():
            wall, processor = time.perf_counter(), time.process_time()
            jax.block_until_ready(run(*arguments))
            if turn:  # the first one warms up
                times[name].append((time.perf_counter() - wall, time.process_time() - processor))
    print(f"{title:34}   wall s  ratio   processor s  ratio   trace s  compile s  temp GiB")
    base = None
    for name, rows in times.items():
        wall, processor = (statistics.median(column) for column in zip(*rows, strict=True))
        base = base or (wall, processor)
        print(
            f"{name:34} {wall:8.3f} {wall / base[0]:6.3f} {processor:13.3f} "
            f"{processor / base[1]:6.3f}    {notes[name]}",
            flush=True,
        )


def initial(config):
    model = models.build(config.model, flags.FLAGS.num_classes)
    images = jnp.zeros((1, 64, 64, 3))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    return model, jax.tree.map(np.asarray, dict(variables))


def _job(config) -> Job:
    f = flags.FLAGS
    return Job(config.model.head, f.show, f.height, f.width, f.batch, f.num_classes, False, "")


def training(config, model, variables):
    f = flags.FLAGS
    optimizer = optim.build(config, variables)
    run = step.make_train_step(model, optimizer, num_classes=f.num_classes, loss={})
    size = np.full((f.batch, 2), (f.height, f.width), np.int32)
    batch = {"image": _job(config).images(), "label": _job(config).labels(), "size": size}
    return run, (state.create(variables, optimizer), batch, step.numbers(optimizer, 0, 0))


def inference(config, model, variables):
    folded = folding.folded(model)
    images = np.asarray(models.normalize(jnp.asarray(_job(config).images())))

    def run(variables, images):
        outputs: Any = folded.apply(variables, images)
        return outputs.logits

    return run, (folding.fold(variables), images)


def main(_) -> None:
    if flags.FLAGS.gpu:
        gpu_report.header()
    for title, config in gpu_program.experiments():
        if flags.FLAGS.gpu:
            compile_for_gpu(title, config)
        else:
            time_on_cpu(f"{flags.FLAGS.show} {config.model.head}", config)


if __name__ == "__main__":
    app.run(main)
