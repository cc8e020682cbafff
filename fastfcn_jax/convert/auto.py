"""Builds the configuration of a file's model from the file alone (`--config auto`)."""

from ml_collections import ConfigDict

from fastfcn_jax.config import experiment, schema
from fastfcn_jax.convert import output_classes
from fastfcn_jax.convert.detect import Detected
from fastfcn_jax.convert.file_meta import FileMeta

# (lineage, data set) -> the experiment whose data, schedule and test protocol are used.
_EXPERIMENTS = {
    ("mmseg", "cityscapes"): "jpu_psp_cityscapes",
    ("mmseg", "ade20k"): "jpu_psp_ade20k",
    ("mmseg", "camvid"): "jpu_psp_camvid",
    ("mmseg", ""): "jpu_psp_folder",
    ("official", "ade20k"): "official_encnet_ade20k",
    ("official", ""): "official_encnet_pcontext",
    ("paddleseg", ""): "paddleseg_fastfcn_ade20k",
}
# Keys for which False is a finding, not a missing value.
_FLAGS = ("average_downsample", "se_branch", "lateral", "auxiliary")


def configuration(found: Detected, meta: FileMeta) -> tuple[ConfigDict, list[str]]:
    """Builds the configuration; also returns sentences about what was assumed.

    The model follows from names and shapes. The data set is the one whose classes the file names
    or, if it names none, the published one with as many classes.
    """
    notes = []
    one_channel = found.num_classes == 1
    info = output_classes.by_names(meta.class_names)
    if info is None and not one_channel and len(meta.class_names) != found.num_classes:
        info = output_classes.by_count(found.num_classes)
        if info is not None:
            notes = [
                f"the file does not name its {found.num_classes} classes: "
                f"assumed to be those of {info.name}; name others with --classes FILE"
            ]
    name = "folder" if info is None else info.name
    base = _EXPERIMENTS.get((found.lineage, name)) or _EXPERIMENTS[found.lineage, ""]
    config = experiment.load(base)
    config.data.update(name=name, root="")
    config.published.update(miou=0.0, miou_ms_flip=0.0, source="")
    told = {key: value for key, value in found._asdict().items() if value or key in _FLAGS}
    del told["num_classes"]  # the class list determines it
    dilated = found.neck == "none" or found.lineage == "paddleseg"
    config.model.update(told, output_stride=8 if dilated else 32)
    if one_channel:
        config.model.update(num_classes=1, threshold=meta.threshold or config.model.threshold)
        if not meta.threshold:
            notes.append(
                f"one channel for two classes; the file does not say the threshold: that of "
                f"mmsegmentation, {config.model.threshold}, is taken (model.threshold)"
            )
    if len(meta.test_scale) == 2:
        config.data.test_scale = meta.test_scale
    if meta.slide:
        crop, stride = meta.slide
        config.eval.update(protocol="slide", crop_size=crop, stride=stride)
    schema.check(config)
    return config, notes
