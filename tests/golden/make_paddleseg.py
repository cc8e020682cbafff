"""Runs PaddleSeg's FastFCN and keeps what its model, losses, optimiser and test protocols compute.

PYTHONPATH=PADDLESEG python tests/golden/make_paddleseg.py [FILE.pdparams]

PADDLESEG is a checkout of https://github.com/PaddlePaddle/PaddleSeg (d7975e7; its release 2.8.0
cannot compute its losses with Paddle 3). Needs paddlepaddle (3.3.1 was used) and what PaddleSeg
needs. Weights and images are drawn by `tests/paddleseg_case.py`, so only outputs are stored:
`paddleseg.npz`, read by `tests/models/test_paddleseg.py`. With FILE the same is done at the
published width, for a comparison by hand, and FILE gets the weights.
"""

import inspect
import sys
from pathlib import Path

import numpy as np
import paddle

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import paddleseg_case as case  # noqa: E402
from paddleseg.core import infer  # noqa: E402
from paddleseg.models import losses  # noqa: E402
from paddleseg.models.backbones import resnet_vd  # noqa: E402
from paddleseg.models.fastfcn import FastFCN  # noqa: E402


def build(small: bool):
    """PaddleSeg's own model; for a small one the numbers in its source are replaced."""
    channels = case.CHANNELS if small else 512
    backbone = resnet_vd.ResNet50_vd(output_stride=8)
    if small:
        source = inspect.getsource(resnet_vd)
        for old, new in (
            ("num_filters = [64, 128, 256, 512]", [case.WIDTH * 2**i for i in range(4)]),
            ("num_channels = [64, 256, 512,\n                        1024]", None),
            ("depth = [3, 4, 6, 3]", f"depth = {list(case.BLOCKS)}"),
            ("out_channels=32,", f"out_channels={case.WIDTH // 2},"),
            ("in_channels=32,", f"in_channels={case.WIDTH // 2},"),
            ("out_channels=64,", f"out_channels={case.WIDTH},"),
        ):
            assert old in source, old
            if new is None:
                new = f"num_channels = {[case.WIDTH, *(4 * case.WIDTH * 2**i for i in range(3))]}"
            elif isinstance(new, list):
                new = f"num_filters = {new}"
            source = source.replace(old, new)
        source = source.replace("@manager.BACKBONES.add_component", "")
        scope = {"__name__": "small"}
        exec(source, scope)  # their file with other numbers
        backbone = scope["ResNet50_vd"](output_stride=8)
    classes = case.NUM_CLASSES if small else 150
    model = FastFCN(classes, backbone, mid_channels=channels, add_lateral=True)
    state = model.state_dict()
    kind = paddle.get_default_dtype()
    values = {n: case.tensor(n, tuple(v.shape)).astype(kind) for n, v in state.items()}
    model.set_state_dict(values)
    return model, values


def to_paddle(images: np.ndarray):
    return paddle.to_tensor(images.transpose(0, 3, 1, 2).astype(paddle.get_default_dtype()))


def to_numpy(value) -> np.ndarray:
    value = value.numpy()
    return value.transpose(0, 2, 3, 1) if value.ndim == 4 else value


def evaluate(model, results):
    """Logits of all heads before the last resize."""
    model.eval()
    kept = {}
    layers = {"logits": model.cls_seg, "fcn_input": model.backbone}
    hooks = [
        layer.register_forward_post_hook(lambda _, __, y, name=name: kept.update({name: y}))
        for name, layer in layers.items()
    ]
    encoding = model.enc_module.register_forward_post_hook(lambda _, __, y: kept.update(code=y[0]))
    for size in case.SIZES:
        with paddle.no_grad():
            model(to_paddle(case.images(size)))
            auxiliary = model.fcn_head(kept["fcn_input"][2])
            se = model.se_layer(kept["code"])
        name = f"{size[0]}x{size[1]}"
        results[f"{name}/logits"] = to_numpy(kept["logits"])
        results[f"{name}/auxiliary"] = to_numpy(auxiliary)
        results[f"{name}/se"] = to_numpy(se)
    for hook in (*hooks, encoding):
        hook.remove()


def protocols(model, results):
    """The scores of one photograph, plain and flipped, and at several scales."""
    model.eval()
    images = to_paddle((case.photo()[None] / np.float32(255) - 0.5) / 0.5)
    with paddle.no_grad():
        for name, scales in (("flip", 1.0), ("paddleseg_ms", list(case.RATIOS))):
            labels, scores = infer.aug_inference(
                model, images, [], scales=scales, flip_horizontal=True
            )
            results[f"{name}/labels"] = labels.numpy()[0, 0].astype(np.uint8)
            results[f"{name}/scores"] = case.sample(to_numpy(scores), 1000)


def train(results):
    """One step of the recipe's losses and optimiser in float64, without dropout."""
    paddle.set_default_dtype("float64")
    model, _ = build(small=True)
    model.train()
    model.fcn_head.dropout.p = 0.0
    before = {n: v.numpy().copy() for n, v in model.state_dict().items()}
    images, labels = case.training_batch()
    target = paddle.to_tensor(labels.astype(np.int64))
    terms = (losses.CrossEntropyLoss(), losses.CrossEntropyLoss(), losses.SECrossEntropyLoss())
    parts = [
        term(outputs, target) for term, outputs in zip(terms, model(to_paddle(images)), strict=True)
    ]
    loss = parts[0] + 0.4 * parts[1] + 0.2 * parts[2]
    loss.backward()
    optimizer = paddle.optimizer.Momentum(
        learning_rate=0.01, momentum=0.9, weight_decay=4e-5, parameters=model.parameters()
    )
    optimizer.step()
    paddle.set_default_dtype("float32")
    results["train/losses"] = np.array([float(part) for part in parts])
    moved = {n: v.numpy() - before[n] for n, v in model.state_dict().items()}
    names = sorted(moved)
    results["train/names"] = np.array(names)
    results["train/norms"] = np.array([np.linalg.norm(moved[n]) for n in names])
    results["train/samples"] = np.concatenate([case.sample(moved[n]) for n in names])


def main(*arguments: str) -> None:
    results: dict[str, np.ndarray] = {}
    model, values = build(small=not arguments)
    evaluate(model, results)
    protocols(model, results)
    if arguments:
        paddle.save(model.state_dict(), arguments[0])
        np.savez(arguments[0] + ".npz", **results)
        return
    train(results)
    results["names"] = np.array([f"{n} {v.shape}" for n, v in sorted(values.items())])
    np.savez_compressed(HERE / "paddleseg.npz", **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
