"""Copies on a disk of the host: restored first if they are as new, intact and of this run."""

import shutil

import jax
import numpy as np
import pytest
import tiny
from processes import finish, start_two
from tiny import losses

from fastfcn_jax.checkpoints import orbax_store
from fastfcn_jax.config import experiment, schema
from fastfcn_jax.errors import UserError
from fastfcn_jax.training import checkpointer, loop, optim, state
from fastfcn_jax.training.local_checkpoints import LocalCheckpoints


def make(step):
    """A training state in which every array depends on the step."""
    weights = np.full((2, 3), step / 3, np.float32)
    variables = {"params": {"head": {"kernel": weights}}, "batch_stats": {"mean": weights[0]}}
    optimizer = optim.sgd(variables, learning_rate=lambda i: 0.0, momentum=0.9, weight_decay=0)
    made = state.create(variables, optimizer)
    momenta = jax.tree.map(lambda x: np.full_like(x, -step), made.opt_state)
    return made.replace(step=np.array(step, np.int32), opt_state=momenta)


def notes(step):
    return {"pending": {name: [step / 7] for name in ("finite", "learning_rate", "loss")}}


def save(folder, *, shared=(), local=(), run="a"):
    """Saves the steps `shared` in both places and the steps `local` on the local disk alone."""
    checkpoints = open_both(folder, run)
    assert checkpoints.restore_latest(make(0)) is None
    for step in sorted((*shared, *local)):
        if step in shared:
            checkpoints.save(make(step), notes=notes(step))
        else:
            checkpoints.save_locally(make(step), notes=notes(step), before=lambda: None)
    checkpoints.close()


def open_both(folder, run="a"):
    local = LocalCheckpoints(folder / "local", run)
    return checkpointer.Checkpoints(folder / "run", local=local)


def restored(folder, run="a"):
    """The step restored, and whether from the local disk; the arrays and notes are checked."""
    checkpoints = open_both(folder, run)
    found = checkpoints.restore_latest(make(0))
    checkpoints.close()
    step = int(found.state.step)
    assert found.notes == notes(step)
    jax.tree.map(np.testing.assert_array_equal, found.state, make(step))
    return step, found.source.parent == folder / "local" / run


@pytest.mark.parametrize(
    ("shared", "local", "expected"),
    [
        ((4, 8), (10, 12), (12, True)),
        ((4, 8), (), (8, True)),  # as new as the shared one, and quicker to read
        ((), (2, 4), (4, True)),
    ],
)
def test_the_newest_copy_is_restored_first(tmp_path, shared, local, expected):
    save(tmp_path, shared=shared, local=local)
    assert len(list((tmp_path / "local/a").iterdir())) == 2
    assert restored(tmp_path) == expected


def test_an_older_copy_is_not_restored(tmp_path):
    save(tmp_path, shared=(4,), local=(6,))
    for path in (tmp_path / "local/a").glob("6*"):
        path.unlink()
    save_shared_alone(tmp_path, 8)
    assert restored(tmp_path) == (8, False)


def save_shared_alone(folder, step):
    checkpoints = checkpointer.Checkpoints(folder / "run")
    checkpoints.save(make(step), notes=notes(step))
    checkpoints.close()


def spoil(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def test_a_damaged_copy_is_skipped_for_the_next_newest(tmp_path, capsys):
    save(tmp_path, shared=(4, 8), local=(10, 12))
    spoil(tmp_path / "local/a/12.npz")
    assert restored(tmp_path) == (10, True)
    assert f"warning: {tmp_path}/local/a/12.npz is skipped: " in capsys.readouterr().out
    assert not (tmp_path / "local/a/12.npz").exists()  # it would pass for one of the latest two
    spoil(tmp_path / "local/a/10.npz")
    assert restored(tmp_path) == (8, False)


def test_a_copy_stands_in_for_a_damaged_shared_checkpoint(tmp_path):
    save(tmp_path, shared=(4,), local=(6,))
    save_shared_alone(tmp_path, 8)
    (tmp_path / "run/checkpoints/8/meta/metadata").write_bytes(b"")
    assert restored(tmp_path) == (6, True)
    assert (tmp_path / "run/damaged_checkpoints/8").is_dir()


def test_copies_of_another_run_are_not_restored(tmp_path, capsys):
    save(tmp_path, shared=(4,))
    save(tmp_path / "other", local=(10,), run="b")
    assert restored(tmp_path, "new") == (4, False)  # copies of another run do not count
    shutil.copy(tmp_path / "other/local/b/10.npz", tmp_path / "local/a/10.npz")
    assert restored(tmp_path) == (4, True)
    assert "local/a/10.npz is skipped: it is of another run, b" in capsys.readouterr().out


def test_a_full_local_disk_is_told_once_and_stops_nothing(tmp_path, capsys, monkeypatch):
    savez = np.savez

    def full(*arguments, **arrays):
        raise OSError(28, "No space left on device")

    checkpoints = open_both(tmp_path)
    checkpoints.restore_latest(make(0))
    monkeypatch.setattr(np, "savez", full)
    for step in (1, 2):
        checkpoints.save(make(step), notes=notes(step))
    monkeypatch.setattr(np, "savez", savez)
    checkpoints.save_locally(make(3), notes=notes(3), before=lambda: None)
    checkpoints.close()
    told = capsys.readouterr().out
    assert told.count("warning") == 1
    assert "local/a/1.npz: no space left on the disk; the training goes on without this" in told
    assert restored(tmp_path) == (3, True)


def test_files_of_others_are_left_alone_and_unfinished_ones_are_deleted(tmp_path):
    save(tmp_path, shared=(2,), local=(4,))
    folder = tmp_path / "local" / "a"
    for name in ("notes.npz", ".1-2.npz"):
        (folder / name).write_bytes(b"")
    assert restored(tmp_path) == (4, True)
    assert (folder / "notes.npz").is_file()
    assert not (folder / ".1-2.npz").exists()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"local_checkpoints='.*file' cannot be written .*or to ''"):
        LocalCheckpoints(tmp_path / "file", "a")
    config = experiment.load("demo")
    config.train.local_save_every = 10
    with pytest.raises(UserError, match=r"local_save_every=10 needs config.train.local_checkpoi"):
        schema.check(config)


@pytest.mark.slow
def test_a_run_goes_on_from_a_local_copy_bit_for_bit(tmp_path, capsys, tiny_model, monkeypatch):
    workdir, local = tmp_path / "run", tmp_path / "local"
    config = tiny.config(save_every=8, eval_every=0, local_save_every=5)
    config.train.local_checkpoints = str(local)
    with monkeypatch.context() as patched:
        patched.setattr(LocalCheckpoints, "discard", lambda _: None)
        loop.train(config, workdir)
    expected = losses(workdir), orbax_store.read_item(workdir / "checkpoints/12", "training")
    (copies,) = local.iterdir()
    assert {path.name for path in copies.iterdir()} == {"10.npz", "12.npz"}
    (copies / "12.npz").unlink()  # as if killed after step 10 was saved
    shutil.rmtree(workdir / "checkpoints/12")
    capsys.readouterr()
    loop.train(config, workdir)
    assert f"resuming from the local checkpoint of step 10 in {copies}" in capsys.readouterr().out
    assert losses(workdir) == expected[0]
    found = orbax_store.read_item(workdir / "checkpoints/12", "training")
    jax.tree.map(np.testing.assert_array_equal, found, expected[1])
    assert not copies.exists()  # the run is finished


@pytest.mark.slow
def test_processes_restore_the_newest_step_that_every_host_has(tmp_path):
    hosts = [tmp_path / "a", tmp_path / "b"]
    flags = (
        "--config.train.eval_every=0", "--config.train.save_every=20",
        "--config.train.local_save_every=4", f"--config.train.local_checkpoints={hosts[0]}",
    )  # fmt: skip
    second = (f"--config.train.local_checkpoints={hosts[1]}",)
    steps = "--config.train.steps=100000"
    processes = start_two(tmp_path / "run", *flags, steps, devices=1, second=second)
    for line in processes[0].stdout:
        if line.startswith("step 30/"):
            break
    for process in processes:
        process.kill()
        process.communicate()
    kept = [sorted(int(path.stem) for path in host.glob("*/[0-9]*.npz")) for host in hosts]
    common = max(set(kept[0]) & set(kept[1]))
    newest = next(hosts[1].glob(f"*/{max(kept[1])}.npz"))
    newest.rename(newest.with_name(f"{max(kept[0]) + 4}.npz"))  # one that only this host has
    if common == max(kept[1]):
        common = min(kept[1])
    steps = f"--config.train.steps={common + 4}"
    outputs = finish(*start_two(tmp_path / "run", *flags, steps, devices=1, second=second))
    assert f"resuming from the local checkpoint of step {common} in {hosts[0]}" in outputs[0]
    assert f"the host of process 0 has no local checkpoint of step {max(kept[0]) + 4}" in outputs[0]
    assert len(losses(tmp_path / "run")) == common + 4
