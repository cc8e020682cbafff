"""Weights of both PyTorch lineages, read and written without PyTorch."""

from fastfcn_jax import rooms

rooms.callable_as(__name__, "convert", "convert")
