"""A three-layer model and a tiny experiment on generated scenes; as a script, trains it.

python tests/tiny.py --config=tests/tiny.py[:variant] --workdir=DIR [--config.train.steps=8]

It is `train.py`, or with TINY_COMMAND=evaluation `eval.py`, with another model, which compiles in a
second or two: the tests of interruptions and of several processes start many processes.
"""

import functools
import importlib
import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # Python puts the script's folder first on the path
    sys.path.insert(0, str(ROOT))
    sys.path.remove(str(ROOT / "tests"))


def get_config(variant: str = ""):
    from fastfcn_jax.config.base import get_config as base

    c = base()
    c.data.update(
        name="synthetic",
        crop_size=(32, 48),
        resize_scale=(64, 48),
        ratio_range=(0.75, 1.5),
        test_scale=(64, 48),
        threads=2,
    )
    c.model.dropout = 0.1
    c.optim.lr = 0.05
    c.train.update(steps=24, batch_size=4, log_every=5, eval_every=10, save_every=4, pictures=0)
    c.eval.max_images = 4
    if variant == "official":
        c.model.lineage = "official"
        c.loss.normalization = "valid_pixels"
    return c


def config(**train):
    """Twelve steps of the tiny experiment with a few checkpoints and evaluations."""
    c = get_config()
    c.train.update(**{"steps": 12, "eval_every": 6, "save_every": 4, **train})
    return c


def history(workdir, kind="train"):
    """The logged records of one kind."""
    from fastfcn_jax.training import metrics_log

    return [r for r in metrics_log.read(workdir / "metrics.jsonl") if r["kind"] == kind]


def losses(workdir):
    """The logged loss of every step."""
    return [loss for record in history(workdir) for loss in record["losses"]]


def build(config, num_classes, *, axis_name=None, **_):
    """Replaces `models.build`: BatchNorm, dropout, and the names of the real networks."""
    import flax.linen as nn
    import jax.numpy as jnp

    from fastfcn_jax.models import Outputs, layers, two_classes

    common = layers.Common(dtype=jnp.dtype(config.precision), axis_name=axis_name)
    one_channel = config.num_classes == 1

    class Backbone(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            for name, features, stride in (("layer1_0", 8, 4), ("layer4_0", 12, 2)):
                x = layers.Conv(features, common, 3, stride=stride, name=f"{name}_conv")(x)
                x = nn.relu(layers.BatchNorm(common, name=f"{name}_bn")(x, train=train))
            return x

    class Head(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            x = nn.Dropout(config.dropout, broadcast_dims=(1, 2))(x, deterministic=not train)
            outputs = 1 if one_channel else num_classes
            conv = layers.Conv(outputs, common, use_bias=True, name="conv_seg")
            return conv(x).astype(jnp.float32)

    class Tiny(nn.Module):
        threshold: float | None = config.threshold if one_channel else None

        def setup(self):
            self.backbone = Backbone()
            self.decode_head, self.auxiliary_head = Head(), Head()

        def __call__(self, images, *, train=False, size=None, auxiliary=False):
            x = self.backbone(images, train=train)
            scores = None
            if train or auxiliary or self.is_initializing():
                scores = self.auxiliary_head(x, train=train)
            logits = self.decode_head(x, train=train)
            if one_channel and not train:
                logits = two_classes(logits)
            return Outputs(logits, scores, None)

    return Tiny()


def fail(kind, step, every, last):
    """In place of `loop.due`: an error in step 10, or the end of the process."""
    from fastfcn_jax.errors import UserError

    if step == 10 and kind == "death":
        os.kill(os.getpid(), signal.SIGKILL)
    if step == 10:
        raise UserError("7.png is damaged") if kind == "input" else ZeroDivisionError("a bug")
    return every > 0 and (step % every == 0 or step == last)


def fail_to_count(kind, *_):
    """In place of `evaluate._count`: an error, or the end of the process."""
    from fastfcn_jax.errors import UserError

    if kind == "input":
        raise UserError("7.png is damaged")
    os.kill(os.getpid(), signal.SIGKILL)


def main():
    import jax

    # Number of virtual devices of this process, which tests of several processes choose.
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", int(os.environ.get("TINY_DEVICES", "1")))
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    from fastfcn_jax import models, peers
    from fastfcn_jax.evaluation import evaluate
    from fastfcn_jax.training import loop

    models.build = build
    if silence := os.environ.get("TINY_SILENCE"):
        peers.BEAT, peers.SILENCE = float(silence) / 4, float(silence)
    if failure := os.environ.get("TINY_FAILURE"):
        loop.due = functools.partial(fail, failure)
        evaluate._count = functools.partial(fail_to_count, failure)
    command = os.environ.get("TINY_COMMAND", "training")
    sys.exit(importlib.import_module(f"fastfcn_jax.{command}.__main__").COMMAND.main())


if __name__ == "__main__":
    main()
