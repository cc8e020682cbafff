"""The command line: help, errors, bare names, `~`, Ctrl-C; and the commands as functions."""

import inspect
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import fastfcn_jax
from fastfcn_jax import __main__ as door
from fastfcn_jax import cli
from fastfcn_jax.config import base, schema
from fastfcn_jax.errors import UserError

ROOT = Path(__file__).parents[1]


def called(*words: str, capsys) -> tuple[int, str, str]:
    """Runs a command line in this process; returns exit status, stdout and stderr."""
    try:
        status = door.command(words[0]).main(words[1:])
    except SystemExit as error:  # argparse exits after --help
        status = error.code
    said = capsys.readouterr()
    return status, said.out, said.err


def test_the_overview_has_a_line_for_each_command(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fastfcn"])
    assert door.main() == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:2] == "  "]
    assert listed == list(door.COMMANDS)


@pytest.mark.parametrize("name", list(door.COMMANDS))
def test_help_begins_with_an_example_that_parses_and_ends_with_0(name, capsys):
    status, out, err = called(name, "--help", capsys=capsys)
    command = door.command(name)
    assert (status, err) == (0, "")
    assert command.name == name
    assert out.splitlines()[0].strip() == command.example
    assert len(out.splitlines()) <= 40
    program, first, *words = command.example.split()
    assert (program, first) == ("fastfcn", name)
    command.parser().parse(words)


@pytest.mark.parametrize("name", [n for n in door.COMMANDS if door.command(n).parser()._examples])
def test_a_missing_flag_names_an_example(name, capsys):
    status, out, err = called(name, capsys=capsys)
    flag = err.removeprefix("error: ").split()[0]
    assert (status, out) == (2, "")
    assert f"{flag} is missing; for example {flag} " in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["predict", "--inptu=a"], "--inptu: no such flag; did you mean --input?"),
        (["predict", "--config.train.steps=3"], "takes no configuration"),
        (["train", "--config", "jpu_psp_citys"], "did you mean jpu_psp_cityscapes"),
        (["train", "--config", "demo", "--config.train.steps"], "config.train.steps"),
        (["bench", "--config", "demo", "--rounds", "0"], "--rounds: 0 is not a whole number"),
        (["bench", "--config", "demo", "--rounds", "²"], "--rounds: ² is not a whole number"),
        (["export", "--format", "onx"], "--format: invalid choice: 'onx'"),
        (["config", "shwo"], "usage: fastfcn config list"),
        (["predict", "--input"], "--input: its value is missing; for example --input photo.jpg"),
        (["serve", "--port"], "--port: its value is missing; for example --port VALUE"),
        (["bench", "--batch"], "--batch: its value is missing; for example --batch N"),
        (["doctor", "--split"], "--split: its value is missing; for example --split auto"),
        (["predict", "--input=-", "--output=b"], "missing; for example --checkpoint runs/demo"),
        (["predict", "--input=-", "--output=b", "--model=c", "--checkpoint=d"], "give one of them"),
        (["export", "--checkpoint=a", "--format=onnx", "--output=b"], "example --size 512 1024"),
        (["replay"], "is missing; for example fastfcn replay runs/demo"),
        (["submit", "--images", "a"], "for example fastfcn submit cityscapes --checkpoint"),
        (["doctor"], "for example --config jpu_psp_cityscapes"),
        (["weights"], "fastfcn weights list, get NAME, or where NAME"),
    ],
)
def test_a_user_error_is_one_sentence_and_status_2(words, sentence, capsys):
    status, out, err = called(*words, capsys=capsys)
    assert (status, out) == (2, "")
    assert sentence in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_an_unknown_command_names_the_nearest(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fastfcn", "trian"])
    assert door.main() == 2
    assert "did you mean train?" in capsys.readouterr().err


def test_underscores_and_dashes_are_the_same_flag():
    parse = door.command("predict").parser
    for words in (["--save_logits", "--batch_size=3"], ["--save-logits", "--batch-size", "3"]):
        found = parse().parse(["--input", "a_b.jpg", "--output=o_o", *words])
        assert (found.save_logits, found.batch_size) == (True, 3)
        assert (found.input, found.output) == ("a_b.jpg", Path("o_o"))


def test_overrides_change_a_bare_configuration_by_type():
    words = ["--config=demo", "--config.train.steps", "7", "--config.data.crop_size=(64, 96)"]
    found = door.command("train").parser().parse([*words, "--config.train.wandb"])
    assert (found.spec, found.config.train.steps) == ("demo", 7)
    assert found.config.data.crop_size == (64, 96)
    assert found.config.train.wandb is True
    assert door.command("train").parser().parse(["--config=demo"]).config.train.steps != 7


def test_home_is_expanded_in_every_path(monkeypatch, tmp_path):
    """A shell does not expand `~` after `=`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["--config=demo", "--workdir=~/run"]
    for section, key in (("data", "root"), ("data", "cache"), ("init", "checkpoint")):
        words.append(f"--config.{section}.{key}=~/{key}")
    found = door.command("train").parser().parse(words)
    assert found.workdir == tmp_path / "run"
    assert found.config.data.root == str(tmp_path / "root")
    assert found.config.data.cache == str(tmp_path / "cache")
    assert found.config.init.checkpoint == str(tmp_path / "checkpoint")


def test_every_flag_that_is_a_path_expands_home():
    """A path flag parsed as a plain string would create a folder called `~`."""
    for name in door.COMMANDS:
        for action in door.command(name).parser()._actions:
            if action.metavar in ("DIR", "FILE", "OUT", "PHOTOS"):
                assert action.type is cli.path, f"{name} {action.option_strings}"


def test_every_key_that_holds_a_path_is_expanded():
    from fastfcn_jax.config.experiment import PATHS

    keys = dict(schema.flatten(base.get_config()))
    assert {f"{a}.{b}" for a, b in PATHS} <= keys.keys()
    endings = (".root", ".cache", ".checkpoint", ".backbone", ".local_checkpoints")
    named = {key for key in keys if key.endswith(endings)}
    assert named - {"model.backbone"} == {f"{a}.{b}" for a, b in PATHS}


def test_ctrl_c_is_one_line_and_status_130():
    program = """
import sys, time
from fastfcn_jax import cli
def work():
    print("at work", flush=True)
    time.sleep(100)
sys.exit(cli.guarded(work))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "at work\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == "interrupted\n"
    assert process.returncode == 130


@pytest.mark.slow
def test_jax_and_xla_print_no_warnings_of_their_own():
    """A machine with a GPU that JAX cannot use, and a constant that XLA folds for over a second."""
    program = """
import os, sys
os.environ.pop("JAX_PLATFORMS", None)
from fastfcn_jax import cli
def work():
    import jax, numpy as np
    from jax._src import hardware_utils
    hardware_utils.has_visible_nvidia_gpu = lambda: True
    x = np.ones((1, 36, 36, 4), np.float32)
    window = (1, 15, 15, 1)
    fold = lambda: jax.lax.reduce_window(x, -np.inf, jax.lax.max, window, (1, 1, 1, 1), "SAME")
    jax.jit(fold).lower().compile()
sys.exit(cli.guarded(work))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_pipe_ends_quietly():
    line = f"{sys.executable} -m fastfcn_jax config show demo | head -1"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("name", ["predict", "convert", "export", "serve", "doctor", "bench"])
def test_a_subpackage_can_be_called_as_its_function(name):
    """Also after a module in the package was imported, which sets the attribute to the package."""
    function = getattr(fastfcn_jax, name)
    inner = inspect.unwrap(function)
    assert inspect.isfunction(inner)
    assert inspect.getdoc(inner)
    assert getattr(fastfcn_jax, name) is sys.modules[f"fastfcn_jax.{name}"]
    with pytest.raises((UserError, TypeError)):
        function("no such thing", "nowhere")


def test_the_package_lists_its_functions():
    assert set(fastfcn_jax.__all__) <= set(dir(fastfcn_jax))
    for name in fastfcn_jax.__all__:
        assert getattr(fastfcn_jax, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        fastfcn_jax.trian  # noqa: B018


def test_the_wheel_trains_by_a_bare_name_in_another_folder(tmp_path):
    """Runs the files of the wheel in another folder, without a checkout."""
    site = tmp_path / "site"
    shutil.copytree(ROOT / "fastfcn_jax", site / "fastfcn_jax")
    shutil.copytree(ROOT / "configs", site / "fastfcn_jax" / "configs")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def fastfcn(*words):
        return subprocess.run(
            [sys.executable, "-m", "fastfcn_jax", *words],
            cwd=elsewhere,
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
        )

    shown = fastfcn("config", "show", "jpu_psp_cityscapes:4x4")
    assert "train.batch_size = 16" in shown.stdout
    refused = fastfcn("train", "--config", "jpu_psp_cityscapes", "--config.data.root=absent")
    assert refused.returncode == 2
    assert "absent" in refused.stderr
    assert not list(elsewhere.iterdir()), "a refused start leaves no folder"
