"""One training per workdir: locking, messages, and locks left by killed processes."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import config

from fastfcn_jax.errors import UserError
from fastfcn_jax.training import loop, workdir

ROOT = Path(__file__).resolve().parents[2]
HOLDING = """
import sys, time
from pathlib import Path
from fastfcn_jax.training import workdir
with workdir.hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def other(tmp_path):
    """Starts another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def record(path, **changes):
    """Writes a lock file like that of a training that was killed."""
    entry = {"host": "elsewhere", "machine": "x", "pid": 1, "since": "noon", "token": "t"}
    (path / workdir.LOCK).write_text(json.dumps({**entry, **changes}))


def test_a_second_training_is_refused_before_it_touches_anything(tmp_path, other):
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError) as caught:
        loop.train(config(), tmp_path)
    text = str(caught.value)
    assert text.startswith(f"another training is running in {tmp_path}: process {other.pid} on ")
    assert " since 2" in text
    assert text.endswith("wait for it, stop it, or choose another --workdir.")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_lock_of_a_killed_training_is_free_at_once(tmp_path, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert workdir.read_holder(tmp_path / workdir.LOCK).pid == other.pid  # the file still names it
    with workdir.hold(tmp_path):
        assert workdir.read_holder(tmp_path / workdir.LOCK).pid == os.getpid()
    assert workdir.read_holder(tmp_path / workdir.LOCK) is None


def test_a_holder_without_heartbeats_is_reported(tmp_path, other):
    path = tmp_path / workdir.LOCK
    os.utime(path, (0, time.time() - 3600))
    with (
        pytest.raises(UserError, match=rf"no sign of life for 60 minutes.* delete {path}\."),
        workdir.hold(tmp_path),
    ):
        pass


@pytest.mark.parametrize("alive", [False, True])
def test_a_training_on_another_host_is_recognised_by_its_heartbeats(
    tmp_path, monkeypatch, capsys, alive
):
    monkeypatch.setattr(workdir, "SILENCE", 0.2)
    record(tmp_path)
    if alive:
        sleep = time.sleep
        monkeypatch.setattr(
            workdir.time, "sleep", lambda s: (sleep(s), os.utime(tmp_path / workdir.LOCK))
        )
        with pytest.raises(UserError, match="process 1 on elsewhere since noon; wait for it"):
            workdir._held(tmp_path, print).__enter__()
        assert workdir.read_holder(tmp_path / workdir.LOCK).host == "elsewhere"
    else:
        with workdir.hold(tmp_path):
            assert "did not end normally" in capsys.readouterr().out
            assert workdir.read_holder(tmp_path / workdir.LOCK).host != "elsewhere"


def test_without_locks_a_living_process_of_this_host_is_recognised(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    record(tmp_path, machine=workdir._machine(), pid=os.getppid())
    with (
        pytest.raises(UserError, match=f"process {os.getppid()} on elsewhere"),
        workdir.hold(tmp_path),
    ):
        pass
    record(tmp_path, machine=workdir._machine(), pid=2**22 + 1)  # larger than any process id
    with workdir.hold(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": "a"}', '{"pid": null}'])
def test_an_invalid_lock_is_ignored(tmp_path, content):
    (tmp_path / workdir.LOCK).write_text(content)
    with workdir.hold(tmp_path):
        assert workdir.read_holder(tmp_path / workdir.LOCK).pid == os.getpid()


def test_a_holder_sends_heartbeats(tmp_path, monkeypatch):
    monkeypatch.setattr(workdir, "BEAT", 0.01)
    with workdir.hold(tmp_path):
        os.utime(tmp_path / workdir.LOCK, (0, 0))
        while (tmp_path / workdir.LOCK).stat().st_mtime == 0:
            time.sleep(0.01)


def test_a_refused_start_leaves_no_folder_that_it_made(tmp_path):
    """Neither `runs` nor `runs/mine`; what was there, or what the run wrote, stays."""

    def start(folder: Path, writes: str):
        with workdir.hold(folder):
            if writes:
                (folder / writes).write_text("")
            raise UserError("no data")

    def refused(folder: Path, writes: str = ""):
        with pytest.raises(UserError, match="no data"):
            start(folder, writes)

    refused(tmp_path / "runs" / "mine")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs").mkdir()
    refused(tmp_path / "runs" / "mine")
    assert list((tmp_path / "runs").iterdir()) == []
    refused(tmp_path / "runs" / "mine", writes="run.json")
    assert (tmp_path / "runs" / "mine" / "run.json").is_file()
    (tmp_path / "runs" / "other").mkdir()
    refused(tmp_path / "runs" / "other")
    assert (tmp_path / "runs" / "other").is_dir()


def test_a_lock_that_a_refused_start_removed_meanwhile_is_not_held(tmp_path, monkeypatch):
    """Otherwise a third start would lock a new file in the same folder."""
    lock = workdir._lock

    def lock_late(folder, file):
        lock(folder, file)
        (folder / workdir.LOCK).unlink()

    monkeypatch.setattr(workdir, "_lock", lock_late)
    with pytest.raises(UserError, match="removed it just now; run again"), workdir.hold(tmp_path):
        pass


def test_of_two_starts_in_a_new_folder_the_refused_one_leaves_the_others_lock(
    tmp_path, monkeypatch
):
    """Both found no folder, so that each takes it for its own to clear away."""
    make, folder = workdir.make, tmp_path / "run"
    with contextlib.ExitStack() as first:

        def made_while_another_holds_it(path):
            monkeypatch.setattr(workdir, "make", make)
            first.enter_context(workdir.hold(folder))
            make(path)

        monkeypatch.setattr(workdir, "make", made_while_another_holds_it)
        with pytest.raises(UserError, match="another training is running"), workdir.hold(folder):
            pass
        assert workdir.read_holder(folder / workdir.LOCK).pid == os.getpid()


def test_a_folder_that_was_removed_before_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(workdir, "make", lambda folder: None)
    with pytest.raises(UserError, match="removed it just now"), workdir.hold(tmp_path / "run"):
        pass
