r"""What XLA makes of this package on an H200, read from the compiled program; needs no GPU.

The compiler for CUDA is part of jax's plugin; put it beside the environment, not into it, with
NVIDIA's assembler for registers, spills and issue floors:

pip install --no-deps --target=DIR jax-cuda12-plugin==VERSION jax-cuda12-pjrt==VERSION  # jax's own
pip install --no-deps --target=DIR nvidia-cuda-nvcc-cu12  # CUDA 13: cuda13, nvidia-cuda-nvcc
PYTHONPATH=DIR python benchmarks/gpu_program.py --show=train --head=psp --batch=8
PYTHONPATH=DIR python benchmarks/gpu_program.py --show=inference --batch=1 \
    --height=1024 --width=2048
PYTHONPATH=DIR python benchmarks/gpu_program.py --show=forms
PYTHONPATH=DIR python benchmarks/gpu_program.py --show=parallel --devices=8

Kernels, bytes, arithmetic and memory are those of the program. Times are floors, not measurements:
the sum over all kernels of the largest of arithmetic over the attainable rate, bytes over the
attainable bandwidth, and instructions over the rate at which they are issued (`ptx.py`). Library
calls are those chosen without timing candidates. Below each program stand the kernels that spill
registers, and those that issue more than a third longer than they move bytes.
"""

import atexit
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # there are no CUDA libraries to check
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_autotune_level=0"
# From jax 0.11 on no machine code is left behind unless the emitters' files are asked for. Before,
# asking takes minutes, and on a CPU, as in `ablate.py`, it corrupts the process's memory.
os.environ["XLA_FLAGS"] += (
    " --xla_dump_emitter_re=.*"
    if int(metadata.version("jax").split(".")[1]) > 10 and os.environ.get("JAX_PLATFORMS") != "cpu"
    else ""
)
os.environ["XLA_FLAGS"] += f" --xla_dump_hlo_as_text --xla_dump_to={tempfile.mkdtemp()}"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import forms
import gpu_report
import hlo
import jax
import jax.numpy as jnp
import numpy as np
import ptx
from absl import app, flags
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from fastfcn_jax import models
from fastfcn_jax.config import base, experiment
from fastfcn_jax.inference import merge, upsampling
from fastfcn_jax.inference.network import network
from fastfcn_jax.models import folding
from fastfcn_jax.training import assembly, optim, step, strategy

DUMP = Path(os.environ["XLA_FLAGS"].rpartition("=")[2])  # of the programs compiled last
atexit.register(shutil.rmtree, DUMP)
# All-reduce bandwidth per device as NCCL's tests report it ("bus bandwidth"), bytes per second.
LINKS = {"NVLink": 360e9, "100 Gbit/s": 11e9}

flags.DEFINE_enum("show", "train", ["train", "inference", "forms", "parallel"], "What to compile.")
flags.DEFINE_list("head", ["psp", "aspp", "enc"], "psp, aspp, enc.")
flags.DEFINE_list("config", [], "In place of --head: experiments, FILE[:VARIANT].")
flags.DEFINE_list("precision", ["bfloat16"], "bfloat16, float32.")
flags.DEFINE_integer("batch", 8, "Images per device.")
flags.DEFINE_integer("height", 512, "Of the images.")
flags.DEFINE_integer("width", 1024, "Of the images.")
flags.DEFINE_integer("num_classes", 19, "Of the classifier.")
flags.DEFINE_integer("devices", 8, "For --show=parallel.")
flags.DEFINE_bool("remat", False, "Recompute each block's activations.")
flags.DEFINE_string("only", "", "For --show=forms: names that contain this.")
flags.DEFINE_integer("largest", 0, "Also list this many kernels with the highest floors.")
flags.DEFINE_string("hlo", "", "Folder to write the optimised programs to.")
flags.DEFINE_string("json", "", "File to append one JSON line per program to.")
flags.DEFINE_string("target", "nvidia_h200.txt", "Description of the device, in this folder.")


def devices(count: int) -> list:
    text = (Path(__file__).parent / flags.FLAGS.target).read_text()
    try:
        topology = topologies.get_topology_desc(
            platform="cuda", target_config=text, topology=f"1x1x{count}"
        )
    except NotImplementedError:
        version = jax.__version__
        sys.exit(
            "error: jax's CUDA plugin is missing; run pip install --no-deps --target=DIR "
            f"jax-cuda12-plugin=={version} jax-cuda12-pjrt=={version} and set PYTHONPATH=DIR."
        )
    return topology.devices


def compile_for_gpu(function: Callable, *arguments):
    """Compiles for one device; arguments are trees of arrays or shapes."""
    sharding = NamedSharding(Mesh(np.array(devices(1)), ("all",)), PartitionSpec())
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), arguments
    )
    return jax.jit(function).lower(*shapes).compile()


def describe(name: str, compiled) -> dict:
    """Prints what was read from the program that was compiled last; returns its figures."""
    text = compiled.as_text()
    if folder := flags.FLAGS.hlo:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{name.replace(' ', '_')}.txt").write_text(text)
    kernels = list(hlo.Program(text).kernels())
    launches = machine_code()
    found = {"name": name, **gpu_report.figures(kernels, launches, compiled.memory_analysis())}
    gpu_report.row(found)
    gpu_report.largest(kernels, flags.FLAGS.largest)
    gpu_report.slow(kernels, launches)
    return found


def machine_code() -> ptx.Launches:
    """The launches of the program that was compiled last; none without an assembler."""
    ptxas = ptx.assembler()
    if ptxas is None:
        return ptx.Launches((), 0)
    newest = max(DUMP.glob("*.thunk_metadata.txt"), key=lambda path: path.stat().st_mtime_ns)
    module = newest.name.removesuffix("thunk_metadata.txt")
    with tempfile.TemporaryDirectory() as folder:
        for path in DUMP.glob(f"{module}*"):
            path.rename(Path(folder) / path.name)
        return ptx.read(Path(folder), ptxas)


def experiments() -> Iterator[tuple[str, ConfigDict]]:
    """(name, configuration) of everything to compile."""
    f = flags.FLAGS
    for precision in f.precision:
        for spec in f.config or f.head:
            config = experiment.load(spec) if f.config else base.get_config()
            if not f.config:
                config.model.update(head=spec, se_branch=spec == "enc")
            config.model.update(precision=precision, remat=f.remat)
            yield f"{Path(spec).name} {precision}", config


def training(config: ConfigDict, count: int):
    """One replica's program of a step over `count` devices."""
    f = flags.FLAGS
    model = models.build(config.model, f.num_classes, axis_name=strategy.AXIS)
    images = jnp.zeros((1, 64, 64, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    optimizer = optim.build(config, variables)
    train_step = assembly.make_step(
        config, model, optimizer, f.num_classes, axis_name=strategy.AXIS
    )
    current = jax.eval_shape(lambda v: assembly.initial_state(config, v, optimizer), variables)
    pixels = (count, f.batch, f.height, f.width)
    batch = {
        "image": jax.ShapeDtypeStruct((*pixels, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct(pixels, jnp.uint8),
        "size": jax.ShapeDtypeStruct((*pixels[:2], 2), jnp.int32),
    }
    spread = strategy.Strategy("pmap", tuple(devices(count)))
    numbers = step.numbers(optimizer, 0, 0)
    return spread.compile(train_step).lower(current, batch, numbers).compile()


def inference(config: ConfigDict):
    """What the predictor runs for whole images of one size: folded network and merge in one."""
    f = flags.FLAGS
    model = folding.folded(models.build(config.model, f.num_classes))
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False)
    )
    images = jax.ShapeDtypeStruct((f.batch, f.height, f.width, 3), jnp.uint8)
    rows, columns = (
        upsampling.axis_matrices(((0, n),), n, n, -(-n // 8))[0] for n in (f.height, f.width)
    )
    padded = -(-f.height // merge.BLOCK_ROWS) * merge.BLOCK_ROWS
    rows = upsampling.stack([rows] * f.batch, padded, f.batch)
    columns = upsampling.stack([upsampling.taps_of(columns)] * f.batch, f.width, f.batch)

    def classes(variables, images, rows, columns):
        logits = network(model, variables, images, None)
        return merge.merge([logits], [rows], [columns], softmax=False).labels

    return compile_for_gpu(classes, variables, images, rows, columns)


def parallel(name: str, config: ConfigDict) -> dict:
    """A step over many devices: what it sends, and how much of that under other work."""
    f = flags.FLAGS
    compiled = training(config, f.devices)
    found = describe(f"{name} on {f.devices}", compiled)
    transfers = hlo.Program(compiled.as_text()).transfers(gpu_report.H200)
    gradients = [t for t in transfers if t.bytes >= 1e6]  # BatchNorm's statistics are smaller
    found["collectives"] = len(transfers)
    found["communicated_mb"] = sum(t.bytes for t in transfers) / 1e6
    found["statistics_mb"] = found["communicated_mb"] - sum(t.bytes for t in gradients) / 1e6
    print(
        f"    {len(transfers)} collectives, {found['communicated_mb']:.1f} MB per device and step; "
        f"{len(transfers) - len(gradients)} below 1 MB, of statistics, have "
        f"{found['statistics_mb']:.2f} MB"
    )
    for t in gradients:
        print(f"    {t.bytes / 1e6:6.1f} MB from {1e3 * t.start:6.2f} to {1e3 * t.end:6.2f} ms")
    for link, bandwidth in LINKS.items():
        factor = 2 * (f.devices - 1) / f.devices / bandwidth  # of a ring all-reduce
        seconds = [(t.bytes * factor, t.hidden) for t in transfers]
        exposed = sum(max(needed - hidden, 0.0) for needed, hidden in seconds)
        total = sum(needed for needed, _ in seconds)
        compute = found["floor_ms"] / 1e3 / 0.6
        found[link] = {
            "communication_ms": 1e3 * total,
            "exposed_ms": 1e3 * exposed,
            "efficiency_exposed": compute / (compute + exposed),
            "efficiency_none_hidden": compute / (compute + total),
        }
        print(
            f"    {link}: {1e3 * total:.2f} ms of transfers, {1e3 * exposed:.2f} ms not under "
            f"other work; efficiency {found[link]['efficiency_exposed']:.3f} "
            f"({found[link]['efficiency_none_hidden']:.3f} if none were hidden), "
            "computing at 60 % of the floors"
        )
    return found


def main(_) -> None:
    f = flags.FLAGS
    gpu_report.header()
    found = []
    if f.show == "forms":
        for name, function, arguments in forms.all_forms(f.num_classes):
            if f.only in name:
                found.append(describe(name, compile_for_gpu(function, *arguments)))
    else:
        for name, config in experiments():
            if f.show == "parallel":
                found.append(parallel(name, config))
            else:
                compiled = training(config, 1) if f.show == "train" else inference(config)
                size = f"{f.batch}x{f.height}x{f.width}"
                found.append(describe(f"{f.show} {name} {size}", compiled))
    if f.json:
        with open(f.json, "a") as file:
            file.writelines(json.dumps(row) + "\n" for row in found)


if __name__ == "__main__":
    app.run(main)
