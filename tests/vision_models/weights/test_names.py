"""Prefixes, wrappings, and heads and shortcuts of other names."""

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.vision_models.weights.making import (
    RESNET,
    assert_same,
    caffemodel,
    resnet20,
    save_file,
    saved,
    torch,
    torch_network,
    torch_vgg11,
)
from vision_models import weights
from vision_models.weights import WeightsError

PAD = {"shortcut": "pad"}
PROJECTION = {"shortcut": "projection"}
WRAPPERS = [
    "module", "_orig_mod", "model", "net", "network", "backbone", "encoder", "encoder_q",
    "state_dict", "state_dict_ema", "model_ema", "ema", "model_state_dict", "params", "student",
    "_fsdp_wrapped_module", "a name nobody knows",
]  # fmt: skip


def renamed(state, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def write(content, path):
    if path.suffix == ".safetensors":
        save_file({n: t.contiguous() for n, t in content.items()}, path)
    else:
        torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The network of `resnet20()`, from names without a prefix."""
    path = tmp_path_factory.mktemp("plain") / "plain.pth"
    return weights.load(write(resnet20(), path), "resnet20", PAD)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    words=st.lists(st.sampled_from(WRAPPERS), max_size=5),
    nested=st.integers(0, 5),
    suffix=st.sampled_from([".pth", ".safetensors"]),
)
def test_prefixes_and_wrappings_in_every_order(words, nested, suffix, plain, tmp_path):
    """The outer words may be keys of dicts in dicts, where the format has these."""
    state = resnet20()
    depth = min(nested, len(words)) if suffix == ".pth" else 0
    content = renamed(state, "".join(f"{word}." for word in words[depth:]))
    for word in reversed(words[:depth]):
        content = {"epoch": 3, word: content}
    loaded = weights.load(write(content, tmp_path / f"x{suffix}"), "resnet20", PAD)
    assert_same(loaded, plain)
    assert loaded.notes == ()


def test_wrappers_around_parts(plain, tmp_path):
    state = {
        name.replace("layer2.0.", "layer2.module.0._orig_mod."): tensor
        for name, tensor in renamed(resnet20(), "module.").items()
    }
    loaded = weights.load(write(state, tmp_path / "x.pth"), "resnet20", PAD)
    assert_same(loaded, plain)


@pytest.mark.parametrize("average_first", [False, True])
@pytest.mark.parametrize(
    "prefix, average",
    [
        ("state_dict.", "state_dict_ema."),
        ("model.", "model_ema.module."),
        ("module.encoder_q.", "module.encoder_k."),
        ("student.", "teacher."),
        ("", "ema."),
        ("", "averaged_model.module."),
    ],
)
def test_an_average_beside_the_plain_one_is_not_taken_and_that_is_said(
    prefix, average, average_first, plain, tmp_path
):
    state = resnet20()
    other = {name: tensor + 1 for name, tensor in state.items()}
    parts = [renamed(state, prefix), renamed(other, average)]
    both = {**parts[average_first], **parts[not average_first]}
    for suffix in (".pth", ".safetensors"):
        loaded = weights.load(write(both, tmp_path / f"both{suffix}"), "resnet20", PAD)
        assert_same(loaded, plain)
        (note,) = loaded.notes
        assert note.startswith(f"taken: {prefix.rstrip('.') or 'the network without a prefix'}, ")
        assert f"the average beside it ({average.rstrip('.')})" in note
    alone = weights.load(write(parts[1], tmp_path / "average.pth"), "resnet20", PAD)
    assert alone.notes == ()
    assert not np.array_equal(alone.params["conv1"]["kernel"], plain.params["conv1"]["kernel"])


def test_the_first_of_several_is_taken_and_what_lies_beside_is_counted(tmp_path):
    """As MoCo saves: two encoders, a queue; and two networks of equal standing."""
    state = resnet20()
    extra = {"module.queue": torch.ones(8, 2), "module.queue_ptr": torch.ones(1)}
    path = write({"state_dict": renamed(state, "module.encoder_q.") | extra}, tmp_path / "moco.pth")
    loaded = weights.load(path, "resnet20", PAD)
    assert loaded.notes == (
        "left out, no part of the network: 2 tensors (state_dict.module.queue, "
        "state_dict.module.queue_ptr)",
    )
    two = renamed(state, "left.") | renamed({n: t + 1 for n, t in state.items()}, "right.")
    loaded = weights.load(write(two, tmp_path / "two.pth"), "resnet20", PAD)
    assert loaded.notes == ("taken: left, the first of several, and not right",)
    np.testing.assert_array_equal(
        loaded.params["conv1"]["kernel"], state["conv1.weight"].numpy().transpose(2, 3, 1, 0)
    )


def test_of_several_networks_the_one_that_is_wanted_is_taken(resnet18, tmp_path):
    """A loss with a network of its own in the same file."""
    other = torch.load(resnet18, weights_only=True)
    both = renamed(other, "perceptual.") | renamed(resnet20(), "net.")
    loaded = weights.load(write(both, tmp_path / "both.pth"), "resnet20", PAD)
    assert loaded.params["conv1"]["kernel"].shape == (3, 3, 3, 16)
    with pytest.raises(WeightsError, match="the config's network is resnet50"):
        weights.load(tmp_path / "both.pth", "resnet50")


def test_objects_beside_tensors_are_left_out_and_named(tmp_path):
    import argparse
    import collections

    arguments = argparse.Namespace(lr=0.1)
    counts = collections.Counter("abc")
    torch.save({"state_dict": resnet20(), "args": arguments, "c": counts}, tmp_path / "x.pth")
    loaded = weights.load(tmp_path / "x.pth", "resnet20", PAD)
    assert loaded.notes == (
        "left out objects that are no tensors (argparse.Namespace, collections.Counter)",
    )


@pytest.mark.parametrize(
    "shortcut",
    [
        ("downsample.0", "downsample.1"),
        ("shortcut.0", "shortcut.1"),
        ("shortcut.conv", "shortcut.bn"),
        ("skip", "skip_norm"),
        ("identity_conv.module", "identity_bn"),
    ],
)
def test_projections_of_any_name(shortcut, tmp_path):
    state = resnet20(shortcut=shortcut)
    known = resnet20(shortcut=("downsample.0", "downsample.1"))
    loaded = weights.load(write(state, tmp_path / "x.pth"), "resnet20", PROJECTION)
    assert_same(loaded, weights.load(write(known, tmp_path / "y.pth"), "resnet20", PROJECTION))
    with pytest.raises(WeightsError, match=r"need --config.model.shortcut=projection"):
        weights.load(tmp_path / "x.pth", "resnet20", PAD)


def test_other_parts_of_blocks_are_refused_and_named(tmp_path):
    state = resnet20(shortcut=("shortcut.0", "shortcut.1"))
    state["layer2.0.attention.weight"] = torch.zeros(32, 32, 1, 1)
    with pytest.raises(WeightsError, match=r"not of this network layer2.0.(shortcut|attention)"):
        weights.load(write(state, tmp_path / "x.pth"), "resnet20", PROJECTION)


HEADS = {
    "classes": {"linear": (7, 64)},
    "sequential": {"fc.0": (32, 64), "fc.2": (10, 32)},
    "classifier": {"classifier": (7, 64)},
    "head": {"head.fc1": (32, 64), "head.norm": (32,), "head.fc2": (5, 32)},
    "missing": {},
}


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_another_head_is_left_out_with_init_head_new(kind, prefix, tmp_path):
    state = resnet20()
    body = {n: t for n, t in state.items() if not n.startswith("linear.")}
    content = renamed(body, prefix)
    for layer, shape in HEADS[kind].items():
        content[f"{prefix}{layer}.weight"] = torch.ones(shape)
        content[f"{prefix}{layer}.bias"] = torch.ones(shape[:1])
    path = write(content, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"--config.init_head=new") as error:
        weights.load(path, "resnet20", PAD)
    assert "Nothing was loaded" not in str(error.value)
    loaded = weights.load(path, "resnet20", PAD, new_head=True)
    assert loaded.fresh == ("fc",)
    plain = weights.load(write(state, tmp_path / "y.pth"), "resnet20", PAD, new_head=True)
    assert_same(loaded, plain)
    count = 2 * len(HEADS[kind])
    said = [note for note in loaded.notes if "the classifier of the file" in note]
    assert len(said) == bool(count)
    assert all(f": {count} tensors (" in note for note in said)


def test_a_head_of_another_name_is_taken_if_it_can_be_no_other(plain, tmp_path):
    state = resnet20(head="last_layer")
    loaded = weights.load(write(state, tmp_path / "x.pth"), "resnet20", PAD)
    assert_same(loaded, plain)
    assert loaded.notes == ("taken for the classifier: last_layer",)
    # Outside of the prefix, as others put it beside a backbone.
    outside = {n if n.startswith("last_layer") else f"backbone.{n}": t for n, t in state.items()}
    loaded = weights.load(write(outside, tmp_path / "y.pth"), "resnet20", PAD)
    assert_same(loaded, plain)
    two = state | {"second.weight": torch.ones(10, 64), "second.bias": torch.ones(10)}
    with pytest.raises(WeightsError, match=r"another classifier .*--config.init_head=new"):
        weights.load(write(two, tmp_path / "z.pth"), "resnet20", PAD)


def test_what_is_no_head_is_never_left_out(tmp_path):
    for name, shape in {"layer1.0.extra.weight": (2,), "stem.weight": (16, 16, 3, 3)}.items():
        state = resnet20() | {name: torch.ones(shape)}
        with pytest.raises(WeightsError, match=f"not of this network {name}"):
            weights.load(write(state, tmp_path / "x.pth"), "resnet20", PAD, new_head=True)
    state = resnet20()
    del state["layer3.2.conv2.weight"]
    with pytest.raises(WeightsError, match=r"missing layer3.2.conv2.weight"):
        weights.load(write(state, tmp_path / "x.pth"), "resnet20", PAD, new_head=True)


def lenet_layers(**heads):
    rng = np.random.default_rng(0)
    shapes = {"conv1": (20, 1, 5, 5), "conv2": (50, 20, 5, 5), "ip1": (500, 800), **heads}
    return [
        (
            name,
            "Convolution" if name.startswith("conv") else "InnerProduct",
            [rng.normal(size=shape), rng.normal(size=shape[:1])],
        )
        for name, shape in shapes.items()
    ]


def test_a_layer_renamed_in_caffe(tmp_path):
    """Caffe's way to train a new classifier is to give its layer another name."""
    path = caffemodel(tmp_path / "x.caffemodel", lenet_layers(ip2_flickr=(20, 500)))
    with pytest.raises(
        WeightsError, match=r"another classifier \(ip2_flickr.weight, ip2_flick.*new"
    ):
        weights.load(path, "lenet_caffe")
    loaded = weights.load(path, "lenet_caffe", new_head=True)
    assert loaded.fresh == ("ip2",)
    assert loaded.params["ip1"]["kernel"].shape == (800, 500)
    assert loaded.notes == (
        "left out, the classifier of the file: 2 tensors (ip2_flickr.weight, ip2_flickr.bias)",
    )
    taken = weights.load(path, "lenet_caffe", {"num_classes": 20})
    assert taken.notes == ("taken for the classifier: ip2_flickr",)
    assert taken.params["ip2"]["kernel"].shape == (500, 20)
    alone = caffemodel(tmp_path / "y.caffemodel", lenet_layers())
    with pytest.raises(
        WeightsError, match=r"no classifier \(ip2.weight is missing\).*init_head=new"
    ):
        weights.load(alone, "lenet_caffe")
    assert weights.load(alone, "lenet_caffe", new_head=True).fresh == ("ip2",)


def test_wrapped_state_dicts(resnet18, tmp_path):
    state = torch.load(resnet18, weights_only=True)
    expected = weights.load(resnet18, "resnet18", RESNET)
    parallel = {f"module.{k}": v for k, v in state.items()}
    for wrapped in ({"state_dict": state, "epoch": 3}, {"model": parallel}, {"anything": state}):
        torch.save(wrapped, tmp_path / "wrapped.pth")
        loaded = weights.load(tmp_path / "wrapped.pth", "resnet18", RESNET)
        jax.tree.map(np.testing.assert_array_equal, loaded.params, expected.params)
    torch.save({"outer": {"state_dict": state}}, tmp_path / "deep.pth")
    assert_same(weights.load(tmp_path / "deep.pth", "resnet18", RESNET), expected)
    torch.save({"outer": [1, 2], "inner": 3}, tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="no tensors by name, but outer, inner; save the"):
        weights.load(tmp_path / "none.pth", "resnet18", RESNET)


def test_files_of_training_scripts(tmp_path):
    """A tensor beside the state dict; DataParallel around a part; compiled modules."""
    peer, options = torch_vgg11(classes=5)
    expected = weights.load(saved(peer, tmp_path / "plain.pth"), "vgg_a", options)
    state = {
        "_orig_mod." + k.replace("features.", "features.module."): v
        for k, v in peer.state_dict().items()
    }
    torch.save({"best_acc1": torch.tensor(3.0), "state_dict": state}, tmp_path / "script.pth")
    loaded = weights.load(tmp_path / "script.pth", "vgg_a", options)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, expected.params)


def test_a_new_head(tmp_path):
    peer = torch_network("googlenet")
    path = saved(peer, tmp_path / "googlenet.pth")
    with pytest.raises(WeightsError) as error:
        weights.load(path, "googlenet_bn", {"num_classes": 7})
    assert "fc.weight is 1000x1024 there, 7x1024 here" in str(error.value)
    assert "--config.init_head=new" in str(error.value)
    loaded = weights.load(path, "googlenet_bn", {"num_classes": 7}, new_head=True)
    assert set(loaded.fresh) == {"classifier", "aux1/classifier", "aux2/classifier"}
    assert "classifier" not in loaded.params
    assert "fc" in loaded.params["aux1"] and "classifier" not in loaded.params["aux1"]
