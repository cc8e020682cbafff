"""Measures where the time of a model goes on this device."""

from fastfcn_jax import rooms

rooms.callable_as(__name__, "parts", "measured")
