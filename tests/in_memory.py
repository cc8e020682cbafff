"""Sources for worker processes, which cannot import a test file."""

from fastfcn_jax.data.datasets.synthetic import StreetScenes
from fastfcn_jax.errors import UserError

DRAWN = StreetScenes("val", shape=(48, 80))
SENTENCE = "/data/x.png: cut off before its end (truncated); copy the file again."


class InMemory:
    """64 generated scenes, generated once."""

    info, ids = DRAWN.info, DRAWN.ids
    samples = tuple(map(DRAWN.__getitem__, range(len(DRAWN))))

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


class Broken(InMemory):
    """A source whose samples cannot be read."""

    def __getitem__(self, index):
        raise UserError(SENTENCE)
