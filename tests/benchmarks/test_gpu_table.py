"""`benchmarks/gpu_table.py`: resumes where it stopped, and reports how the aims are met."""

import json
import sys
import time
import types
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import gpu_table


def row(command, *aims, name="a row, of sorts", limit=60.0):
    return gpu_table.Row(name, ["-c", command], aims, limit)


def test_a_failed_row_keeps_its_output_and_has_no_figures(tmp_path):
    failing = row("print('why'); raise SystemExit(3)")
    for times in (1, 2):
        assert "exit status 3" in gpu_table.run(failing, tmp_path, 60)
        assert gpu_table.failures(failing, tmp_path) == times
    assert {path.suffix for path in tmp_path.iterdir()} == {".log", ".failed"}
    assert "why" in (tmp_path / "a-row-of-sorts.log").read_text()


def call(folder, monkeypatch, rows, minutes=1.0):
    """Runs the script once on these rows; returns its exit status."""
    monkeypatch.setattr(gpu_table, "rows", lambda rehearse: rows)
    given = types.SimpleNamespace(out=str(folder), minutes=minutes, rehearse=False)
    monkeypatch.setattr(gpu_table.flags, "FLAGS", given)
    with pytest.raises(SystemExit) as exit_:
        gpu_table.main([])
    return exit_.value.code


def test_a_finished_row_is_kept(tmp_path, monkeypatch, capsys):
    started = tmp_path / "started"
    once = row(f"open({str(started)!r}, 'a').write('x')")
    rows = [once, once._replace(name="other")]
    for _ in range(2):
        assert call(tmp_path / "out", monkeypatch, rows) == 0
    assert started.read_text() == "xx"
    assert call(tmp_path / "new", monkeypatch, rows, minutes=-1) == 0
    assert "0 of 2 rows" in capsys.readouterr().out


@pytest.mark.slow
def test_rows_that_hang_or_fail_do_not_keep_others_from_running(tmp_path, monkeypatch):
    order = tmp_path / "order"
    says = f"import sys, subprocess, time; open({str(order)!r}, 'a').write(%r); "
    # Processes started by a hanging row would keep the device busy; they must end with the row.
    alive = tmp_path / "alive"
    child = f"import time; time.sleep(3); open({str(alive)!r}, 'w')"
    hang = f"subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(100)"
    ratios = json.dumps({"time_ratios": {"ours / mmseg": {"median": 0.25}}})
    works = f"open(sys.argv[-1].removeprefix('--json='), 'w').write({ratios!r})"
    rows = [
        row(says % "h" + hang, name="hangs", limit=1.0),
        row(says % "f" + "sys.exit(1)", name="fails"),
        row(says % "w" + works, gpu_table.Aim("speed", "mmseg", 2.0, 1.3), name="works"),
    ]
    assert call(tmp_path, monkeypatch, rows) == 1
    table = (tmp_path / "table.txt").read_text()
    assert "works: speed over mmseg | 4.00 |" in table
    assert "1 of 3 rows" in table
    assert "Failed 1 times: hangs" in table
    more = row(says % "n", name="new")
    call(tmp_path, monkeypatch, [*rows, more])
    assert order.read_text() == "hfw" + "nhf"
    time.sleep(max(0, (tmp_path / "hangs.log").stat().st_mtime + 3.5 - time.time()))
    assert not alive.exists()


def test_a_row_that_ran_out_of_time_has_not_failed(tmp_path):
    slow = row("import time; time.sleep(100)")
    assert "cut short" in gpu_table.run(slow, tmp_path, 0.5)
    assert gpu_table.failures(slow, tmp_path) == 0


def test_speed_is_the_inverse_of_the_time_ratio(tmp_path):
    ratios = {"ours / mmseg": {"median": 0.25, "memory": 0.5}, "ours / other": {"median": 9.0}}
    aims = gpu_table.Aim("speed", "mmseg", 2.0, 1.3), gpu_table.Aim("memory", "mmseg", 0.6, 0.8)
    finished = row("", *aims)
    (tmp_path / finished.file("json")).write_text(json.dumps({"time_ratios": ratios}))
    lines = gpu_table.table([finished], tmp_path).splitlines()[2:4]
    assert [line.split(" | ")[1] for line in lines] == ["4.00", "0.50"]


def test_each_row_has_its_own_file():
    names = [each.file("json") for each in gpu_table.rows(rehearse=False)]
    assert len(set(names)) == len(names)


def test_every_aim_is_among_its_rows_contenders():
    for each in gpu_table.rows(rehearse=False):
        script = each.command[0]
        assert script == "-m" or (gpu_table.ROOT / script).exists()
        for aim in each.aims:
            (given,) = (a for a in each.command if a.startswith("--contenders="))
            assert aim.other in given.split("=")[1].split(",")
