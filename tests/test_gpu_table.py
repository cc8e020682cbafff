"""`benchmarks/gpu_table.py`: it goes on where it stopped, and says how the aims are met."""

import json
import sys
import types
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

import gpu_table


def row(command, *aims):
    return gpu_table.Row("a row, of sorts", ["-c", command], aims)


def test_a_failed_row_leaves_its_output_and_no_figures(tmp_path):
    assert "exit status 3" in gpu_table.run(row("print('why'); raise SystemExit(3)"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a-row-of-sorts.log"]
    assert "why" in (tmp_path / "a-row-of-sorts.log").read_text()


def test_a_finished_row_is_kept(tmp_path, monkeypatch, capsys):
    started = tmp_path / "started"
    once = row(f"open({str(started)!r}, 'a').write('x')")
    monkeypatch.setattr(gpu_table, "rows", lambda rehearse: [once, once._replace(name="other")])
    for _ in range(2):
        monkeypatch.setattr(gpu_table.flags, "FLAGS", arguments(tmp_path / "out", minutes=1))
        with pytest.raises(SystemExit, match="0"):
            gpu_table.main([])
    assert started.read_text() == "xx"
    monkeypatch.setattr(gpu_table.flags, "FLAGS", arguments(tmp_path / "new", minutes=-1))
    with pytest.raises(SystemExit, match="0"):
        gpu_table.main([])
    assert "2 rows left" in capsys.readouterr().out


def arguments(folder, minutes):
    return types.SimpleNamespace(out=str(folder), minutes=minutes, rehearse=False)


def test_speed_is_the_inverse_of_the_time_ratio(tmp_path):
    ratios = {"ours / mmseg": {"median": 0.25, "memory": 0.5}, "ours / other": {"median": 9.0}}
    aims = gpu_table.Aim("speed", "mmseg", 2.0, 1.3), gpu_table.Aim("memory", "mmseg", 0.6, 0.8)
    finished = row("", *aims)
    (tmp_path / finished.file).write_text(json.dumps({"time_ratios": ratios}))
    lines = gpu_table.table([finished], tmp_path).splitlines()[2:]
    assert [line.split(" | ")[1] for line in lines] == ["4.00", "0.50"]


def test_every_aim_is_among_its_rows_contenders():
    for each in gpu_table.rows(rehearse=False):
        script = each.command[0]
        assert script == "-m" or (gpu_table.ROOT / script).exists()
        for aim in each.aims:
            (given,) = (a for a in each.command if a.startswith("--contenders="))
            assert aim.other in given.split("=")[1].split(",")
