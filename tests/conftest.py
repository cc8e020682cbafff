"""Two virtual CPU devices, strict dtype promotion, shape checks on every public function."""

import ctypes
import functools
import gc
import warnings
from pathlib import Path

import jax
import layouts
import numpy as np
import pytest
from jaxtyping import install_import_hook

CACHED = type(functools.cache(len))
# By seconds, as `make test` prints them.
LONGEST = (
    "tests/models/test_mmseg.py",
    "tests/models/test_official.py",
    "tests/training/test_processes.py",
)

# Most of the time goes into compiling programs that run once. XLA's passes stay as they are, LLVM
# leaves out its own: a training step compiles in 60 % of the time. Processes that tests start
# compile as a user's do.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_dtype_promotion", "strict")

# The hook has to stand before the first import of the package; it lasts for the whole run.
# An int is a float, as PEP 484 has it.
install_import_hook(
    "fastfcn_jax", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)


def pytest_configure(config):
    # Third-party chatter only; a warning of our own fails the run.
    warnings.filterwarnings(
        "ignore", category=DeprecationWarning, module=r"(mm|torch|google|tensor)"
    )


def pytest_collection_modifyitems(items):
    """The longest files come first, so that two workers with a file each end at the same time."""
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.nodeid.split("::")[0], len(LONGEST)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real labelled images beside the repository; skips where it is absent."""
    root = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not root.is_dir():
        pytest.skip(f"no real images at {root}")
    return root


@pytest.fixture(scope="module", autouse=True)
def memory_of_one_module(request):
    """Lets go of what a module compiled and kept: a worker holds gigabytes of it otherwise."""
    yield
    for value in vars(request.module).values():
        if isinstance(value, CACHED):
            value.cache_clear()
    jax.clear_caches()
    gc.collect()
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc keeps what is freed
    if malloc_trim is not None:
        malloc_trim(0)


@pytest.fixture
def gpu_forms(monkeypatch):
    """Every operation in the form that a GPU takes, computed here."""

    def default_branch(*arguments, default, **_):
        return default(*arguments)

    monkeypatch.setattr(jax.lax, "platform_dependent", default_branch)


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """Models of three layers for the trainings of a module, and a compilation cache of its own."""
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
