"""The bugs that `mutants.py` plants: where, what stands there, what is put instead, who notices.

A text stands once in its file. The tests named are those that should notice, not all that would.
"""

from typing import NamedTuple


class Bug(NamedTuple):
    """`old` becomes `new` in `file`; one of `tests` (files or test names for pytest) must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MODELS, TRAINING = "fastfcn_jax/models/", "fastfcn_jax/training/"
DATA, INFERENCE = "fastfcn_jax/data/", "fastfcn_jax/inference/"
NARROW = "tests/models/test_narrow.py"
STEP, LOSSES, OPTIM = (f"tests/training/test_{name}.py" for name in ("step", "losses", "optim"))
OFFICIAL = "tests/models/test_official.py::test_stages_and_losses"

BUGS = (
    Bug(
        "the JPU's last dilation",
        MODELS + "jpu.py",
        "dilations: tuple[int, ...] = (1, 2, 4, 8)",
        "dilations: tuple[int, ...] = (1, 2, 4, 6)",
        (NARROW,),
    ),
    Bug(
        "the official JPU concatenates the fine map first",
        MODELS + "jpu.py",
        "maps[::-1] if self.coarse_first else maps",
        "maps",
        (f"{OFFICIAL}[fcn_jpu_r50]",),
    ),
    Bug(
        "JPU_X dilates its second unit like its first",
        MODELS + "jpu.py",
        "(2, 4, 8)",
        "(1, 2, 4)",
        (f"{OFFICIAL}[fcn_jpu_x_r50]",),
    ),
    Bug(
        "pyramid pooling in another scale",
        MODELS + "heads.py",
        "scales: tuple[int, ...] = (1, 2, 3, 6)",
        "scales: tuple[int, ...] = (1, 2, 3, 4)",
        (NARROW,),
    ),
    Bug(
        "ASPP's global mean first in both lineages",
        MODELS + "heads.py",
        "[*branches, Grid(pool)] if self.pool_last else [Grid(pool), *branches]",
        "[Grid(pool), *branches]",
        (f"{OFFICIAL}[aspp_jpu_r50]",),
    ),
    Bug(
        "ASPP's rate",
        MODELS + "heads.py",
        "(1, 12, 24, 36)",
        "(1, 6, 12, 18)",
        (NARROW,),
    ),
    Bug(
        "the code gates its projection instead of the map",
        MODELS + "heads.py",
        "nn.relu(x + x * gate[:, None, None, :])",
        "nn.relu(projected + projected * gate[:, None, None, :])",
        (NARROW,),
    ),
    Bug(
        "FCN's input behind its result",
        MODELS + "heads.py",
        "jnp.concatenate([x, y], axis=-1)",
        "jnp.concatenate([y, x], axis=-1)",
        (NARROW,),
    ),
    Bug(
        "a stage's first block dilates in full",
        MODELS + "resnet.py",
        "dilation=max(dilation // 2, 1) if i == 0 else dilation",
        "dilation=dilation",
        (NARROW,),
    ),
    Bug(
        "the stem halves in its second convolution",
        MODELS + "resnet.py",
        "stride = 2 if i == 0 else 1",
        "stride = 2 if i == 1 else 1",
        (NARROW,),
    ),
    Bug(
        "BatchNorm keeps the biased variance",
        MODELS + "layers.py",
        "unbiased = var * (count / (count - 1))",
        "unbiased = var",
        ("tests/models/test_layers.py",),
    ),
    Bug(
        "BatchNorm's momentum the other way round",
        MODELS + "layers.py",
        "0.9 * running_mean.value + 0.1 * mean",
        "0.1 * running_mean.value + 0.9 * mean",
        ("tests/models/test_layers.py",),
    ),
    Bug(
        "ignored pixels leave mmseg's denominator",
        TRAINING + "losses.py",
        "counted = counted + (1.0 - valid)",
        "pass",
        (LOSSES,),
    ),
    Bug(
        "shards weigh by their valid pixels in the official mean too",
        TRAINING + "losses.py",
        "pixels * replicas if per_shard else",
        "pixels if per_shard else",
        (LOSSES,),
    ),
    Bug(
        "the auxiliary loss unweighted",
        TRAINING + "losses.py",
        "auxiliary_weight * _mean(",
        "_mean(",
        (LOSSES,),
    ),
    Bug(
        "the SE loss summed over classes",
        TRAINING + "losses.py",
        "(over.images * num_classes)",
        "over.images",
        (LOSSES,),
    ),
    Bug(
        "hard pixels below the lower of both bounds",
        TRAINING + "losses.py",
        "jnp.maximum(kth, threshold)",
        "jnp.minimum(kth, threshold)",
        (LOSSES,),
    ),
    Bug(
        "logits enlarged without align_corners in both lineages",
        TRAINING + "losses.py",
        "labels.shape[1:], align_corners=align_corners)",
        "labels.shape[1:], align_corners=False)",
        (LOSSES,),
    ),
    Bug(
        "all replicas drop the same channels",
        TRAINING + "step.py",
        "key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))",
        "pass",
        (STEP,),
    ),
    Bug(
        "the average keeps the small part",
        TRAINING + "step.py",
        "e + (1.0 - ema_decay) * (p - e)",
        "e + ema_decay * (p - e)",
        (STEP,),
    ),
    Bug(
        "frozen BatchNorms take the batch's statistics",
        TRAINING + "step.py",
        'kwargs = {**kwargs, "train": False}',
        'kwargs = {**kwargs, "train": True}',
        (STEP,),
    ),
    Bug(
        "a step that is not finite is taken",
        TRAINING + "step.py",
        "new = _select(finite, new, state)",
        "pass",
        (STEP,),
    ),
    Bug(
        "the last step runs short of the end rate",
        TRAINING + "optim.py",
        "max(steps - 1, 1) if reaches_end else steps",
        "steps",
        (OPTIM,),
    ),
    Bug(
        "decay behind the momentum",
        TRAINING + "optim.py",
        "optax.chain(optax.add_decayed_weights(weight_decay), optax.trace(momentum))",
        "optax.chain(optax.trace(momentum), optax.add_decayed_weights(weight_decay))",
        (OPTIM,),
    ),
    Bug(
        "the heads' rate for the backbone",
        TRAINING + "optim.py",
        'head_lr_multiplier if path[0] != "backbone" else 1.0',
        'head_lr_multiplier if path[0] == "backbone" else 1.0',
        (OPTIM,),
    ),
    Bug(
        "momentum does not come back",
        TRAINING + "checkpointer.py",
        'flax.serialization.from_state_dict(template.opt_state, training["opt_state"])',
        "template.opt_state",
        ("tests/checkpoints/test_model_folder.py",),
    ),
    Bug(
        "averaged weights come back as the trained ones",
        TRAINING + "checkpointer.py",
        'training["params"] if averaged else model["params"]',
        'model["params"]',
        ("tests/checkpoints/test_model_folder.py",),
    ),
    Bug(
        "class weights of the frequent",
        TRAINING + "class_weights.py",
        "1.0 / np.log(1.02 + frequencies)",
        "np.log(1.02 + frequencies)",
        ("tests/training/test_options.py",),
    ),
    Bug(
        "a mirrored image keeps its label",
        DATA + "augment/mmseg.py",
        "cv2.flip(image, 1), cv2.flip(label, 1)",
        "cv2.flip(image, 1), label",
        ("tests/data/augment/test_mmseg.py",),
    ),
    Bug(
        "padding belongs to class 0",
        DATA + "augment/mmseg.py",
        "constant_values=IGNORE_LABEL",
        "constant_values=0",
        ("tests/data/augment/test_mmseg.py",),
    ),
    Bug(
        "contrast in its other turn",
        DATA + "augment/mmseg.py",
        "rng.integers(0, 2) == 1",
        "rng.integers(0, 2) == 0",
        ("tests/data/augment/test_mmseg.py",),
    ),
    Bug(
        "crop first mirrors the image alone",
        DATA + "augment/crop_first.py",
        "cv2.flip(label, 1) if mirrored else label",
        "label",
        ("tests/data/augment/test_crop_first.py",),
    ),
    Bug(
        "a rotation's corners belong to class 0",
        DATA + "augment/official.py",
        ", fillcolor=IGNORE_LABEL",
        "",
        ("tests/data/augment/test_official.py",),
    ),
    Bug(
        "a resumed run begins the order anew",
        DATA + "pipeline.py",
        "[start_step * count + index :: count]",
        "[index::count]",
        ("tests/data/test_pipeline.py",),
    ),
    Bug(
        "an image is augmented alike in every epoch",
        DATA + "pipeline.py",
        "np.random.default_rng((self.seed, position))",
        "np.random.default_rng((self.seed, index))",
        ("tests/data/test_pipeline.py",),
    ),
    Bug(
        "hosts read the same part of a batch",
        DATA + "pipeline.py",
        "[start_step * count + index :: count]",
        "[start_step * count :: count]",
        ("tests/data/test_pipeline.py",),
    ),
    Bug(
        "a changed file of the same size keeps the cache",
        DATA + "cache.py",
        "{name} {status.st_size} {status.st_mtime_ns}",
        "{name} {status.st_size}",
        ("tests/data/test_cache.py",),
    ),
    Bug(
        "a cache that was killed keeps its torn end",
        DATA + "cache.py",
        "pixels.truncate(end)",
        "pass",
        ("tests/data/test_cache.py",),
    ),
    Bug(
        "photographs in OpenCV's order of colours",
        DATA + "decode.py",
        "_decode(data, name, cv2.IMREAD_COLOR_RGB)",
        "_decode(data, name, cv2.IMREAD_COLOR)",
        ("tests/data/datasets", "tests/data/test_png_decoder.py"),
    ),
    Bug(
        "ignored label values are no class",
        DATA + "source.py",
        "self.table[list(ignore)] = IGNORE_LABEL",
        "pass",
        ("tests/data/datasets",),
    ),
    Bug(
        "the confusion matrix transposed",
        "fastfcn_jax/evaluation/metrics.py",
        "label * num_classes + prediction.astype(jnp.int32)",
        "prediction.astype(jnp.int32) * num_classes + label",
        ("tests/evaluation/test_metrics.py",),
    ),
    Bug(
        "the union counts the intersection twice",
        "fastfcn_jax/evaluation/metrics.py",
        "matrix.sum(axis=0) - intersection",
        "matrix.sum(axis=0)",
        ("tests/evaluation/test_metrics.py",),
    ),
    Bug(
        "absent classes never count 0 in an evaluation",
        "fastfcn_jax/evaluation/evaluate.py",
        "absent_counts_zero=predictor.protocol.is_official",
        "absent_counts_zero=False",
        ("tests/evaluation",),
    ),
    Bug(
        "mirrored scores are not turned back",
        INFERENCE + "upsampling.py",
        "matrix = matrix[::-1]",
        "pass",
        ("tests/inference/test_predictor.py",),
    ),
    Bug(
        "overlapping windows add up",
        INFERENCE + "upsampling.py",
        "matrix /= covered",
        "pass",
        ("tests/inference/test_predictor.py",),
    ),
    Bug(
        "several scales average logits",
        INFERENCE + "merge.py",
        "jax.nn.softmax(scores) if softmax else scores",
        "scores",
        ("tests/inference/test_predictor.py",),
    ),
    Bug(
        "several scales without mirror images",
        INFERENCE + "protocols.py",
        'flips=(False, True),\n        merge="probabilities"',
        'flips=(False, False),\n        merge="probabilities"',
        ("tests/inference/test_predictor.py",),
    ),
    Bug(
        "the official windows step like mmseg's",
        INFERENCE + "protocols.py",
        "int(window * 2 / 3)",
        "int(window / 2)",
        ("tests/inference/test_official.py",),
    ),
    Bug(
        "padded images are taken for whole ones",
        INFERENCE + "predictor.py",
        "None if group.exact else sizes",
        "None",
        ("tests/inference/test_plan.py",),
    ),
    Bug(
        "kernels read with height and width swapped",
        "fastfcn_jax/convert/mmseg_names.py",
        "array.transpose(2, 3, 1, 0)",
        "array.transpose(3, 2, 1, 0)",
        (NARROW,),
    ),
    Bug(
        "the official JPU's entries from coarse to fine",
        "fastfcn_jax/convert/official_names.py",
        "enumerate((3, 4, 5))",
        "enumerate((5, 4, 3))",
        ("tests/convert/test_fit.py",),
    ),
)
