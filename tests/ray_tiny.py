"""The model of `tests/tiny.py` in the actors of a Ray cluster, which import it from here."""

import tiny

from fastfcn_jax import models
from fastfcn_jax.evaluation import ray_eval
from fastfcn_jax.predict import chosen_model

# Taken now: later a test may have put the functions below in their places, which would recurse.
_LOAD_MODEL, _LOAD = chosen_model.load_model, ray_eval.load


def load_model(*arguments, **options):
    models.build = tiny.build
    return _LOAD_MODEL(*arguments, **options)


def load(*arguments):
    models.build = tiny.build
    return _LOAD(*arguments)
