"""Makes subpackages callable: `fastfcn_jax.predict(…)` although `predict` is a package."""

import importlib
import sys
import types


def callable_as(room: str, module: str, function: str) -> None:
    """Makes calling the package `room` call `room.module.function`.

    Python sets `fastfcn_jax.predict` to the package as soon as anything in it is imported, which
    would replace a function of that name. The function is imported on the first call.
    """

    class CallablePackage(types.ModuleType):
        def __call__(self, *arguments, **keywords):
            return self.__wrapped__(*arguments, **keywords)

        @property
        def __wrapped__(self):  # what `help` and `inspect.signature` show
            return getattr(importlib.import_module(f"{room}.{module}"), function)

    sys.modules[room].__class__ = CallablePackage
