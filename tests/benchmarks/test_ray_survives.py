"""`benchmarks/ray_survives.py` in small: an actor, a machine for good and the driver are killed."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is not installed")

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import ray_survives


@pytest.mark.slow
def test_each_picture_is_done_once_whatever_is_killed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ray_survives, "KINDS", ("actor", "node", "driver"))
    monkeypatch.setattr(ray_survives, "JOINS", 1e9)  # no other machine comes
    flags = ["--pictures=1500", "--kills=3", "--every=3", f"--output={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["ray_survives.py", *flags])
    assert ray_survives.main() == 0, (tmp_path / "driver.log").read_text()
    said = capsys.readouterr().out
    assert "not recorded once: 0; other results than of one process: 0" in said
    assert "killed: 1 actors" in said  # how many more depends on the speed of the machine
