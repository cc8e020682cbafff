"""Checks data and settings before a run, and turns a folder of photographs into a data set."""

from fastfcn_jax import rooms

rooms.callable_as(__name__, "consult", "doctor")
