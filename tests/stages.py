"""The outputs of all stages of one of our models, by name."""

import jax
import numpy as np


def our_stages(ours, variables, images, size=None):
    """Computes the output of every stage of our model, by name, in one compiled program."""

    def run(variables, images):
        outputs, state = ours.apply(
            variables,
            images,
            auxiliary=True,
            size=size,
            capture_intermediates=lambda module, _: module.name in ("backbone", "neck", "stem_7"),
            mutable=["intermediates"],
        )
        captured = state["intermediates"]
        stages = {"stem": jax.nn.relu(captured["backbone"]["stem_7"]["__call__"][0])}
        names = ("c2", "c3", "c4", "c5")
        stages.update(zip(names, captured["backbone"]["__call__"][0], strict=True))
        if "neck" in captured:
            stages["neck"] = captured["neck"]["__call__"][0]
        stages.update(outputs._asdict())
        return {name: stage for name, stage in stages.items() if stage is not None}

    return {k: np.asarray(v) for k, v in jax.jit(run)(variables, images).items()}
