"""Bad files. Each message says which tensors, or what to do."""

import pickle

import numpy as np
import pytest
from flax import nnx

import vision_models
from tests.vision_models.weights.making import RESNET, V15, caffemodel, saved, torch, torch_network
from vision_models import weights
from vision_models.functional import variables
from vision_models.weights import WeightsError


def test_another_network_is_named(resnet18, tmp_path):
    with pytest.raises(WeightsError, match=r"holds a resnet18, the config's network is resnet50"):
        weights.load(resnet18, "resnet50", V15)
    with pytest.raises(WeightsError, match=r"holds a resnet18, the config's network is alexnet;"):
        weights.load(resnet18, "alexnet")
    torch.save({"a.weight": torch.zeros(3), "b.bias": torch.zeros(3)}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"of no network that is known here \(a.weight, b.bias"):
        weights.load(tmp_path / "x.pth", "resnet18")


def test_missing_extra_and_misshapen_tensors_are_named(resnet18, tmp_path):
    state = torch.load(resnet18, weights_only=True)
    del state["layer2.0.conv1.weight"], state["bn1.running_mean"]
    state["layer1.0.extra"] = torch.zeros(2)
    state["layer3.1.conv2.weight"] = torch.zeros(4, 4, 3, 3)
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(WeightsError) as error:
        weights.load(tmp_path / "bad.pth", "resnet18", RESNET)
    message = str(error.value)
    assert "missing bn1.running_mean, layer2.0.conv1.weight" in message
    assert "layer3.1.conv2.weight is 4x4x3x3 there, 256x256x3x3 here" in message
    assert "not of this network layer1.0.extra" in message
    assert "Nothing was loaded" in message


def test_settings_that_tensors_do_not_show_are_asked_for(resnet18, tmp_path):
    with pytest.raises(WeightsError, match=r"need --config.model.pool1_padded=True"):
        weights.load(resnet18, "resnet18")
    path = saved(torch_network("resnet50"), tmp_path / "resnet50.pth")
    with pytest.raises(WeightsError) as error:
        weights.load(path, "resnet50")
    for override in ("--config.model.stride_in=3x3", "--config.model.pool1_padded=True"):
        assert override in str(error.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".caffemodel"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_truncated_files(suffix, share, tmp_path):
    path = tmp_path / f"whole{suffix}"
    if suffix == ".pth":
        saved(torch_network("resnet18"), path)
    elif suffix == ".safetensors":
        model = vision_models.create("lenet_caffe", rngs=nnx.Rngs(0))
        weights.save(path, "lenet_caffe", {}, *variables(model))
    else:
        caffemodel(path, [("conv1", "Convolution", [np.ones((4, 3, 5, 5)), np.ones(4)])])
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(WeightsError, match=r"cut short|is it a .caffemodel"):
        weights.load(path, "resnet18", RESNET)


class Code:
    """What a pickle with code in it would run."""

    def __reduce__(self):
        return (print, ("executed!",))


def test_code_in_a_pickle_is_not_run(tmp_path, capsys):
    torch.save({"state_dict": Code()}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Code()))
    for name in ("evil.pth", "plain.pth"):
        with pytest.raises(WeightsError, match=r"refused.*Save the state dict alone"):
            weights.load(tmp_path / name, "resnet18")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(WeightsError, match="refused"):
        weights.load(tmp_path / "module.pth", "resnet18")
    assert "executed" not in capsys.readouterr().out


def test_files_that_are_none(tmp_path):
    with pytest.raises(WeightsError, match="there is no such file"):
        weights.load(tmp_path / "nothing.pth", "resnet18")
    (tmp_path / "weights.h5").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"weights are read from .pth, .pt, .th"):
        weights.load(tmp_path / "weights.h5", "resnet18")
    (tmp_path / "text.pth").write_text("hello there")
    with pytest.raises(WeightsError, match=r"no PyTorch file, or cut short|refused"):
        weights.load(tmp_path / "text.pth", "resnet18")
    with pytest.raises(WeightsError, match="choose config or one of torchvision"):
        weights.preprocessing("imagenet")


def test_numbers_that_are_none_are_refused(resnet18, tmp_path):
    state = torch.load(resnet18, weights_only=True)
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(WeightsError, match=r"layer1.0.conv1.weight holds numbers that are not fin"):
        weights.load(tmp_path / "nan.pth", "resnet18", RESNET)


def test_damaged_files_never_end_in_a_traceback(tmp_path):
    from safetensors.numpy import save_file

    one = {"a": np.ones(2, np.float32)}
    for number, metadata in enumerate(
        [
            {"format": "vision_models"},
            {"format": "vision_models", "model": "resnet18"},
            {"format": "vision_models", "model": "resnet18", "options": "{"},
            {"format": "vision_models", "model": "resnet18", "options": "[1]"},
            {"format": "vision_models", "model": "resnet19", "options": "{}"},
        ]
    ):
        path = tmp_path / f"{number}.safetensors"
        save_file(one, path, metadata)
        with pytest.raises(WeightsError, match=r"metadata do not say|no network of this project"):
            weights.load(path, "resnet18")
    page = tmp_path / "page.pth"
    page.write_text("<!DOCTYPE html>")
    with pytest.raises(WeightsError, match="a failed download"):
        weights.load(page, "resnet18")
    torch.save({1: torch.ones(2), 2: torch.ones(2)}, tmp_path / "numbers.pth")
    with pytest.raises(WeightsError, match="no tensors by name"):
        weights.load(tmp_path / "numbers.pth", "resnet18")
    short = [("bn1", "BatchNorm", [np.ones(2), np.ones(2)])]
    with pytest.raises(WeightsError, match="damaged, or no weights"):
        weights.load(caffemodel(tmp_path / "short.caffemodel", short), "resnet18")
