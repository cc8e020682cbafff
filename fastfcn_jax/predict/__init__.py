"""Predictions for photographs and videos, written as files."""

from fastfcn_jax import rooms

rooms.callable_as(__name__, "outputs", "predict")
