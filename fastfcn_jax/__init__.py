"""FastFCN in JAX: semantic segmentation with Joint Pyramid Upsampling (arXiv 1903.11816).

import fastfcn_jax
model = fastfcn_jax.load("runs/demo")
labels = model("photo.jpg")  # class indices, uint8 (height, width)
model.predict("photo.jpg")  # in a notebook: a picture

Every command is also a function: train, evaluate, report, predict, convert, export, serve,
doctor, bench.
Importing the package reads no configuration and initialises no device; the first call does.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastfcn_jax.api import Model, Prediction, build, load, load_pth
    from fastfcn_jax.bench.parts import measured as bench
    from fastfcn_jax.convert.convert import convert
    from fastfcn_jax.doctor.consult import doctor
    from fastfcn_jax.errors import UserError
    from fastfcn_jax.evaluation.report.comparison import report
    from fastfcn_jax.evaluation.run import evaluate_folder as evaluate
    from fastfcn_jax.export.export import export
    from fastfcn_jax.predict.outputs import predict
    from fastfcn_jax.serve.server import serve
    from fastfcn_jax.training.callbacks import Callback
    from fastfcn_jax.training.start import train

__version__ = "0.1.0"

# (module, attribute) of each name, imported on first use: `fastfcn --help` would wait for JAX.
_PLACES = {
    "Callback": ("training.callbacks", "Callback"),
    "Model": ("api", "Model"),
    "Prediction": ("inference.prediction", "Prediction"),
    "UserError": ("errors", "UserError"),
    "build": ("api", "build"),
    "load": ("api", "load"),
    "load_pth": ("api", "load_pth"),
    "train": ("training.start", "train"),
    "evaluate": ("evaluation.run", "evaluate_folder"),
    "report": ("evaluation.report.comparison", "report"),
}
# Subpackages that can be called like functions; see `rooms`.
_CALLABLE_PACKAGES = ("bench", "convert", "doctor", "export", "predict", "serve")
__all__ = [
    "Callback",
    "Model",
    "Prediction",
    "UserError",
    "__version__",
    "bench",
    "build",
    "convert",
    "doctor",
    "evaluate",
    "export",
    "load",
    "load_pth",
    "predict",
    "report",
    "serve",
    "train",
]


def __getattr__(name: str):
    if name in _CALLABLE_PACKAGES:
        return importlib.import_module(f"fastfcn_jax.{name}")
    if name in _PLACES:
        module, attribute = _PLACES[name]
        return getattr(importlib.import_module(f"fastfcn_jax.{module}"), attribute)
    raise AttributeError(f"module 'fastfcn_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"TYPE_CHECKING", "importlib"})
