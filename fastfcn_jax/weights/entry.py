"""What the table of published weights says of one file."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple


class Entry(NamedTuple):
    """One published file.

    Attributes:
      name: the name here; a model has the name of its configuration.
      address: URL of the file, or hf://OWNER/REPO/FILE; "" if only a page links to it.
      checksum: "sha256:" or "sha1:" and the first digits; "" if none is published.
      config: bare name of the configuration with its variant; "" for a backbone.
      licence: of the weights.
      source: the page or package that publishes it.
      file: its name in the cache.
      model: of a backbone: the keys of `config.model` that it fits.
      is_inside: `file` is a folder of this package, in the hub's format.
    """

    name: str
    address: str
    checksum: str
    config: str
    licence: str
    source: str
    file: str
    model: Mapping[str, Any] = MappingProxyType({})
    is_inside: bool = False

    @property
    def is_backbone(self) -> bool:
        return bool(self.model)

    @property
    def bundled(self) -> Path | None:
        """The folder inside this package that has the model, in the hub's format; mostly None."""
        return Path(__file__).parent / self.file if self.is_inside else None

    @property
    def flags(self) -> str:
        """The flags that configure a model for this backbone."""
        return " ".join(f"--config.model.{key}={value}" for key, value in self.model.items())
