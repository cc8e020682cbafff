"""Trains the experiment of a configuration file; run again with the same workdir, it resumes.

python train.py --config configs/jpu_psp_cityscapes.py [--workdir DIR] [--config.data.root=…]
"""

import sys

from fastfcn_jax.training.__main__ import COMMAND

if __name__ == "__main__":
    sys.exit(COMMAND.main())
