"""`eval --ray`: confusion matrices of the images from the actors of a Ray cluster, summed here."""

import copy
import os
import platform
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fastfcn_jax import addresses, ray_cluster
from fastfcn_jax.data.sets import Selection
from fastfcn_jax.data.source import Source
from fastfcn_jax.errors import UserError
from fastfcn_jax.evaluation import evaluate as one_process
from fastfcn_jax.evaluation.evaluate import Result
from fastfcn_jax.inference.predictor import Predictor
from fastfcn_jax.terminal.progress import track

BATCH = 16  # images that an actor takes at a time


def refuse(**extras: bool) -> None:
    """Raises UserError for scores that need more than the confusion matrices."""
    for name, is_wanted in extras.items():
        if is_wanted:
            raise UserError(f"--ray sums confusion matrices; leave --{name} out.")


def with_whole_path(config: ConfigDict) -> ConfigDict:
    """The configuration with the whole path of its data: actors have folders of their own."""
    config = copy.deepcopy(config)
    if config.data.root and not addresses.is_address(config.data.root):
        config.data.root = os.path.abspath(config.data.root)
    return config


class Counter:
    """Counts the pixels of images, given by their places in the data set.

    Args:
      load: returns what has the predictor as `tested` and the data as `source`.
      sizes: of all images, for which padded sizes are planned.
      given: what Ray gives to the actor.
    """

    def __init__(
        self,
        load: Callable[[], Any],
        sizes: Sequence[tuple[int, int]],
        ids: int,
        given: ray_cluster.Workers,
    ):
        self._refusal = ""
        try:
            ray_cluster.use_device(given)
            opened = load()
            self._predictor, self._source = opened.tested, opened.source
            if len(self._source) != ids:
                raise UserError(f"{len(self._source)} images here instead of {ids}.")
        except UserError as error:  # said with the first table: Ray tries a constructor again
            self._refusal = f"{platform.node()}: {error}"
            return
        if sizes:
            self._predictor.expect(sizes)

    def __call__(self, table: Any) -> dict[str, list]:
        """One row: the places, the counts of each of their images, and the sum of the matrices."""
        places = table["place"].to_numpy()
        matrix = counts = np.zeros(0, np.int64)
        said = self._refusal
        if not said:
            part = Selection((self._source,), np.zeros(len(places), np.int64), places)
            try:
                result = one_process.evaluate(self._predictor, part, progress=False)
                matrix, counts = result.matrix, result.counts
            except UserError as error:
                said = str(error)
        return {
            "places": [places.tolist()],
            "counts": [counts.astype(np.int64).tobytes()],
            "matrix": [matrix.astype(np.int64).tobytes()],
            ray_cluster.REFUSED: [said],
        }


def evaluate(address: str, load: Callable[[], Any], predictor: Predictor, source: Source) -> Result:
    """As `evaluate.evaluate`, by the actors of a cluster; sums of integers, so with equal results.

    Args:
      load: see `Counter`.
      predictor: of this process, for the plan of the sizes.

    Raises:
      UserError: a file is bad, there is no cluster, or a node does not see the data or the model.
    """
    import pyarrow

    k, total = source.info.num_classes, len(source)
    sizes = []
    if hasattr(source, "image_size") and not predictor.is_planned:
        sizes = one_process.image_sizes(source, 0)
        print(predictor.announce(sizes))
    matrix, counts = np.zeros((k, k), np.int64), np.zeros((total, 3, k), np.int64)
    seen = np.zeros(total, bool)
    with ray_cluster.joined(address) as ray:
        starts = range(0, total, BATCH)
        places = [np.arange(start, min(start + BATCH, total)) for start in starts]
        rows = ray.data.from_arrow([pyarrow.table({"place": some}) for some in places])
        team = ray_cluster.workers(ray, reads=False)
        arguments = {"load": load, "sizes": sizes, "ids": total}
        answers = ray_cluster.through(rows, Counter, arguments, team, batch=BATCH)
        for answer in track(answers, len(places), "evaluating, in batches"):
            some = answer["places"]
            if not seen[some].any():  # once, whatever was done twice as something was lost
                seen[some] = True
                matrix += np.frombuffer(answer["matrix"], np.int64).reshape(k, k)
                counts[some] = np.frombuffer(answer["counts"], np.int64).reshape(-1, 3, k)
    return Result(
        protocol=predictor.protocol.name,
        class_names=tuple(source.info.class_names),
        matrix=matrix,
        ids=tuple(source.ids),
        counts=counts,
        num_images=total,
        absent_counts_zero=predictor.protocol.is_official,
    )
