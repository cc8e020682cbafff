"""Which share of the photographs this process takes, when several divide them."""

import os
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from fastfcn_jax import share

# What starts several processes tells each its rank and their number by these variables. Open MPI
# starts its helpers by srun, so that its processes also have Slurm's variables, of those helpers.
# SLURM_NTASKS is set in a batch script too, which is one process; the number of a step is not.
_LAUNCHERS = (
    ("mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("mpirun", "PMI_RANK", "PMI_SIZE"),
    ("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)


class Shard(NamedTuple):
    """Share `index` (from 0) of `count`."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def takes(self, name: str) -> bool:
        """Whether the photograph of this name belongs to the share.

        It depends on the name alone: files that come or go between the starts of two processes
        would shift a share by position, and leave photographs out.
        """
        return zlib.crc32(os.fsencode(name)) % self.count == self.index


ALL = Shard(0, 1)


def parse(words: str) -> Shard:
    """The shard written as "I/N".

    Raises:
      UserError: it is something else, or I is not 0 to N - 1.
    """
    return Shard(*share.parse(words))


def file_name(stem: str, suffix: str, shard: Shard) -> str:
    """The name of a file that each process writes for itself."""
    share = "" if shard == ALL else f".{shard.index}-of-{shard.count}"
    return f"{stem}{share}{suffix}"


def choose(words: str | None, environment: Mapping[str, str]) -> tuple[Shard, str]:
    """The shard of this process, and a sentence that says why; "" if it takes everything.

    Args:
      words: "I/N" as typed; None: by the rank that `srun` or `mpirun` gave to this process.

    Raises:
      UserError: `words` is not a shard.
    """
    if words is not None:
        shard = parse(words)
        return shard, "" if shard.count == 1 else f"shard {shard}"
    for launcher, rank, size in _LAUNCHERS:
        count = environment.get(size, "1")
        if count.isdecimal() and int(count) > 1 and environment.get(rank, "").isdecimal():
            shard = parse(f"{environment[rank]}/{count}")
            return shard, f"shard {shard} by {launcher} ({rank}); --shard 0/1 takes everything"
    if environment.get("SLURM_NTASKS", "1") not in ("", "1"):
        tasks = environment["SLURM_NTASKS"]
        return ALL, f"Slurm has {tasks} tasks, this process takes everything; `srun` divides it"
    return ALL, ""
