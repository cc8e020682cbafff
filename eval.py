"""Evaluates a checkpoint folder: a table per class, metrics.json and report.html.

python eval.py --checkpoint DIR [--config FILE] [--protocol single|ms_flip|slide|…] [--output OUT]
"""

import sys

from fastfcn_jax.evaluation.__main__ import COMMAND

if __name__ == "__main__":
    sys.exit(COMMAND.main())
