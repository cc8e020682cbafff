"""The photographs that an earlier call has not predicted: `--skip-existing`."""

from collections.abc import Iterator

from fastfcn_jax.errors import UserError
from fastfcn_jax.predict.inputs import Photograph, Photographs
from fastfcn_jax.predict.manifest import Call, Manifest, Past
from fastfcn_jax.predict.writer import Writer


class Earlier:
    """Tells which results in a folder are of this model and these settings.

    Results in a folder without a manifest count as well, as nothing says who made them.
    """

    def __init__(self, writer: Writer, call: Call):
        self._writer = writer
        self.past = Past(writer.folder, call)
        self.trusts_files = not self.past.has_begun

    def made(self, photograph: Photograph) -> bool | None:
        """Whether complete results are of this call's kind; None: there are none, or unrecorded."""
        if not self._writer.is_complete(photograph):
            return None
        made = self.past.made(photograph.stem, photograph.source)
        return True if made is None and self.trusts_files else made


class Unfinished:
    """The photographs of `found` without complete results of this model and these settings.

    Those that count without a manifest are recorded as kept. What is left out is printed, and what
    is replaced as it was made otherwise.

    Raises:
      UserError: all results that are there were made by another model or with other settings.
    """

    def __init__(self, found: Photographs, writer: Writer, manifest: Manifest):
        self._found = found
        self._earlier = Earlier(writer, manifest.call)
        done = kept = others = 0
        for photograph in found:
            made = self._earlier.made(photograph)
            done += made is True
            others += made is False
            if made is True and self._earlier.trusts_files:
                kept += 1
                manifest.kept(photograph.stem, photograph.source, writer.outputs(photograph))
        self._count = len(found) - done
        otherwise = self._earlier.past.difference() or "from other files"
        if others and not done:
            raise UserError(
                f"--output {writer.folder}: what is there was made otherwise: {otherwise}; repeat "
                "those settings, give another folder, or leave --skip-existing out to replace it."
            )
        print(f"{done} of {len(found)} are done already (--skip-existing)")
        if kept:
            print("they are in no manifest: which model made them is not known")
        if others:
            print(f"{others} that are there were made otherwise ({otherwise}) and are replaced")

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Photograph]:
        return (photo for photo in self._found if self._earlier.made(photo) is not True)
