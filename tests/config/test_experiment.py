"""Configurations: which values are accepted, error messages, and the JSON round trip."""

import ast
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fastfcn_jax import __main__ as door
from fastfcn_jax import servers
from fastfcn_jax.config import base, completion, experiment, page, schema
from fastfcn_jax.errors import UserError

ROOT = Path(__file__).parents[2]


def test_json_round_trip_keeps_every_value_and_type():
    original = experiment.load(str(ROOT / "configs/jpu_psp_camvid.py"))
    original.loss.class_weights = (1.0, 2.5)
    restored = experiment.from_json(experiment.to_json(original))
    assert dict(schema.flatten(restored)) == dict(schema.flatten(original))
    assert isinstance(restored.data.crop_size, tuple)


def test_a_misspelt_key_in_a_config_file_raises(tmp_path):
    file = tmp_path / "typo.py"
    file.write_text(
        "from fastfcn_jax.config.base import get_config as base\n"
        "def get_config():\n    c = base()\n    c.train.step = 3\n    return c\n"
    )
    with pytest.raises(UserError, match=r"typo\.py.*step"):
        experiment.load(str(file))


def test_unknown_variant_lists_those_that_exist():
    with pytest.raises(UserError, match=r"':8x8'.*:4x4"):
        experiment.load(f"{ROOT / 'configs/jpu_psp_cityscapes.py'}:8x8")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.head", "psq", "config.model.head='psq' is not one of: psp"),
        ("model.output_stride", 8, "'none'"),
        ("model.neck", "jpu_x", "official"),
        ("train.batch_size", 0, "at least 1"),
        ("optim.freeze", ("neck",), "config.optim.freeze=.* is not one of: backbone, bn"),
        ("train.ema_decay", 1.0, "below 1"),
        ("data.crop_size", (32,), "two whole numbers"),
        ("data.crop_size", (32, 32, 0, 32), "two whole numbers"),
        ("data.test_scale", (0, 10), "two whole numbers"),
        ("data.ratio_range", (2.0, 1.0), "min, max"),
        ("seed", -1, "at least 0"),
    ],
)
def test_invalid_values_are_refused(key, value, message):
    c = base.get_config()
    c.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message):
        schema.check(c)


def test_a_stored_key_of_another_version_is_named():
    stored = experiment.to_json(base.get_config())
    stored["model"]["gone"] = 1
    with pytest.raises(UserError, match=r"config\.model\.gone"):
        experiment.from_json(stored)


def test_differences_names_both_values():
    first = experiment.load(str(ROOT / "configs/jpu_psp_cityscapes.py"))
    second = experiment.load(f"{ROOT / 'configs/jpu_psp_cityscapes.py'}:4x4")
    assert ("train.batch_size", 8, 16) in experiment.differences(first, second)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def get_config(:", "invalid syntax"),
        ("model = dict()", "no attribute 'get_config'"),  # a config of mmsegmentation
    ],
)
def test_a_broken_config_file_is_named(tmp_path, text, says):
    file = tmp_path / "broken.py"
    file.write_text(text)
    run = subprocess.run(
        [sys.executable, "train.py", f"--config={file}"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 2
    assert run.stderr.startswith(f"error: {file}: ")
    assert says in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config", "configs/absent.py"], "configs/absent.py: no such configuration file"),
        (["--config", "configs/demo.py", "--config.train.stepz=3"], "stepz"),
        (["--config", "configs/demo.py", "--config.train.steps=many"], "config.train.steps=many"),
        (["--config", "configs/demo.py:fast"], ":fast"),
        (["--config", "configs/demo.py", "--config.model.head=psq"], "config.model.head='psq'"),
        ([], "--config"),
    ],
)
def test_bad_command_lines_end_with_one_sentence_and_status_2(arguments, sentence):
    run = subprocess.run(
        [sys.executable, "train.py", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 2
    assert run.stderr.startswith("error: ")
    assert sentence in run.stderr
    assert "Traceback" not in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


def test_a_model_written_before_a_key_existed_has_the_default():
    stored = experiment.to_json(base.get_config())
    del stored["model"]["stem"], stored["model"]["average_downsample"]
    assert experiment.from_json(stored).model == base.get_config().model


def test_the_page_of_keys_is_up_to_date():
    """To fix this, run: fastfcn config document > docs/configuration.md"""
    assert (ROOT / "docs/configuration.md").read_text() == page.page()


def test_every_key_is_explained_on_the_page_with_its_default():
    explained = {key: (default, meaning) for key, default, meaning in page.entries()}
    for key, value in schema.flatten(base.get_config()):
        default, meaning = explained[key]
        assert ast.literal_eval(default) == value
        assert len(meaning) >= 5, f"{key} has no comment in base_config.py"


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("python train.py --config configs/demo", ["configs/demo.py"]),
        ("fastfcn train --config jpu_psp_ca", ["jpu_psp_camvid"]),
        ("python train.py --config=configs/jpu_psp_ca", ["configs/jpu_psp_camvid.py"]),
        ("python eval.py --config a.py --config.train.ste", ["--config.train.steps="]),
        ("fastfcn train --config a --config.model.head=", ["psp", "aspp", "enc", "fcn"]),
        ("python train.py --config.train.wandb=T", ["True"]),
        ("python -m fastfcn_jax.doctor --fol", ["--folder"]),
        ("fastfcn predict --save", ["--save-logits"]),
        ("fastfcn predict --config.train.ste", []),
        ("fastfcn ", list(door.COMMANDS)),
        ("fastfcn pre", ["predict", "prepare"]),
        ("python -m fastfcn_jax re", ["report", "replay"]),
        ("fastfcn config sh", ["show"]),
        ("fastfcn config show configs/demo", ["configs/demo.py"]),
        ("python other.py --con", []),
        ("python train.py --workdir ", []),
        ("fastfcn predict --input ", []),
        ("fastfcn replay ", []),
        ("fastfcn report ", []),
        ("fastfcn report runs/a ", []),
        (
            "fastfcn report --output page.html runs/a --o",
            door.command("report").parser().flags()[1:],
        ),
        ("fastfcn serve ", door.command("serve").parser().flags()),
        ("fastfcn predict --legend ", door.command("predict").parser().flags()),
        ("fastfcn serve --port 80 ", door.command("serve").parser().flags()),
        ("fastfcn serve --port=80 ", door.command("serve").parser().flags()),
        ("python train.py ", door.command("train").parser().flags()),
        ("fastfcn doctor --split ", ["auto", "fifth"]),
        ("fastfcn doctor --split=fi", ["fifth"]),
        ("fastfcn doctor --split fi", ["fifth"]),
        ("fastfcn train --config a --config.model.head ", ["psp", "aspp", "enc", "fcn"]),
        ("fastfcn train --config a --config.train.steps ", []),
        ("fastfcn config ", ["list", "show", "diff", "document", "complete", "rename-class"]),
        ("fastfcn config complete ", ["bash", "zsh"]),
        ("fastfcn weights ", ["list", "get", "where"]),
        ("fastfcn weights get ", ["resnet50_v1c", "jpu_psp_ade20k"]),
        ("fastfcn submit ", list(servers.SERVERS)),
        ("ls ", []),
    ],
)
def test_the_tab_key_offers(line, offered):
    """Runs the completion function in bash."""
    parsers = {name: door.command(name).parser() for name in door.COMMANDS}
    words = {n: completion.Words(p.flags(), p.values(), p.first()) for n, p in parsers.items()}
    script = f"""{completion.script("bash", words, ["resnet50_v1c", "jpu_psp_ade20k"])}
        compopt() {{ :; }}  # speaks to the line editor, which is not there
        COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)}
        _fastfcn_jax
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    run = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert run.stderr == ""
    assert run.stdout.split() == offered
