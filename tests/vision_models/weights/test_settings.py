"""Settings that no tensor shows: those of every file are compared with the config's."""

import ast
import re

import numpy as np
import pytest
from flax import nnx

import vision_models
from tests.networks import drawn
from tests.vision_models.weights.making import caffemodel
from vision_models import weights
from vision_models.functional import variables
from vision_models.weights import WeightsError, caffe, pytorch
from vision_models.weights.convert import convert, layers_with_variables
from vision_models.weights.fitting import abstract, check_options
from vision_models.weights.types import Source, Tensor

# Two values of every option that is no switch.
VALUES = {
    "neuron": ("relu", "tanh"), "pool": ("max", "average"), "pool_window": (3, 2),
    "lrn_constants": ({"k": 1.0}, {"k": 3.0}), "shortcut": ("projection", "pad"),
    "stride_in": ("1x1", "3x3"), "towers": (2, 1), "conv6": (0, 8),
    "kernels": ((96, 256, 384, 384, 256), (8, 8, 8, 8, 8)), "hidden": ((4096, 4096), (8, 8)),
    "exchanges": ("pool2,pool5,fc6,fc7", "pool5,fc6,fc7"), "without": ("", "conv4"),
}  # fmt: skip
# Sizes of the images and of the head, and what matters in training alone.
FREE = ("num_classes", "image_size", "dropout", "auxiliary_dropout", "init")
LRN = {"size": 5, "k": 1.0, "alpha": 1e-4, "beta": 0.75}


def tensors_of(naming, name, model):
    """A network's tensors as a foreign file has them, and their shapes."""
    called = naming.layer_names(name, model, Source("", {}, ""))
    shapes = {
        naming.tensor_name(called[path], variable): convert(layer, variable, None)[0]
        for path, layer in layers_with_variables(model).items()
        for variable in layer.shapes
    }
    return {n: Tensor(shape, "float32", lambda: None) for n, shape in shapes.items()}, shapes


@pytest.mark.parametrize(
    "naming, name",
    [
        (caffe, "lenet_caffe"),
        (caffe, "nin_imagenet"),
        (caffe, "alexnet"),
        (caffe, "vgg_a"),
        (caffe, "googlenet"),
        (caffe, "resnet50"),
        (pytorch, "alexnet_owt"),
        (pytorch, "vgg_a"),
        (pytorch, "vgg_a_bn"),
        (pytorch, "googlenet_bn"),
        (pytorch, "resnet18"),
        (pytorch, "resnet50"),
        (pytorch, "resnet20"),
        pytest.param(pytorch, "inception_v3", marks=pytest.mark.slow),
        pytest.param(pytorch, "inception_v4", marks=pytest.mark.slow),
    ],
)
def test_what_makes_another_network_is_compared_or_shows_in_the_tensors(naming, name):
    """Each option of every network that is read from elsewhere, changed by itself."""
    tensors, _ = tensors_of(naming, name, abstract(name, {}))
    layers = [("norm1", "LRN", LRN), ("pool1", "Pooling", {})] if naming is caffe else []
    _, found = naming.recognise(Source("", tensors, "", layers=layers))
    check_options("file", name, found, found)
    model = abstract(name, found)
    (_, shapes), (program, _) = tensors_of(naming, name, model), nnx.split(model)
    for option, value in {**vision_models.default_options(name), **found}.items():
        if option in (*FREE, *vision_models.definition(name)) or option.startswith("init_"):
            continue
        values = (True, False) if isinstance(value, bool) else VALUES[option]
        wanted = {**found, option: next(v for v in values if v != value)}
        try:
            check_options("file", name, wanted, found)
            other = abstract(name, wanted)
        except WeightsError:  # compared, or impossible
            continue
        assert tensors_of(naming, name, other)[1] != shapes or nnx.split(other)[0] == program, (
            option
        )


SMALL = {"kernels": (8, 12, 16, 16, 12), "hidden": (24, 20), "num_classes": 3, "image_size": 67}
SHAPES = {
    "conv1": (8, 3, 11, 11), "conv2": (12, 4, 5, 5), "conv3": (16, 12, 3, 3),
    "conv4": (16, 8, 3, 3), "conv5": (12, 8, 3, 3),
    "fc6": (24, 12), "fc7": (20, 24), "fc8": (3, 20),
}  # fmt: skip
OF_CAFFE = {
    "lrn_constants": {**LRN, "average": True},
    "lrn_across_towers": True,
    "inverted_dropout": True,
}
ORIGINAL = {
    "lrn_constants": {"size": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75, "average": True},
    "norm1_before_neuron": True,
    "spatial_norm2": True,
}


def small_alexnet(path, *norm):
    """A small AlexNet of Caffe; `norm` are its layers before pool1."""
    layers = [
        (
            name,
            "Convolution" if name.startswith("conv") else "InnerProduct",
            [np.ones(shape, np.float32), np.ones(shape[:1], np.float32)],
        )
        for name, shape in SHAPES.items()
    ]
    layers[1:1] = [*norm, ("max1", "Pooling", [])]
    return caffemodel(path, layers)


def advised(error, options):
    """The options after the overrides that an error names."""
    overrides = re.findall(r"--config\.model\.([\w.]+)=(\S+)", str(error.value))
    options = {k: dict(v) if isinstance(v, dict) else v for k, v in options.items()}
    for name, value in overrides:
        outer, _, inner = name.partition(".")
        value = value if value.isalpha() and value.islower() else ast.literal_eval(value)
        if inner:
            options.setdefault(outer, {})[inner] = value
        else:
            options[outer] = value
    return options


@pytest.mark.parametrize(
    "options",
    [
        {},
        ORIGINAL,
        {**OF_CAFFE, "pool_window": 2},
        {**OF_CAFFE, "lrn": False},
        {**OF_CAFFE, "lcn": True},
        {**OF_CAFFE, "spatial_norm2": True},
        {**OF_CAFFE, "norm1_before_neuron": True},
        {**OF_CAFFE, "pool_before_norm": True},
        # By the program's interface: create takes its own defaults for what is left out.
        {**OF_CAFFE, "lrn_constants": LRN},
    ],
)
def test_who_follows_the_message_has_caffes_alexnet(options, tmp_path):
    """All that differs is named at once, whatever the config was."""
    path = small_alexnet(tmp_path / "net.caffemodel", ("lrn1", "LRN", [], (5, 1e-4, 0.75)))
    expected = nnx.split(abstract("alexnet", {**SMALL, **OF_CAFFE}))[0]
    assert nnx.split(abstract("alexnet", {**SMALL, **options}))[0] != expected
    with pytest.raises(WeightsError, match=r"alexnet of other settings, which need") as error:
        weights.load(path, "alexnet", {**SMALL, **options})
    followed = advised(error, options)
    loaded = weights.load(path, "alexnet", {**SMALL, **followed})
    assert nnx.split(abstract("alexnet", loaded.options))[0] == expected


def test_caffes_alexnet_without_normalisation_and_with_caffes_own_constants(tmp_path):
    """No layer is no normalisation; a layer without settings has those of caffe.proto."""
    path = small_alexnet(tmp_path / "none.caffemodel")
    with pytest.raises(WeightsError, match=r"which need --config.model.lrn=False$"):
        weights.load(path, "alexnet", {**SMALL, **OF_CAFFE})
    weights.load(path, "alexnet", {**SMALL, **OF_CAFFE, "lrn": False})
    path = small_alexnet(tmp_path / "default.caffemodel", ("lrn1", "LRN", []))
    with pytest.raises(WeightsError, match=r"which need --config.model.lrn_constants.alpha=1.0$"):
        weights.load(path, "alexnet", {**SMALL, **OF_CAFFE})


def test_constants_that_an_own_file_leaves_out_are_the_defaults(tmp_path):
    """Those that `create` takes."""
    made = {**SMALL, "lrn_constants": {"k": 1.0}}
    path = tmp_path / "w.safetensors"
    network = drawn(lambda rngs: vision_models.create("alexnet", rngs=rngs, **made))
    weights.save(path, "alexnet", made, *variables(network))
    weights.load(path, "alexnet", made)
    other = {**SMALL, "lrn_constants": {"k": 1.0, "average": True}}
    with pytest.raises(WeightsError, match=r"need --config.model.lrn_constants.average=False$"):
        weights.load(path, "alexnet", other)
