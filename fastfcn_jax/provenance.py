"""How a result was made: package versions, the state of the checkout, the command line."""

import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
COMMAND = "FASTFCN_COMMAND"  # what the processes of `--processes` are told


def command() -> str:
    """The command line that repeats this process, or all that were started with it by one."""
    if started := os.environ.get(COMMAND):
        return started
    program = sys.orig_argv[1:] if sys.orig_argv else sys.argv
    return shlex.join(["python", *program])


def versions() -> dict[str, str]:
    return {
        "fastfcn_jax": importlib.import_module("fastfcn_jax").__version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def program() -> str:
    """A hash of the package's source files; two installations of one version may differ."""
    folder, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def git_state() -> dict[str, Any] | None:
    """The commit and the files that differ from it; None outside a git checkout."""
    folder = Path(__file__).resolve().parents[1]

    def git(*arguments):
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
        return result.stdout.rstrip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != folder:
            return None
        changed = git("status", "--porcelain", "--untracked-files=no").splitlines()
        return {"commit": git("rev-parse", "HEAD"), "changed": [line[3:] for line in changed]}
    except (OSError, subprocess.CalledProcessError):
        return None
