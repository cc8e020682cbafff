"""`eval --ray`: the counts of the images from the actors of a Ray cluster, joined here."""

import copy
import functools
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fastfcn_jax import addresses, ray_cluster, runtime
from fastfcn_jax.data.sets import Selection
from fastfcn_jax.errors import UserError
from fastfcn_jax.evaluation import evaluate, extras, subject, tally
from fastfcn_jax.evaluation.subject import Subject
from fastfcn_jax.evaluation.tally import Tally
from fastfcn_jax.terminal.progress import track
from fastfcn_jax.weights import store

BATCH = 16  # images that an actor takes at a time, or more if they are predicted together
# What an actor has to find as it is where the command runs; a training may have saved meanwhile.
SAME = ("checksum of the weights", "set of images")


def _with_whole_path(config: ConfigDict) -> ConfigDict:
    """The configuration with the whole path of its data: actors have folders of their own."""
    config = copy.deepcopy(config)
    if config.data.root and not addresses.is_address(config.data.root):
        config.data.root = os.path.abspath(config.data.root)
    return config


def load(model: str | Path, config: ConfigDict, protocol: str | None) -> Subject:
    """Loads a published name or a folder, and opens the images, on the machine of an actor."""
    runtime.cache_compilations()
    return subject.prepare(store.checkpoint(model), config, protocol)


class Counter:
    """Counts the pixels of images, given by their places in the data set.

    Args:
      opens: returns the model and the data.
      sizes: of all images, for which padded sizes are planned.
      count: how many images there have to be.
      facts: of `subject.facts`, those in `SAME`.
      chosen: names of the scores that need more than the confusion matrix.
      given: what Ray gives to the actor.
    """

    def __init__(
        self,
        opens: Callable[[], Subject],
        sizes: Sequence[tuple[int, int]],
        count: int,
        facts: Mapping[str, Any],
        chosen: Sequence[str],
        given: ray_cluster.Workers,
    ):
        self._refusal, self._chosen = "", chosen
        try:
            ray_cluster.use_device(given)
            found = opens()
            self._predictor, self._source = found.predictor, found.source
            if len(self._source) != count:
                raise UserError(f"{len(self._source)} images here instead of {count}.")
            mine = subject.facts(found)
            if other := [name for name in SAME if mine[name] != facts[name]]:
                raise UserError(
                    f"another {other[0]} here; give a model that does not change meanwhile, and "
                    "that all nodes see, as they have to see the images."
                )
        except UserError as error:  # told with the first table: Ray repeats a failed constructor
            self._refusal = f"{platform.node()}: {error}"
            return
        if sizes:
            self._predictor.expect(sizes)

    def __call__(self, table: Any) -> dict[str, list]:
        """Returns one row: the counts of the images that the given row lists, packed."""
        (places,) = table["places"].to_pylist()
        said, packed = self._refusal, b""
        if not said:
            try:
                packed = tally.pack(self._count(np.array(places)))
            except UserError as error:
                said = str(error)
        return {"tally": [packed], ray_cluster.REFUSED: [said]}

    def _count(self, places: np.ndarray) -> Tally:
        part = Selection((self._source,), np.zeros(len(places), np.int64), places)
        scores = extras.build(self._chosen, self._source.info.class_names)
        found = evaluate.count(self._predictor, part, extras=scores, progress=False)
        return found._replace(positions=places[found.positions])


def count(
    address: str, model: str | Path, found: Subject, protocol: str | None, chosen: Sequence[str]
) -> Tally:
    """As `evaluate.count` of all images, by the actors of a cluster.

    Args:
      model: the checkpoint folder, or a published name, as all nodes know it.
      protocol: as given to `subject.prepare`.
      chosen: names of the scores that need more than the confusion matrix.

    Raises:
      UserError: a file is bad, there is no cluster, or a node does not see the data or the model.
    """
    import pyarrow

    total = len(found.source)
    passes, sizes = evaluate.plan_passes(
        found.predictor, found.source, total, is_whole=False, announce=print
    )
    parts = list(_joined(passes))
    opens = functools.partial(load, model, _with_whole_path(found.config), protocol)
    facts = {name: value for name, value in subject.facts(found).items() if name in SAME}
    arguments = {"opens": opens, "sizes": sizes, "count": total, "facts": facts, "chosen": chosen}
    done: dict[int, Tally] = {}
    with ray_cluster.joined(address) as ray:
        rows = ray.data.from_arrow([pyarrow.table({"places": [part]}) for part in parts])
        team = ray_cluster.workers(ray, reads=False)
        answers = ray_cluster.through(rows, Counter, arguments, team, batch=1)
        for answer in track(answers, len(parts), "evaluating, in batches"):
            counted = tally.unpack(answer["tally"])
            # Ray repeats what a lost actor may have done already: counted once.
            done.setdefault(int(counted.positions[0]), counted)
    return tally.join(list(done.values()))


def _joined(passes: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """The images of so many passes that they are at least a batch for an actor, in order."""
    part: list[int] = []
    for together in passes:
        part.extend(together)
        if len(part) >= BATCH:
            yield sorted(part)
            part = []
    if part:
        yield sorted(part)
