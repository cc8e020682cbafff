"""Predicts label maps of photographs and videos and writes them to files."""

from fastfcn_jax import rooms

rooms.callable_as(__name__, "outputs", "predict")
