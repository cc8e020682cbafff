"""Reads and writes the PyTorch weights of both lineages."""

from fastfcn_jax import rooms

rooms.callable_as(__name__, "convert", "convert")
