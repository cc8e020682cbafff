"""What an export is asked for; what cannot be had is refused before any work is done."""

import dataclasses
from pathlib import Path

from fastfcn_jax import files
from fastfcn_jax.errors import UserError

# The precisions of a format; those that are not here have float32 alone.
PRECISIONS = {"onnx": ("float32", "float16", "int8"), "openvino": ("float32", "bf16", "int8")}
FREE = ("onnx", "openvino")  # formats whose programs can take images of any size
FREE_SIZES = ((192, 256), (256, 160), (137, 203))  # where a program of free size is compared
SUFFIXES = {"openvino": ".xml"}
BESIDE = {"openvino": ".bin"}  # the second file of a format
MIN_AGREEMENT = 0.99


@dataclasses.dataclass(frozen=True)
class Request:
    """The choices of a call of `export`, which describes them.

    Raises:
      UserError: choices that exclude each other, or a name that cannot be written.
    """

    output: Path
    size: tuple[int, int] | None
    file_format: str
    image: Path | None
    precision: str
    calibration: Path | None
    min_agreement: float

    def __post_init__(self):
        self._check_name()
        self._check_precision()
        if self.size is None and self.file_format not in FREE:
            raise UserError(
                f"--size free: is for --format {' and '.join(FREE)}; give height and width."
            )
        for path in files_of(self.output, self.file_format):
            files.refuse_existing(path)

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """The sizes at which the file is compared with its source."""
        return FREE_SIZES if self.size is None else (self.size,)

    @property
    def beside(self) -> str:
        """The suffix of the file that is written beside `output`; "": there is none."""
        return BESIDE.get(self.file_format, "")

    def _check_name(self) -> None:
        suffix = SUFFIXES.get(self.file_format, f".{self.file_format}")
        if self.output.suffix != suffix:
            raise UserError(f"--output {self.output}: the name has to end in {suffix}.")

    def _check_precision(self) -> None:
        known = PRECISIONS.get(self.file_format, ("float32",))
        if self.precision not in known:
            raise UserError(
                f"--precision {self.precision}: --format {self.file_format} has "
                f"{' and '.join(known)}."
            )
        if self.precision == "int8" and self.calibration is None:
            raise UserError(
                "--calibration is missing: int8 is calibrated on photographs like those that it "
                "will see; for example --calibration photos."
            )
        if self.precision == "float32" and self.calibration is not None:
            raise UserError("--calibration is for other precisions than float32; leave it out.")
        if self.image is not None and self.calibration is not None:
            raise UserError(
                "--image and --calibration exclude each other: a file is compared on one of them."
            )
        if not 0.0 <= self.min_agreement <= 1.0:
            raise UserError(f"--min-agreement {self.min_agreement}: is a share, from 0 to 1.")


def files_of(output: Path, file_format: str) -> tuple[Path, ...]:
    """The files that make up an export, beginning with the one that readers open."""
    beside = BESIDE.get(file_format)
    return (output,) if beside is None else (output, output.with_suffix(beside))
