"""Trains the experiment of a configuration file; run again with the same workdir, it resumes.

python train.py --config configs/jpu_psp_cityscapes.py [--workdir DIR] [--config.data.root=…]
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from fastfcn_jax import cli
from fastfcn_jax.config import experiment

config_flags.DEFINE_config_file("config", None, "FILE.py or FILE.py:variant.")
WORKDIR = flags.DEFINE_string("workdir", None, "Output folder; default runs/<config>[-variant].")
flags.mark_flag_as_required("config")
COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0, if several train.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes train together.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")


def main(_):
    config, spec = experiment.from_flag()
    from fastfcn_jax import runtime  # JAX starts only after the configuration is accepted
    from fastfcn_jax.training import loop

    if config.train.deterministic:
        runtime.make_deterministic()
    runtime.join_processes(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    file, _, variant = spec.partition(":")
    name = Path(file).stem
    if name == "fastfcn_config":  # the doctor's; it is called so in every folder of photographs
        name = Path(file).absolute().parent.name
    name = "-".join(filter(None, (name, variant)))
    return loop.train(config, Path(WORKDIR.value or f"runs/{name}"))


if __name__ == "__main__":
    cli.run(main)
