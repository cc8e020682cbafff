"""Checks an experiment before it costs time: data, settings, disk, devices, memory."""

import platform
import shutil
import time
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from fastfcn_jax import pictures, runtime
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.data import cache, datasets, pipeline, pixel_type, sets
from fastfcn_jax.data.augment import steps
from fastfcn_jax.doctor import balance, checks
from fastfcn_jax.doctor.checks import Finding
from fastfcn_jax.errors import UserError
from fastfcn_jax.files import name_of, write_image
from fastfcn_jax.training import assembly, strategy
from fastfcn_jax.weights import store

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "opencv-python-headless")


def examine(
    config: ConfigDict,
    *,
    samples: int,
    checkpoint: str | Path | None = None,
    workdir: Path = Path("runs"),
) -> list[Finding]:
    """All findings about an experiment; those of level "problem" would stop or ruin a run."""
    found = environment()
    sources, surveys = {}, {}
    for split in (config.data.train_split, config.data.val_split):
        try:
            if split == config.data.train_split:
                sources[split] = sets.load_training(config.data)
            else:
                sources[split] = datasets.open_split(config.data, split)
        except UserError as error:
            found.append(Finding("problem", f"{split}: {error}", "see docs/datasets.md"))
    for split, source in sources.items():
        survey = checks.survey(source, max_images=samples, threads=config.data.threads)
        surveys[split] = survey
        found.append(Finding("ok", f"{split}: {len(source)} images with labels"))
        found += checks.findings(source, survey, tuple(config.data.crop_size))
        if split == config.data.train_split:
            counts = survey.counts[: source.info.num_classes].tolist()
            found += balance.findings(config, source.info.class_names, counts)
        print(f"{split}: share of pixels\n{checks.histogram(source.info.class_names, survey)}\n")
    source = sources.get(config.data.train_split)
    if source is not None:
        found += class_count(config, source)
        found += disk(config, len(source), surveys[config.data.train_split].sizes)
        problems = any(f.level == "problem" for f in found)
        found += [] if problems else [*loading(config, source), *memory(config, source, workdir)]
        if checkpoint is not None:
            found += fitting(store.checkpoint(checkpoint), source)
    return found


def environment() -> list[Finding]:
    """Versions and devices."""
    versions = ", ".join(f"{p} {_version(p)}" for p in PACKAGES)
    devices = ", ".join(sorted({f"{d.device_kind}" for d in jax.devices()}))
    found = [
        Finding("ok", f"Python {platform.python_version()}, {versions}"),
        Finding("ok", f"{jax.device_count()} device(s): {devices}"),
    ]
    if runtime.has_unused_gpu():
        found.append(
            Finding(
                "problem",
                "there is an NVIDIA driver, but JAX runs on the CPU",
                'pip install "jax[cuda13]" (or cuda12, after the driver\'s version)',
            )
        )
    return found


def class_count(config: ConfigDict, source: datasets.Source) -> list[Finding]:
    """Compares the model's class count with the data set's."""
    wanted, has = config.model.num_classes, source.info.num_classes
    if wanted == 1 and has == 2:
        return [Finding("ok", f"2 classes, by one channel above {config.model.threshold}")]
    if wanted and wanted != has:
        return [
            Finding(
                "problem",
                f"config.model.num_classes is {wanted}, the data set has {has} classes",
                "--config.model.num_classes=0 follows the data set",
            )
        ]
    return [Finding("ok", f"{has} classes")]


def disk(config: ConfigDict, images: int, sizes: list[tuple[int, int]]) -> list[Finding]:
    """Disk space for the decoded cache of `images` images, estimated from some `sizes`."""
    if not sizes:
        return []
    pixels = images * np.prod(sizes, axis=1).mean()
    needed = pixels * cache.bytes_per_pixel(pixel_type.of(config.data)) / 1e9
    if not config.data.cache:
        return [Finding("ok", f"no decoded cache is set; it would take {needed:.1f} GB")]
    free = _free(Path(config.data.cache)) / 1e9
    if needed > free:
        return [
            Finding(
                "problem",
                f"the decoded cache takes {needed:.1f} GB, {config.data.cache} has {free:.1f} free",
                "--config.data.cache=DIR on another disk, or =''",
            )
        ]
    return [Finding("ok", f"the decoded cache takes {needed:.1f} of {free:.1f} GB free")]


def loading(config: ConfigDict, source: datasets.Source, seconds: float = 4.0) -> list[Finding]:
    """Samples per second from the loader on this machine, measured for some seconds."""
    stream = pipeline.build_train(config, source)
    next(stream)
    count, start = 0, time.monotonic()
    while time.monotonic() - start < seconds:
        next(stream)
        count += config.train.batch_size
    rate = count / (time.monotonic() - start)
    return [
        Finding(
            "ok",
            f"the loader gives {rate:.0f} samples per second"
            + (" from the files, before there is a cache" if config.data.cache else "")
            + f": enough for steps of {1e3 * config.train.batch_size / rate:.0f} ms and longer",
            "" if config.data.cache else "--config.data.cache=DIR --config.data.crop_first=True",
        )
    ]


def memory(config: ConfigDict, source: datasets.Source, workdir: Path) -> list[Finding]:
    """Device memory of the training step by XLA's own analysis, and disk for its checkpoints."""
    plan = strategy.choose(config.train.strategy, config.train.batch_size)
    built = assembly.build(config, source, plan)
    height, width = config.data.crop_size
    count, pixel = config.train.batch_size, pixel_type.of(config.data)
    batch = {
        "image": np.zeros((count, height, width, pixel.channels), pixel.dtype),
        "label": np.zeros((count, height, width), np.uint8),
        "size": np.full((count, 2), (height, width), np.int32),
        **steps.device_nothing(config.data, count),
    }
    if config.train.accumulate > 1:
        batch = {k: np.stack([x] * config.train.accumulate) for k, x in batch.items()}
    placed = plan.put_batch(batch, accumulate=config.train.accumulate)
    state = plan.put_state(built.state)
    compiled = built.train_step.lower(state, placed, built.numbers(0)).compile()
    found = [checkpoints(sum(x.nbytes for x in jax.tree.leaves(built.state)), workdir)]
    analysis = compiled.memory_analysis()
    if analysis is None:
        return [*found, Finding("note", "this backend does not report the step's memory")]
    kept = analysis.argument_size_in_bytes + analysis.output_size_in_bytes
    needed = analysis.temp_size_in_bytes + kept - analysis.alias_size_in_bytes
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    text = f"the training step takes {needed / 2**30:.2f} GiB on each device"
    if limit is None:
        return [*found, Finding("ok", text)]
    text += f", which has {limit / 2**30:.1f}"
    if needed > limit:
        remedy = (
            "--config.train.accumulate=2 with half the batch size, or --config.model.remat=True"
        )
        return [*found, Finding("problem", text, remedy)]
    return [*found, Finding("ok", text)]


def checkpoints(size: int, workdir: Path) -> Finding:
    """Disk space for the checkpoints that a run keeps: two latest, the best, one being written."""
    needed, free = 4 * size / 1e9, _free(workdir) / 1e9
    text = f"checkpoints take up to {needed:.1f} GB; {workdir} has {free:.1f} GB free"
    if needed > free:
        return Finding("problem", text, "--workdir on another disk")
    return Finding("ok", text)


def fitting(folder: Path, source: datasets.Source) -> list[Finding]:
    """Compares a trained model's classes with the data set's."""
    names = tuple(model_folder.read_card(folder)["dataset"]["class_names"])
    if names == tuple(source.info.class_names):
        return [Finding("ok", f"{folder} was trained on these {len(names)} classes")]
    return [
        Finding(
            "problem",
            f"{folder} has {len(names)} classes ({', '.join(names[:4])} ...), the data set "
            f"{source.info.num_classes}, or others",
            "evaluate on the data set it was trained on; to train on from it: "
            "--config.init.checkpoint with --config.init.reset_head=True",
        )
    ]


def draw(config: ConfigDict, folder: Path, count: int = 8) -> None:
    """Saves augmented training samples next to their labels in colour."""
    if config.data.device_augmentation:  # the host draws the same numbers, and saves what comes out
        config = config.copy_and_resolve_references()
        config.data.device_augmentation = False
        config.data.crop_first = False  # which the host takes only together with a flip
        print("distorted on the host, up to rounding as on the device (data.device_augmentation)")
    source = sets.load_training(config.data)
    folder.mkdir(parents=True, exist_ok=True)
    stream = pipeline.build_train(config, source)
    for number in range(count):
        if number % config.train.batch_size == 0:
            batch = next(stream)
        place = number % config.train.batch_size
        image, label = batch["image"][place], batch["label"][place]
        both = np.hstack([pictures.as_rgb(image), pictures.colorize(label, source.info.palette)])
        labels = np.hstack([label, label])  # the legend counts shares of all pixels
        picture = pictures.with_legend(both, labels, source.info.class_names, source.info.palette)
        name = name_of(source.ids[int(batch["index"][place])])
        write_image(folder / f"{number}_{name}.png", picture)
    print(f"{count} augmented samples in {folder}")


def report(found: list[Finding]) -> int:
    """Prints the findings; the exit status is 1 if there is a problem among them."""
    for level, text, remedy in found:
        print(f"{level.upper() if level == 'problem' else level:8}{text}")
        if remedy:
            print(f"{'':8}-> {remedy}")
    problems = sum(f.level == "problem" for f in found)
    print(f"\n{problems} problem(s)" if problems else "\nnothing prevents a run")
    return int(problems > 0)


def _free(folder: Path) -> int:
    """Bytes free on the disk that a folder is or will be on."""
    folder = folder.absolute()
    return shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(absent)"
