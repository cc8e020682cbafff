"""What `camvid-small` is worth as a start on other photographs of streets.

python benchmarks/camvid_finetune.py --root CAMVID --output DIR [--steps 300]

Of CamVid's 101 validation photographs, which `camvid-small` was not trained on, the first 40 are
the training set of three short trainings with equal steps, and the last 61 score them: from random
weights, from `camvid-small` with a new classifier (as for other classes), and from all of it.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from fastfcn_jax.evaluation.run import evaluate_folder

TRAINING = 40  # photographs; frames follow each other, so that a cut keeps the two parts apart
STARTS = {
    "random": ["--config.optim.lr=0.05"],
    "camvid-small, new classifier": [
        "--config.init.checkpoint=camvid-small",
        "--config.init.reset_head=True",
        "--config.optim.lr=0.02",
    ],
    "camvid-small": ["--config.init.checkpoint=camvid-small", "--config.optim.lr=0.02"],
}


def lay(root: Path, folder: Path) -> None:
    """CamVid's layout in `folder`: links to the validation photographs, divided in two."""
    photos = sorted((root / "val").iterdir())
    for part, chosen in (("train", photos[:TRAINING]), ("val", photos[TRAINING:])):
        for name in (part, f"{part}annot"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for photo in chosen:
            label = root / "valannot" / f"{photo.stem}.png"
            for source, name in ((photo, part), (label, f"{part}annot")):
                link = folder / name / source.name
                link.unlink(missing_ok=True)
                link.symlink_to(source.absolute())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    data = options.output / "data"
    lay(options.root, data)
    for i, (start, flags) in enumerate(STARTS.items()):
        run = options.output / f"run_{i}"
        subprocess.run(
            [
                *(sys.executable, "-m", "fastfcn_jax", "train"),
                "--config=jpu_psp_camvid:shipped",
                f"--config.data.root={data}",
                f"--workdir={run}",
                f"--config.train.steps={options.steps}",
                "--config.train.ema_decay=0.98",
                "--config.optim.warmup_steps=20",
                "--config.train.eval_every=0",
                *flags,
            ],
            check=True,
        )
        result = evaluate_folder(run, output=run / "scores")
        print(f"{start}: {options.steps} steps, {result}", flush=True)


if __name__ == "__main__":
    main()
