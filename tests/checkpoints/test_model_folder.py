"""Checkpoints: retention, damage, and folders that contain only a model."""

import json
import re
import shutil
import threading

import jax
import numpy as np
import pytest
import small
import tiny

from fastfcn_jax import files
from fastfcn_jax.checkpoints import fitting, model_folder, orbax_store
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.errors import UserError
from fastfcn_jax.training import checkpointer, optim, state

CLASSES = ("road", "car")


CHECK_SHAPES = fitting.check


@pytest.fixture(autouse=True)
def any_arrays(monkeypatch):
    """The arrays that `make` returns are of no model."""
    monkeypatch.setattr(fitting, "check", lambda *_: None)


def make(step=0, *, ema=False, freeze=(), width=3):
    """A training state in which every array depends on the step."""
    kernel = np.full((1, 1, width, 2), step, np.float32)
    norm = {"mean": np.full(width, step + 0.5, np.float32)}
    variables = {
        "params": {
            "backbone": {"conv": {"kernel": kernel}, "bn": {"scale": np.ones(width, np.float32)}},
            "decode_head": {"conv_seg": {"bias": np.zeros(2, np.float32)}},
        },
        "batch_stats": {"backbone": {"bn": norm}},
    }
    optimizer = optim.sgd(
        variables, learning_rate=lambda i: 0.0, momentum=0.9, weight_decay=0,
        freeze=freeze,
    )  # fmt: skip
    made = state.create(variables, optimizer, ema=ema)
    momenta = jax.tree.map(lambda x: np.full_like(x, -step), made.opt_state)
    return made.replace(
        step=np.array(step, np.int32),
        opt_state=momenta,
        ema=jax.tree.map(lambda x: x + 7, made.ema) if ema else None,
    )


def notes(losses):
    """The loop's notes: metrics of steps that are not logged yet."""
    others = {name: [1.0] * len(losses) for name in ("finite", "learning_rate")}
    return {"pending": {"loss": losses, **others}}


def save(workdir, steps, *, keep_every=0, **kwargs):
    """Saves checkpoints {step: mIoU or None} and returns the steps that are kept."""
    run = checkpointer.Checkpoints(workdir, keep_every=keep_every)
    for step, miou in steps.items():
        run.save(make(step, **kwargs), miou=miou, notes=notes([step / 3]))
    run.close()
    return model_folder.finished_steps(workdir)


def restore(workdir, **kwargs):
    run = checkpointer.Checkpoints(workdir)
    restored = run.restore_latest(make(**kwargs))
    run.close()
    return restored


def card(workdir):
    info = DatasetInfo("two", CLASSES, np.array([[1, 2, 3], [4, 5, 6]], np.uint8))
    made = model_folder.model_card(tiny.get_config(), info, {})
    files.write_json(workdir / "model.json", made)
    return made


def damage(folder, item="model"):
    """Flips one bit in the middle of the largest file of an item."""
    files = [path for path in (folder / item).rglob("*") if path.is_file()]
    path = max(files, key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_latest_two_and_best_are_kept(tmp_path):
    kept = save(tmp_path, {1: 20.0, 2: 60.0, 3: 30.0, 4: None, 5: 40.0, 6: None})
    assert kept == [2, 5, 6]
    again = checkpointer.Checkpoints(tmp_path)  # a new process still knows the best one
    assert (again.latest, again.best) == (6, 2)
    again.save(make(7), miou=50.0)
    again.close()
    assert model_folder.finished_steps(tmp_path) == [2, 6, 7]


def test_every_nth_is_kept_on_request(tmp_path):
    assert save(tmp_path, dict.fromkeys(range(1, 8)), keep_every=3) == [3, 6, 7]


def test_notes_are_those_of_the_moment_of_saving(tmp_path, monkeypatch):
    """The thread may write the notes after training has continued."""
    gone_on = threading.Event()
    dumps = json.dumps

    def late(*arguments, **options):
        if threading.current_thread() is not threading.main_thread():
            gone_on.wait(10)
        return dumps(*arguments, **options)

    run = checkpointer.Checkpoints(tmp_path)
    run.save(make(0))  # the first save is not asynchronous
    losses = [1.0]
    monkeypatch.setattr(json, "dumps", late)
    run.save(make(1), notes=notes(losses))
    losses.append(2.0)
    gone_on.set()
    run.close()
    assert restore(tmp_path).notes == notes([1.0])


@pytest.mark.parametrize("options", [{}, {"ema": True}, {"freeze": ("backbone",)}])
def test_a_state_is_restored_bit_for_bit(tmp_path, options):
    save(tmp_path, {3: None}, **options)
    restored = restore(tmp_path, **options)
    expected = make(3, **options)
    same = jax.tree.map(np.array_equal, restored.state, expected)
    assert all(jax.tree.leaves(same))
    assert jax.tree.structure(restored.state) == jax.tree.structure(expected)
    assert restored.notes == notes([1.0])


def test_nothing_saved_restores_nothing(tmp_path):
    assert restore(tmp_path) is None


@pytest.mark.parametrize("item", ["model", "training"])
def test_a_flipped_bit_is_found_and_the_checkpoint_before_is_used(tmp_path, capsys, item):
    save(tmp_path, {4: None, 5: None})
    damage(tmp_path / "checkpoints" / "5", item)
    assert int(restore(tmp_path).state.step) == 4
    assert "checkpoints/5 is damaged and is skipped" in capsys.readouterr().out
    assert (tmp_path / "damaged_checkpoints" / "5").is_dir()
    assert save(tmp_path, {5: None}) == [4, 5]  # the step can be saved again
    assert int(restore(tmp_path).state.step) == 5


@pytest.mark.parametrize("missing", ["model", "meta", "training/manifest.ocdbt"])
def test_a_half_written_checkpoint_is_skipped(tmp_path, missing):
    save(tmp_path, {4: None, 5: None})
    path = tmp_path / "checkpoints" / "5" / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(
        tmp_path / "checkpoints" / "4", tmp_path / "checkpoints" / "6.orbax-checkpoint-tmp-1"
    )
    assert int(restore(tmp_path).state.step) == 4
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["4"]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(28, "No space left on device"), "no space left on the disk; free some"),
        (ValueError("RESOURCE_EXHAUSTED [OS error 28: ENOSPC No space left]"), "no space left"),
        (OSError(30, "Read-only file system"), "cannot be written: .*Read-only file system"),
        (ValueError("[OS error 30: EROFS Read-only file system]"), "cannot be written: "),
        (ValueError("PERMISSION_DENIED: x"), "cannot be written: PERMISSION_DENIED: x"),
    ],
)
def test_a_full_or_read_only_disk_is_reported(tmp_path, error, sentence):
    told = orbax_store.unwritable(tmp_path, error)
    assert isinstance(told, UserError)
    assert re.match(rf"{tmp_path}:? {sentence}", str(told))
    fault = ValueError("a bug")
    assert orbax_store.unwritable(tmp_path, fault) is fault


FLAWS = {
    "empty": b"",
    "zeros": bytes(60),
    "of another kind": b"[]",
    "without anything": b"{}",
    "without notes": b'{"format": 1, "step": 5, "notes": null, "checksums": {"model": "0"}}',
    "not UTF-8": b"\xff{}",
}


@pytest.mark.parametrize("content", FLAWS.values(), ids=FLAWS)
def test_a_checkpoint_with_invalid_notes_is_moved_away(tmp_path, capsys, content):
    save(tmp_path, {4: None, 5: 60.0})
    card(tmp_path)
    (tmp_path / "checkpoints/5/meta/metadata").write_bytes(content)
    assert model_folder.load_model(tmp_path).step == 4
    assert int(restore(tmp_path).state.step) == 4
    assert capsys.readouterr().out.count("checkpoints/5 is damaged and is skipped: meta: ") == 2
    assert (tmp_path / "damaged_checkpoints" / "5").is_dir()


@pytest.mark.parametrize("content", FLAWS.values(), ids=FLAWS)
def test_a_damaged_score_is_restored_from_its_copy(tmp_path, capsys, content):
    """A power loss may empty this file of 28 bytes while all arrays are intact."""
    save(tmp_path, {4: 20.0, 5: 60.0, 6: None})
    card(tmp_path)
    path = tmp_path / "checkpoints/5/metrics/metrics"
    path.write_bytes(content)
    assert model_folder.load_model(tmp_path).step == 5
    assert int(restore(tmp_path).state.step) == 6
    assert f"{path.parent.parent}: repaired its damaged metrics" in capsys.readouterr().out
    assert json.loads(path.read_text()) == {"mIoU": 60.0}
    assert save(tmp_path, {7: None, 8: None}) == [5, 7, 8]  # and it still is the best


def test_a_changed_digit_in_the_notes_is_found(tmp_path):
    save(tmp_path, {4: None, 5: 60.0})
    path = tmp_path / "checkpoints/5/meta/metadata"
    path.write_text(path.read_text().replace("60.0", "70.0"))
    assert int(restore(tmp_path).state.step) == 4


@pytest.mark.slow
def test_the_run_resumes_after_any_file_is_emptied(tmp_path):
    """A power loss may empty any file; the run resumes from this checkpoint or the one before."""
    save(tmp_path / "whole", {4: 20.0, 5: 60.0})
    for path in sorted((tmp_path / "whole/checkpoints/5").rglob("*")):
        if path.is_file():
            shutil.copytree(tmp_path / "whole", tmp_path / "run")
            (tmp_path / "run" / path.relative_to(tmp_path / "whole")).write_bytes(b"")
            restored = restore(tmp_path / "run")
            step = int(restored.state.step)
            assert step in (4, 5), path
            same = jax.tree.map(np.array_equal, restored.state, make(step))
            assert all(jax.tree.leaves(same)), path
            assert 6 in save(tmp_path / "run", {6: None}), path
            shutil.rmtree(tmp_path / "run")


def test_a_run_never_moves_all_its_checkpoints_away(tmp_path):
    save(tmp_path, {4: None, 5: None})
    damage(tmp_path / "checkpoints" / "5")
    (tmp_path / "checkpoints/4/meta/metadata").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as caught:
        restore(tmp_path)
    assert re.fullmatch(
        rf"none of the 2 checkpoints in {tmp_path}/checkpoints can be read; step 5: model: .+\. "
        r"Nothing was changed: repair .+; to start over, move the folder away .+\.",
        str(caught.value),
    )
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["runs of [2024]", "[!a]", "a*b", "a?b", "**", "]["])
def test_a_folder_name_may_look_like_a_pattern(tmp_path, name):
    save(tmp_path / "axb", {1: None, 5: None})  # the patterns a*b and a?b match it
    save(tmp_path / name, {4: 30.0, 5: 20.0})
    card(tmp_path / name)
    assert int(restore(tmp_path / name).state.step) == 5
    assert model_folder.load_model(tmp_path / name).step == 4
    model_folder.save_model(tmp_path / name / "converted", make(2).variables, {})


@pytest.mark.parametrize(
    ("name", "fault"),
    [("a\\b", "a backslash"), ("a\udcdf", "not UTF-8"), ("gs:/a", "a cloud storage address")],
)
def test_a_folder_whose_checkpoints_would_be_lost_is_refused(tmp_path, name, fault):
    with pytest.raises(UserError, match=f"cannot be stored in a folder whose path has .*{fault}"):
        checkpointer.Checkpoints(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_the_first_checkpoint_is_read_back(tmp_path, monkeypatch):
    write = orbax_store.write

    def onto_a_bad_disk(manager, step, *arguments, **options):
        write(manager, step, *arguments, **options)
        manager.wait_until_finished()
        damage(tmp_path / "checkpoints" / str(step))

    run = checkpointer.Checkpoints(tmp_path)
    monkeypatch.setattr(orbax_store, "write", onto_a_bad_disk)
    with pytest.raises(UserError, match=r"/4 was just written and cannot be read back \(model: "):
        run.save(make(4))
    run.close()


def test_a_score_found_later_is_added_to_its_checkpoint(tmp_path):
    save(tmp_path, {4: None})
    arrays = tmp_path / "checkpoints/4/model"
    written = {path: path.stat().st_mtime_ns for path in arrays.rglob("*")}
    save(tmp_path, {4: 70.0, 5: 20.0, 6: None, 7: None})
    assert model_folder.finished_steps(tmp_path) == [4, 6, 7]
    assert model_folder.best_step(tmp_path) == 4
    assert {path: path.stat().st_mtime_ns for path in arrays.rglob("*")} == written


def test_a_kill_while_an_old_checkpoint_is_deleted_leaves_no_half_of_it(tmp_path, monkeypatch):
    run = checkpointer.Checkpoints(tmp_path)
    monkeypatch.setattr(orbax_store, "sweep", lambda _: None)  # killed before it deletes
    for step in range(1, 6):
        run.save(make(step), notes=notes([0.5]))
    run.close()
    assert model_folder.finished_steps(tmp_path) == [4, 5]
    assert (tmp_path / "checkpoints" / orbax_store.DELETING).is_dir()
    monkeypatch.undo()
    assert int(restore(tmp_path).state.step) == 5
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["4", "5"]
    assert not (tmp_path / "damaged_checkpoints").exists()


def test_a_state_of_another_shape_is_refused(tmp_path):
    save(tmp_path, {4: None})
    with pytest.raises(UserError, match=r"does not fit the configured model: 3 arrays differ"):
        restore(tmp_path, width=4)


def test_a_model_loads_from_its_folder_without_the_configuration(tmp_path):
    save(tmp_path, {1: 50.0, 2: 40.0, 3: None})
    card(tmp_path)
    best = model_folder.load_model(tmp_path)
    assert best.step == 1
    assert best.info.class_names == CLASSES
    assert best.info.palette.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert best.config.train.steps == tiny.get_config().train.steps
    assert best.variables["params"]["backbone"]["conv"]["kernel"].max() == 1
    assert model_folder.load_model(tmp_path, "latest").step == 3
    with pytest.raises(UserError, match="which='newest': must be best or latest"):
        model_folder.load_model(tmp_path, "newest")
    damage(tmp_path / "checkpoints" / "1")
    assert model_folder.load_model(tmp_path).step == 3  # the next candidate


def test_averaged_weights_are_loaded(tmp_path):
    save(tmp_path, {3: None}, ema=True)
    card(tmp_path)
    loaded = model_folder.load_model(tmp_path).variables["params"]
    assert loaded["backbone"]["conv"]["kernel"].max() == 3 + 7


def test_converted_weights_round_trip(tmp_path):
    variables = make(2).variables
    folder = tmp_path / "converted"
    folder.mkdir()
    model_folder.save_model(folder, variables, card(folder))
    loaded = model_folder.load_model(folder)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, loaded.variables, variables)))
    with pytest.raises(UserError, match="already contains a checkpoint"):
        model_folder.save_model(folder, variables, card(folder))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "model.json is missing"),
        ("{", "not valid JSON"),
        (json.dumps({"format": 99}), "format 99"),
        ("[]", "must be an object, not"),
    ],
)
def test_a_folder_that_is_not_a_checkpoint_folder_says_so(tmp_path, content, message):
    if content is not None:
        (tmp_path / "model.json").write_text(content)
    with pytest.raises(UserError, match=message):
        model_folder.load_model(tmp_path)


def mutated(card, key, value):
    """A copy of a card in which one key ("a.b.0") has another value or is missing."""
    card = json.loads(json.dumps(card))
    *path, last = (int(part) if part.isdigit() else part for part in key.split("."))
    inner = card
    for part in path:
        inner = inner[part]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return card


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dataset", ..., "dataset is missing"),
        ("dataset", [], r"dataset must be an object, not \[\]"),
        ("dataset.class_names", ..., "class_names is missing"),
        ("dataset.class_names", "road", r'class_names must be a list, not "road"'),
        ("dataset.class_names.0", None, r"class_names\[0\] must be a text, not null"),
        ("dataset.class_names", [], "class_names must be 1 to 254 names, not 0"),
        ("dataset.palette", [[1, 2, 3]], "palette has 1 colours for 2 classes"),
        ("dataset.palette.1", [1, 2], r"palette\[1\] must be three whole numbers from 0 to 255"),
        ("dataset.palette.0.0", 300, r"palette\[0\] must be three whole"),
        ("dataset.palette.0.0", True, r"palette\[0\] must be three whole"),
        ("preprocessing.mean", [0, 0, 0], "preprocessing must be .*, which cannot be changed"),
        ("config", None, "config must be an object, not null"),
        ("config.model", ..., "config.model is missing"),
        ("config.model.lineage", ..., "config.model.lineage is missing"),
        ("config.model.head", 5, "config.model.head must be a text, not 5"),
        ("config.model.head", "pyramid", "config.model.head='pyramid' is not one of"),
        ("config.model.base_width", 10**30, "config.model.base_width must be a whole number"),
        ("config.model.base_width", 0, "config.model.base_width=0 must be at least 1"),
        ("config.data", 3, "config.data must be an object, not 3"),
        ("config.data.crop_size", [1, "x"], r"config.data.crop_size\[1\] must be a whole number"),
        ("config.optim.lr", float("nan"), "not valid JSON .NaN is not a JSON number"),
        ("config.optim.lr", "fast", 'config.optim.lr must be a finite number, not "fast"'),
        ("config.optim.speed", 1, "config.optim.speed is unknown to this version"),
    ],
)
def test_a_card_edited_by_hand_names_its_key(tmp_path, key, value, message):
    save(tmp_path, {1: None})
    path = tmp_path / "model.json"
    path.write_text(json.dumps(mutated(card(tmp_path), key, value)))
    with pytest.raises(UserError, match=rf"^{path}(:| is) (dataset )?{message}"):
        model_folder.load_model(tmp_path)


def test_classes_that_do_not_fit_the_weights_are_refused(tmp_path):
    save(tmp_path, {1: None})
    edited = card(tmp_path)
    edited["dataset"]["class_names"].append("sky")
    edited["dataset"]["palette"].append([7, 8, 9])
    (tmp_path / "model.json").write_text(json.dumps(edited))
    with pytest.raises(
        UserError, match=r"model\.json: dataset\.class_names has 3 names, but .* 2 cl"
    ):
        model_folder.load_model(tmp_path)


def test_a_model_that_does_not_fit_the_weights_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "check", CHECK_SHAPES)
    config = small.config("psp", "jpu", backbone="resnet18")
    info = DatasetInfo("two", CLASSES, np.zeros((2, 3), np.uint8))
    made = model_folder.model_card(config, info, {})
    model_folder.save_model(tmp_path, small.variables(config.model, 2), made)
    assert model_folder.load_model(tmp_path).info.class_names == CLASSES
    made["config"]["model"]["neck_channels"] += 8
    (tmp_path / "model.json").write_text(json.dumps(made))
    with pytest.raises(
        UserError, match=r"model\.json: config\.model .* another model .*neck.* is \("
    ):
        model_folder.load_model(tmp_path)


def test_a_subfolder_or_a_weight_file_names_the_remedy(tmp_path):
    card(tmp_path)
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    for part in ("checkpoints", "checkpoints/4"):
        with pytest.raises(UserError, match=f"give the run's folder {tmp_path}"):
            model_folder.load_model(tmp_path / part)
    (tmp_path / "x.pth").touch()
    with pytest.raises(UserError, match=r"fastfcn convert --input \S+/x\.pth --config"):
        model_folder.load_model(tmp_path / "x.pth")


def test_a_folder_without_an_intact_checkpoint_says_so(tmp_path):
    save(tmp_path, {1: None})
    card(tmp_path)
    damage(tmp_path / "checkpoints" / "1")
    with pytest.raises(UserError, match="no intact checkpoint"):
        model_folder.load_model(tmp_path)
