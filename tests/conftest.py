"""Test setup: two virtual CPU devices, strict dtype promotion, shape checks on all functions."""

import ctypes
import functools
import gc
import os
import signal
import sys
import warnings
from pathlib import Path

import jax
import layouts
import numpy as np
import pytest
from jaxtyping import install_import_hook

CACHED = type(functools.cache(len))
# The slowest files first, by the durations that `make test` and `make check` print.
LONGEST = (
    "tests/models/test_official.py",
    "tests/models/test_mmseg.py",
    "tests/training/test_processes.py",
    "tests/bench/test_bench.py",
    "tests/benchmarks/test_training_parity.py",
    "tests/export/test_export.py",
    "tests/test_end_to_end.py",
    "tests/test_commands.py",
    "tests/predict/test_predict.py",
    "tests/training/test_loop.py",
    "tests/training/test_options.py",
    "tests/models/test_padding.py",
    "tests/training/test_step.py",
    "tests/models/test_ops.py",
    "tests/models/test_narrow.py",
    "tests/models/test_layers.py",
    "tests/config/test_configs.py",
    "tests/convert/test_fit.py",
)

# Most of the time goes into compiling programs that run once. This option turns off LLVM's passes
# but not XLA's: a training step compiles in 60 % of the time. The variable is for processes that
# tests start.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
# XLA's older way to generate code for a CPU, without MLIR, takes a third of the newer one's time.
OLDER_CODE = "--xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {OLDER_CODE}".strip()
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_dtype_promotion", "strict")

# The hook only works on modules imported after it. The tower accepts an int as a float (PEP 484).
install_import_hook(
    "fastfcn_jax", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)


def pytest_configure(config):
    # Only for third-party modules: a deprecation warning in our own code fails the run.
    warnings.filterwarnings(
        "ignore", category=DeprecationWarning, module=r"(mm|torch|google|tensor)"
    )
    # A shell starts background jobs with SIGINT ignored, and the processes that tests start would
    # inherit that: those that tests interrupt would not stop.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Runs the slowest files first, so that parallel workers finish at about the same time."""
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.nodeid.split("::")[0], len(LONGEST)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real labelled images beside the repository; skips the test if it is missing."""
    root = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not root.is_dir():
        pytest.skip(f"no real images at {root}")
    return root


@pytest.fixture(scope="module", autouse=True)
def memory_of_one_module(request):
    """Frees compiled programs and caches after each module; they would take gigabytes."""
    yield
    for value in vars(request.module).values():
        if isinstance(value, CACHED):
            value.cache_clear()
    if "oracle" in sys.modules:
        sys.modules["oracle"].drawn_tensor.cache_clear()
    jax.clear_caches()
    gc.collect()
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # else glibc keeps freed memory
    if malloc_trim is not None:
        malloc_trim(0)


@pytest.fixture
def optimized():
    """Programs compiled as a user's are, for what is asserted to the last bit."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def gpu_forms(monkeypatch):
    """Makes operations use their GPU form on this device."""

    def default_branch(*arguments, default, **_):
        return default(*arguments)

    monkeypatch.setattr(jax.lax, "platform_dependent", default_branch)
    jax.clear_caches()  # of what was traced with this device's forms
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """Replaces all models by three layers, and gives the module its own compilation cache."""
    import tiny

    from fastfcn_jax import models

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "build", tiny.build)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        yield


@pytest.fixture
def camvid_root(tmp_path):
    """Two labelled photos in CamVid's layout, without the list file."""
    for i in range(2):
        layouts.write_png(tmp_path / "train" / f"{i}.png", layouts.photo(i))
        label = np.arange(240, dtype=np.uint8).reshape(12, 20) % 12
        layouts.write_png(tmp_path / "trainannot" / f"{i}.png", label)
    return tmp_path
