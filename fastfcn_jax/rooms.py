"""Rooms that can be called: `fastfcn_jax.predict(…)` although `predict/` is a folder of files."""

import importlib
import sys
import types


def callable_as(room: str, module: str, function: str) -> None:
    """Makes calling the package `room` call `room.module.function`.

    Python sets `fastfcn_jax.predict` to the package as soon as anything in it is imported, so that
    a function of the same name beside it would be gone by then. The function is imported at the
    first call.
    """

    class Room(types.ModuleType):
        def __call__(self, *arguments, **keywords):
            return self.__wrapped__(*arguments, **keywords)

        @property
        def __wrapped__(self):  # what `help` and `inspect.signature` show
            return getattr(importlib.import_module(f"{room}.{module}"), function)

    sys.modules[room].__class__ = Room
