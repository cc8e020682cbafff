"""Evaluates a checkpoint folder: a table per class, metrics.json and report.html.

python eval.py --checkpoint DIR [--config FILE] [--protocol single|ms_flip|slide|…] [--output OUT]
    [--compare metrics.json of another run]
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from fastfcn_jax import cli
from fastfcn_jax.config import experiment

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Checkpoint folder.", required=True)
CONFIG = config_flags.DEFINE_config_file("config", None, "Data and tests unlike the stored.")
PROTOCOL = flags.DEFINE_string("protocol", None, "How to test; default: config.eval.protocol.")
OUTPUT = flags.DEFINE_string("output", None, "Output folder; default: eval/ in the checkpoint's.")
COMPARE = flags.DEFINE_string("compare", None, "Another run's metrics.json, for the report.")


def main(_):
    config = experiment.from_flag()[0] if CONFIG.value else None
    from fastfcn_jax.evaluation import command  # JAX starts only after the flags are accepted

    command.run(
        Path(CHECKPOINT.value),
        config=config,
        protocol=PROTOCOL.value,
        output=Path(OUTPUT.value) if OUTPUT.value else None,
        compare=Path(COMPARE.value) if COMPARE.value else None,
    )


if __name__ == "__main__":
    cli.run(main)
