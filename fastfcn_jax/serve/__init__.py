"""A web page and an HTTP interface that predict the labels of photographs."""

from fastfcn_jax import rooms

rooms.callable_as(__name__, "server", "serve")
