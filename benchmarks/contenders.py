"""The two sides of `versus_mmseg.py`, each running in a process of its own.

A contender is named by its side and options joined by `+`:

mmseg                  mmsegmentation 1.2.2 as shipped: its own `train_step` and `test_step`, eager
mmseg+channels_last    the same network in NHWC memory, called directly, its losses written out
mmseg+...+compile      ... under `torch.compile` (constants frozen for inference)
mmseg+...+bf16         ... under bfloat16 autocast
mmseg+...+cudagraphs   ... compiled with mode="reduce-overhead", a GPU's launches put into graphs
ours                   this package, float32
ours+bf16              this package, `config.model.precision = "bfloat16"`
ours@DIR               this package as another checkout has it, by the `contenders.py` of that one
"""

import contextlib
import dataclasses
import importlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # the package uninstalled; the mmseg importer

LR = 1e-6  # on random weights a real rate diverges, and rounding with it; the work is the same
LOSSES = 3  # training steps whose losses are compared


@dataclasses.dataclass(frozen=True)
class Job:
    """What all contenders of one comparison do.

    mode: forward (normalised images on the device -> logits at 1/8), inference (uint8 on the
        host -> class map on the host, at the image's size) or train (one step, batch on device).
    weights: .npz of mmseg's state dict, the same for all.
    """

    head: str
    mode: str
    height: int
    width: int
    batch: int
    num_classes: int
    gpu: bool
    weights: str

    def images(self) -> np.ndarray:
        shape = (self.batch, self.height, self.width, 3)
        return np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    def labels(self) -> np.ndarray:
        """Squares of random classes; a tenth of them is to be ignored."""
        rng = np.random.default_rng(1)
        shape = (self.batch, -(-self.height // 32), -(-self.width // 32))
        classes = rng.integers(0, self.num_classes, shape, np.uint8)
        classes[rng.random(shape) < 0.1] = 255
        large = classes.repeat(32, 1).repeat(32, 2)
        return np.ascontiguousarray(large[:, : self.height, : self.width])


@dataclasses.dataclass
class Contender:
    """run(n) does n iterations and waits for them; evidence is what the sides must agree on."""

    run: Callable[[int], None]
    evidence: np.ndarray
    peak_bytes: Callable[[], int]


def serve(name: str, job: Job, pipe) -> None:
    """Builds a contender and answers each number n with the seconds that n iterations took."""
    name, _, folder = name.partition("@")
    if folder:
        sys.path.insert(0, f"{folder}/benchmarks")
        del sys.modules["contenders"]
        importlib.import_module("contenders").serve(name, job, pipe)
        return
    start = time.perf_counter()
    contender = build(name, job)
    contender.run(2)
    _forget_peak(name, job.gpu)
    pipe.send((time.perf_counter() - start, contender.evidence))
    while n := pipe.recv():
        start = time.perf_counter()
        contender.run(n)
        pipe.send(time.perf_counter() - start)
    pipe.send((contender.peak_bytes(), _versions(name, job.gpu)))


def build(name: str, job: Job) -> Contender:
    side, *options = name.split("+")
    return {"mmseg": _mmseg, "ours": _ours}[side](job, options)


def write_weights(job: Job) -> None:
    """Stores a randomised mmseg model's state dict as the weights of both sides."""
    import oracle

    model = oracle.randomize(_mmseg_model(job), seed=0)
    np.savez(job.weights, **oracle.tensors_of(model))


def _mmseg_model(job: Job):
    import oracle

    config = oracle.mmseg_config(
        f"fastfcn/fastfcn_r50-d32_jpu_{job.head}_4xb2-80k_cityscapes-512x1024"
    )
    config.model.data_preprocessor.update(size=None, size_divisor=1)
    heads = {"dropout_ratio": 0.0, "num_classes": job.num_classes}
    return oracle.build_mmseg(config, decode_head=heads, auxiliary_head=heads)


def _mmseg(job: Job, options: list[str]) -> Contender:
    import torch

    torch.backends.cudnn.benchmark = True  # as its shipped configs set it
    device = torch.device("cuda" if job.gpu else "cpu")
    model = _mmseg_model(job)
    with np.load(job.weights) as weights:
        model.load_state_dict({key: torch.from_numpy(weights[key]) for key in weights})
    model = model.to(device).train(job.mode == "train")
    build = _mmseg_shipped if not options else _mmseg_tuned
    run, evidence = build(job, options, model, device)

    def timed(n):
        run(n)
        if job.gpu:
            torch.cuda.synchronize()

    peak = torch.cuda.max_memory_allocated if job.gpu else _peak_rss
    return Contender(timed, evidence(), peak)


def _mmseg_shipped(job, options, model, device):
    """Its runner's calls: data preprocessor, losses with accuracy, OptimWrapper, data samples."""
    import oracle
    import torch
    from mmengine.optim import OptimWrapper

    # Its loader hands over BGR, channels first.
    bgr = torch.from_numpy(np.ascontiguousarray(job.images()[..., ::-1].transpose(0, 3, 1, 2)))
    labels = torch.from_numpy(job.labels().astype(np.int64)).to(device)
    samples = [oracle.data_sample(label) for label in labels]

    if job.mode == "train":
        data = {"inputs": list(bgr.to(device)), "data_samples": samples}
        optim = OptimWrapper(torch.optim.SGD(model.parameters(), LR, 0.9, weight_decay=5e-4))

        def run(n):
            return [model.train_step(data, optim)["loss"] for _ in range(n)]

        return run, lambda: np.array([loss.item() for loss in run(LOSSES)])

    data = {"inputs": list(bgr), "data_samples": samples}
    with torch.inference_mode():
        normalised = model.data_preprocessor(data, False)["inputs"]

    @torch.inference_mode()
    def forward():
        scores = model(normalised)
        return scores[0] if isinstance(scores, tuple) else scores

    @torch.inference_mode()
    def inference():
        results = model.test_step({"inputs": list(bgr), "data_samples": samples})
        return [result.pred_sem_seg.data.byte().cpu() for result in results]

    return _repeat(forward if job.mode == "forward" else inference), _as_logits(forward)


def _mmseg_tuned(job, options, model, device):
    """The same network called directly, with what a PyTorch user would switch on."""
    import torch
    import torch.nn.functional as F

    layout = torch.channels_last if "channels_last" in options else torch.contiguous_format
    model = model.to(memory_format=layout)
    if job.gpu:  # its default leaves float32 matrix products untouched
        torch.backends.cuda.matmul.allow_tf32 = True
    precise = contextlib.nullcontext
    if "bf16" in options:

        def precise():
            return torch.autocast(device.type, torch.bfloat16)

    mean, std = (
        torch.tensor(values, device=device).view(1, 3, 1, 1)
        for values in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    )

    def normalise(images):  # uint8 RGB, NHWC in memory
        x = images.permute(0, 3, 1, 2)
        return ((x - mean) / std).contiguous(memory_format=layout)

    def network(x):
        scores = model.decode_head(model.extract_feat(x))
        return scores[0] if isinstance(scores, tuple) else scores

    def upsample(logits):
        return F.interpolate(logits.float(), (job.height, job.width), mode="bilinear")

    def loss(images, labels, presence):
        features = model.extract_feat(normalise(images))
        scores = model.decode_head(features)
        scores, se = scores if isinstance(scores, tuple) else (scores, None)
        auxiliary = model.auxiliary_head(features)
        total = 0.0
        for logits, weight in ((scores, 1.0), (auxiliary, 0.4)):
            entropy = F.cross_entropy(upsample(logits), labels, ignore_index=255, reduction="none")
            total = total + weight * entropy.mean()
        if se is not None:
            total = total + 0.2 * F.binary_cross_entropy_with_logits(se.float(), presence)
        return total

    graphs = "cudagraphs" in options

    def compiled(function):
        if "compile" not in options:
            return function
        return torch.compile(function, mode="reduce-overhead" if graphs else None)

    def begin():  # the results of the iteration before may be overwritten; they were taken
        if graphs:
            torch.compiler.cudagraph_mark_step_begin()

    images = torch.from_numpy(job.images())
    if job.mode == "train":
        labels = job.labels()
        presence = [np.bincount(x.ravel(), minlength=256)[: job.num_classes] > 0 for x in labels]
        presence = torch.from_numpy(np.stack(presence).astype(np.float32)).to(device)
        labels = torch.from_numpy(labels.astype(np.int64)).to(device)
        images = images.to(device)
        optimizer = torch.optim.SGD(
            model.parameters(), LR, 0.9, weight_decay=5e-4, fused=job.gpu or None
        )
        loss = compiled(loss)

        def step():
            optimizer.zero_grad(set_to_none=True)
            begin()
            with precise():
                value = loss(images, labels, presence)
            value.backward()
            optimizer.step()
            return value.detach()

        return _repeat(step), lambda: np.array([step().item() for _ in range(LOSSES)])

    if "compile" in options:
        import torch._inductor.config

        torch._inductor.config.freezing = True  # folds BatchNorm, packs weights
    model.requires_grad_(False)
    network = compiled(network)
    classes = compiled(lambda logits: upsample(logits).argmax(1).byte())
    prepare = compiled(normalise)
    with torch.no_grad():
        normalised = normalise(images.to(device))

    @torch.no_grad()  # freezing does not work under inference_mode
    def forward():
        begin()
        with precise():
            return network(normalised)

    @torch.no_grad()
    def inference():
        begin()
        with precise():
            return classes(network(prepare(images.to(device)))).cpu()

    return _repeat(forward if job.mode == "forward" else inference), _as_logits(forward)


def _repeat(function):
    def run(n):
        for _ in range(n):
            function()

    return run


def _as_logits(forward):
    return lambda: forward().float().permute(0, 2, 3, 1).cpu().numpy()


def _ours(job: Job, options: list[str]) -> Contender:
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the other side needs memory too
    import jax

    if not job.gpu:
        jax.config.update("jax_platforms", "cpu")
    from fastfcn_jax import models
    from fastfcn_jax.config import base
    from fastfcn_jax.convert import mmseg_names
    from fastfcn_jax.models import folding

    config = base.get_config()
    config.model.update(head=job.head, dropout=0.0, se_branch=job.head == "enc")
    config.model.precision = "bfloat16" if "bf16" in options else "float32"
    config.optim.lr = config.optim.end_lr = LR
    with np.load(job.weights) as weights:
        variables = mmseg_names.to_flax(dict(weights))
    device = jax.devices()[0]
    peak = (lambda: device.memory_stats()["peak_bytes_in_use"]) if job.gpu else _peak_rss
    if job.mode == "train":
        run, losses = _our_training(job, config, variables)
        return Contender(run, losses, peak)

    variables = jax.device_put(variables)
    model = models.build(config.model, job.num_classes)
    folded, model_folded = folding.fold(variables), folding.folded(model)  # as Predictor does
    normalised = jax.device_put(models.normalize(jax.numpy.asarray(job.images())))
    network = jax.jit(lambda variables, images: model_folded.apply(variables, images).logits)
    logits = np.asarray(network(folded, normalised))

    def forward(n):
        for _ in range(n):
            result = network(folded, normalised)
        result.block_until_ready()

    if job.mode == "forward":
        return Contender(forward, logits, peak)
    from fastfcn_jax.inference import predictor, protocols

    protocol = protocols.build("single", test_scale=(job.width, job.height))
    model_predictor = predictor.Predictor(model, variables, protocol=protocol)
    images = list(job.images())

    def infer(n):
        for _ in range(n):
            for image in images:
                model_predictor(image)

    return Contender(infer, logits, peak)


def _our_training(job, config, variables):
    """variables: on the host, for the state is a copy, and theirs would count as its memory."""
    from fastfcn_jax import models
    from fastfcn_jax.data import malloc
    from fastfcn_jax.training import optim, state, step, strategy

    spread = strategy.choose("pmap", job.batch)
    model = models.build(config.model, job.num_classes, axis_name=strategy.AXIS)
    optimizer = optim.build(config, variables)
    train_step = spread.compile(
        step.make_train_step(
            model,
            optimizer,
            num_classes=job.num_classes,
            loss={},
            axis_name=strategy.AXIS,
        )
    )
    size = np.full((job.batch, 2), (job.height, job.width), np.int32)
    batch = spread.put_batch({"image": job.images(), "label": job.labels(), "size": size})
    current = spread.put_state(state.create(variables, optimizer))
    losses = []
    for index in range(LOSSES):
        current, metrics = train_step(current, batch, step.numbers(optimizer, 0, index))
        losses.append(float(metrics["loss"]))
        if index == 0:  # as `training.loop` does
            malloc.release_freed()

    def run(n):
        nonlocal current
        for _ in range(n):
            current, metrics = train_step(current, batch, step.numbers(optimizer, 0, LOSSES))
        metrics["loss"].block_until_ready()

    return run, np.array(losses)


def _forget_peak(name: str, gpu: bool) -> None:
    """Leaves out of the peak what starting took, as cuDNN's trials of algorithms do.

    JAX cannot forget its own on a GPU: it holds what compiling tried out, too.
    """
    if gpu and name.startswith("mmseg"):
        import torch

        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_rss() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def _versions(name: str, gpu: bool) -> dict[str, str]:
    if name.startswith("ours"):
        import jax

        return {"jax": jax.__version__, "device": jax.devices()[0].device_kind}
    import torch

    name = torch.cuda.get_device_name() if gpu else torch.backends.cpu.get_cpu_capability()
    return {"torch": torch.__version__, "device": name}
