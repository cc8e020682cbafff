"""Runs the official FastFCN code and keeps what its models and losses compute.

python tests/golden/make_official.py CHECKOUT [CASE ...]

CHECKOUT is a work tree of https://github.com/wuhuikai/FastFCN at master (126661b). Weights are
drawn by name (`oracle.random_tensor`), images and labels from fixed seeds, so that only outputs
are stored, and of large ones only a sample: `official.npz`, read by
`tests/models/test_official.py`. With case names, the other cases of that file stay as they are.
"""

import importlib
import sys
import types
import zlib
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import official_cases as cases  # noqa: E402
import oracle  # noqa: E402

GOLDEN = HERE / "official.npz"
CLASSES = {"enc": "EncNet", "psp": "PSP", "aspp": "DeepLabV3", "fcn": "FCN"}
MODULES = {"enc": "encnet", "psp": "psp", "aspp": "deeplabv3", "fcn": "fcn"}


def import_official(checkout: str):
    """Imports `encoding.models` without the data sets and without the CUDA extension."""
    package = types.ModuleType("encoding")
    package.__path__ = [str(Path(checkout) / "encoding")]
    sys.modules["encoding"] = package
    for name in ("functions", "nn", "dilated", "utils", "models"):
        setattr(package, name, importlib.import_module(f"encoding.{name}"))
    # Autograd functions of 2018 read their tensors by a name that PyTorch has dropped since.
    torch.autograd.function.FunctionCtx.saved_variables = property(lambda ctx: ctx.saved_tensors)
    for depth in (50, 101):
        without_pretraining(package.dilated.resnet, f"resnet{depth}")
    return package


def without_pretraining(module, name):
    original = getattr(module, name)

    def build(pretrained, root, **arguments):
        return original(**arguments)

    setattr(module, name, build)
    setattr(sys.modules["encoding.dilated"], name, build)


def build(package, case):
    module = importlib.import_module(f"encoding.models.{MODULES[case.head]}")
    model = getattr(module, CLASSES[case.head])(
        cases.NUM_CLASSES,
        f"resnet{case.depth}",
        aux=True,
        se_loss=case.head == "enc",
        jpu={"jpu": "JPU", "jpu_x": "JPU_X", "none": None}[case.neck],
        dilated=case.neck == "none",
        norm_layer=torch.nn.BatchNorm2d if case.head != "enc" else NormOfAnyRank,
        lateral=case.lateral,
    )
    return oracle.randomize(model)


class NormOfAnyRank(torch.nn.modules.batchnorm._BatchNorm):
    """The official synchronised BatchNorm takes (b, codes, c) as well as maps."""

    def _check_input_dim(self, _):
        pass


def evaluate(model, case, results):
    """Records every stage in evaluation mode, and the loss parts of these outputs."""
    images = cases.images(case)
    x = oracle.to_torch(images)
    stages, hooks = {}, []
    backbone = model.pretrained
    named = {
        "stem": backbone.relu,
        **{f"c{i + 1}": getattr(backbone, f"layer{i}") for i in range(1, 5)},
    }
    for name, module in {**named, "logits": model.head, "auxiliary": model.auxlayer}.items():
        hooks.append(
            module.register_forward_hook(lambda _, __, y, name=name: stages.update({name: y}))
        )
    if model.jpu is not None:
        hooks.append(model.jpu.register_forward_hook(lambda _, __, y: stages.update(neck=y[-1])))
    with torch.no_grad():
        outputs = model(x)
    for hook in hooks:
        hook.remove()
    if isinstance(stages["logits"], tuple):
        stages["logits"], *se = stages["logits"]
        if se:
            stages["se"] = se[0]
    for name, stage in stages.items():
        value = oracle.to_numpy(stage)
        results[f"{case.name}/{name}"] = cases.sample(value, name)
        results[f"{case.name}/{name}_peak"] = np.float32(np.abs(value).max())
    labels = torch.from_numpy(cases.labels(case))
    for parts in cases.LOSS_PARTS if case.head == "enc" else cases.LOSS_PARTS[:1]:
        loss = losses(model, case, **parts)(*pick(outputs, case, **parts), labels)
        results[f"{case.name}/loss{cases.part_name(parts)}"] = np.float32(loss.item())


def losses(model, case, aux, se):
    customize = sys.modules["encoding.nn.customize"]
    return customize.SegmentationLosses(
        se_loss=se, aux=aux, nclass=cases.NUM_CLASSES, se_weight=0.2, aux_weight=0.4
    )


def pick(outputs, case, aux, se):
    seg, *rest = outputs
    picked = [seg]
    if case.head == "enc":
        picked += [rest[0]] if se else []
    picked += [rest[-1]] if aux else []
    return picked


def train(model, case, results):
    """Records one SGD step: learning rate 0.01, ten times that behind the backbone, no dropout.

    In float64: a ReLU that rounding flips moves a float32 gradient by up to 0.5 %.
    """
    model.double().train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0
    before = {key: value.detach().clone() for key, value in model.state_dict().items()}
    images, labels = cases.training_batch(case)
    outputs = model(oracle.to_torch(images).double())
    parts = {"aux": True, "se": case.head == "enc"}
    loss = losses(model, case, **parts)(*pick(outputs, case, **parts), torch.from_numpy(labels))
    loss.backward()
    rest = [p for name, p in model.named_parameters() if not name.startswith("pretrained.")]
    optimizer = torch.optim.SGD(
        [{"params": model.pretrained.parameters()}, {"params": rest, "lr": 0.1}],
        lr=0.01,
        momentum=0.9,
        weight_decay=1e-4,
    )
    optimizer.step()
    results[f"{case.name}/train_loss"] = np.float32(loss.item())
    after = model.state_dict()
    changes = [(after[key] - before[key]).numpy() for key in sorted(before) if cases.counted(key)]
    norms = [np.linalg.norm(change) for change in changes]
    results[f"{case.name}/step"] = np.array(norms, np.float32)  # in the order of the names
    samples = [cases.sample(change, "step", cases.STEP_SAMPLE) for change in changes]
    results[f"{case.name}/step_sample"] = np.concatenate(samples).astype(np.float32)


def main(checkout, *names):
    package = import_official(checkout)
    results = dict(np.load(GOLDEN)) if names else {}
    for case in cases.CASES:
        if names and case.name not in names:
            continue
        model = build(package, case)
        keys = sorted(
            f"{k} {tuple(v.shape)}" for k, v in model.state_dict().items() if cases.counted(k)
        )
        results[f"{case.name}/entries"] = np.int64(len(keys))
        results[f"{case.name}/names"] = np.int64(zlib.crc32("\n".join(keys).encode()))
        evaluate(model, case, results)
        if case.train:
            train(model, case, results)
        np.savez_compressed(GOLDEN, **results)
        print(case.name, len(keys), results[f"{case.name}/logits_peak"], flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
