"""The doctor as a Python function: checks an experiment, or prepares a folder of photographs."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from fastfcn_jax.config import experiment
from fastfcn_jax.errors import UserError


def doctor(
    config: str | Path | ConfigDict | None = None,
    *,
    folder: str | Path | None = None,
    checkpoint: str | Path | None = None,
    images: str | Path | None = None,
    workdir: str | Path = "runs",
    samples: int = 200,
    **choices: Any,
) -> bool:
    """Prints what an experiment lacks, or makes a data set of a folder of photographs.

    Args:
      config: the experiment to check, a configuration or its name or file.
      folder: photographs and labels to prepare instead; writes a configuration beside them.
      checkpoint: a model whose classes are compared with the data's.
      images: folder for pictures of augmented samples.
      workdir: where checkpoints will be written.
      samples: how many images of each split are read.
      choices: with `folder`, the keyword arguments of `fastfcn_jax.doctor.adopt.adopt`.

    Returns:
      Whether nothing prevents a run.

    Raises:
      UserError: neither or both are given, or the folder cannot be prepared.
    """
    if (config is None) == (folder is None):
        raise UserError(
            "give a configuration or a folder of photographs, for example "
            "fastfcn_jax.doctor('jpu_psp_cityscapes') or fastfcn_jax.doctor(folder='photos')."
        )
    if folder is not None:
        from fastfcn_jax.doctor import adopt

        print("\n".join(adopt.adopt(Path(folder).expanduser(), **choices)))
        return True
    if choices:
        raise UserError(f"{', '.join(choices)}: only with folder=…, which was not given.")
    from fastfcn_jax.doctor import examine

    chosen = config if isinstance(config, ConfigDict) else experiment.load(str(config))
    found = examine.examine(
        chosen,
        samples=samples,
        checkpoint=None if checkpoint is None else Path(checkpoint).expanduser(),
        workdir=Path(workdir).expanduser(),
    )
    fine = examine.report(found) == 0
    if images is not None and fine:
        examine.draw(chosen, Path(images).expanduser())
    return fine
