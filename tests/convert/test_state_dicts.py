"""Finding weights in files of PyTorch users: other keys, prefixes, averaged copies."""

import numpy as np
import pytest
import torch

from fastfcn_jax.convert import pth, weight_file
from fastfcn_jax.errors import UserError

NAMES = ("backbone.layer1.0.conv1.weight", "decode_head.conv_seg.weight")


def weights(prefix: str = "", value: float = 1.0) -> dict[str, torch.Tensor]:
    return {prefix + name: torch.full((2,), value) for name in NAMES}


def read(tmp_path, content, kind=None):
    torch.save(content, tmp_path / "a.pth")
    return pth.read(tmp_path / "a.pth", kind)


@pytest.mark.parametrize(
    ("content", "keys", "prefix"),
    [
        (weights("module."), "", "module."),
        (weights("module._orig_mod."), "", "module._orig_mod."),
        ({"state_dict": weights("model.")}, "state_dict", "model."),
        ({"model_state_dict": weights(), "optimizer_state_dict": {}}, "model_state_dict", ""),
        ({"net": weights("module.module.")}, "net", "module.module."),
        ({"model": {"weights": weights("segmentor.")}}, "model.weights", "segmentor."),
    ],
)
def test_weights_under_other_keys_and_prefixes(tmp_path, content, keys, prefix):
    result = read(tmp_path, content)
    assert tuple(result.tensors) == NAMES
    assert (result.found.keys, result.found.prefix) == (keys, prefix)


def test_entries_outside_the_model_are_named_and_left_out(tmp_path):
    """A SWA model counts its averages; Lightning saves the weights of losses."""
    result = read(tmp_path, {"n_averaged": torch.tensor(3), **weights("module.")})
    assert tuple(result.tensors) == NAMES
    assert result.found.outside == ("n_averaged",)
    assert result.found.averaged
    beside = {"criterion.weight": torch.ones(3), **weights("model.")}
    assert read(tmp_path, {"state_dict": beside}).found.outside == ("criterion.weight",)


def test_averaged_weights_are_taken_unless_the_others_are_asked_for(tmp_path):
    content = {"model": weights(value=1.0), "ema": {"module": weights(value=2.0)}}
    averaged = read(tmp_path, content)
    assert averaged.tensors[NAMES[0]][0] == 2.0
    assert str(averaged.found) == "under 'ema.module', averaged, 'model' left aside"
    assert read(tmp_path, content, "ema").tensors[NAMES[0]][0] == 2.0
    assert read(tmp_path, content, "model").tensors[NAMES[0]][0] == 1.0
    with pytest.raises(UserError, match=r"a\.pth: it holds no averaged weights, only 'model'\."):
        read(tmp_path, {"model": weights()}, "ema")


def test_mmengine_swaps_averaged_and_plain_weights(tmp_path):
    """Its `state_dict` is what it evaluates: the averaged weights; `ema_state_dict` has the others.

    Saved by the hook itself.
    """
    from mmengine.hooks import EMAHook
    from mmengine.model import ExponentialMovingAverage

    model = torch.nn.Module()
    model.layer1 = torch.nn.Sequential(torch.nn.Module())
    model.layer1[0].conv1 = torch.nn.Conv2d(1, 1, 1, bias=False)
    torch.nn.init.constant_(model.layer1[0].conv1.weight, 1.0)
    hook = EMAHook()
    hook.src_model, hook.ema_model = model, ExponentialMovingAverage(model)
    torch.nn.init.constant_(model.layer1[0].conv1.weight, 5.0)  # trained on since
    content: dict = {"message_hub": {}, "state_dict": dict(model.state_dict())}
    hook.enabled_by_epoch, hook.begin_iter, hook.begin_epoch = False, 0, 0
    hook.before_save_checkpoint(None, content)
    torch.save(content, tmp_path / "a.pth")
    for kind, value in ((None, 1.0), ("ema", 1.0), ("model", 5.0)):
        result = pth.read(tmp_path / "a.pth", kind)
        assert result.tensors["layer1.0.conv1.weight"].item() == value
    assert result.found.outside == ("steps",)


def test_several_models_are_refused_by_name(tmp_path):
    content = {"student": weights(), "other": weights()}
    with pytest.raises(UserError, match="it holds 2 models, not one: 'student', 'other'"):
        read(tmp_path, content)


def test_no_weights_names_the_keys(tmp_path):
    with pytest.raises(UserError, match="it holds no weights; its keys are: epoch, optimizer"):
        read(tmp_path, {"epoch": 3, "optimizer": {"state": {}}})


def test_a_dictionary_that_contains_itself_ends(tmp_path):
    content: dict = {"state_dict": weights()}
    for number in range(200):
        content[f"again {number}"] = content
    assert tuple(read(tmp_path, content).tensors) == NAMES


def test_safetensors_are_read_as_pth(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "a.safetensors"
    tensors = {"model." + NAMES[0]: torch.arange(6.0).reshape(2, 3).to(torch.bfloat16)}
    save_file(tensors, path)
    result = weight_file.read(path)
    np.testing.assert_array_equal(
        np.asarray(result.tensors[NAMES[0]], np.float32), np.arange(6.0).reshape(2, 3)
    )
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"a\.safetensors: is not a complete \.safetensors file"):
        weight_file.read(path)
    with pytest.raises(UserError, match=r"b\.safetensors: cannot be read"):
        weight_file.read(tmp_path / "b.safetensors")
