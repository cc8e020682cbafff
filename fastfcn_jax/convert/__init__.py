"""Reads and writes the weights of the three lineages."""

from fastfcn_jax import rooms

rooms.callable_as(__name__, "convert", "convert")
