"""Files of weights as others make them: PyTorch's networks, and Caffe's messages by hand."""

import functools
import struct
import warnings

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra")
functional_torch = torch.nn.functional
save_file = pytest.importorskip("safetensors.torch").save_file  # imports torch
RESNET = {"pool1_padded": True}
V15 = {"stride_in": "3x3", "pool1_padded": True}


@functools.cache
def torchvision_models():
    """torchvision's networks. It is built for one PyTorch; of its operators none is needed."""
    pytest.importorskip("torchvision", reason="needs torchvision", exc_type=ModuleNotFoundError)
    from torchvision import models

    return models


try:  # where its compiled part does not fit this PyTorch, it asks for operators that are not there
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            library.define(f"{operator}(Tensor x) -> Tensor")
except RuntimeError:
    pass


def torch_network(name, **options):
    """A network of torchvision, or of timm, with random weights and statistics, in evaluation."""
    torch.manual_seed(0)
    if name == "googlenet":
        options |= {"init_weights": False, "transform_input": False}
    if name == "inception_v3":
        options |= {"init_weights": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "inception_v4":
            torchvision_models()  # which timm imports
            model = pytest.importorskip("timm", reason="needs timm").create_model(name, **options)
        else:
            model = getattr(torchvision_models(), name)(weights=None, **options)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):  # so that the image shows in the logits
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def torch_vgg11(classes):
    """torchvision's VGG-A for 32x32 pixels, with hidden layers of 8: 37 MB instead of 530.

    Returns:
      Its layers (to be saved, not run), and our options for it.
    """
    vgg, nn = torchvision_models().vgg, torch.nn
    hidden = [nn.Linear(512, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 8), nn.ReLU(), nn.Dropout()]
    layers = {
        "features": vgg.make_layers(vgg.cfgs["A"]),
        "classifier": nn.Sequential(*hidden, nn.Linear(8, classes)),
    }
    options = {"hidden": (8, 8), "num_classes": classes, "image_size": 32}
    return nn.ModuleDict(layers), options


def images(count=2, size=224, seed=0):
    return np.random.default_rng(seed).normal(0, 1, (count, size, size, 3)).astype(np.float32)


def to_torch(x):
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def saved(model, path):
    torch.save(model.state_dict(), path)
    return path


def field(number, payload):
    """A length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def blob(array, old):
    array = np.asarray(array, np.float32)
    data = field(5, array.tobytes())
    if old:  # num, channels, height, width
        dims = (1,) * (4 - array.ndim) + array.shape
        return b"".join(varint(n << 3) + varint(d) for n, d in enumerate(dims, start=1)) + data
    return field(7, field(1, b"".join(varint(d) for d in array.shape))) + data


V1_TYPES = {"Convolution": 4, "InnerProduct": 14, "LRN": 15, "Pooling": 17}


def caffemodel(path, layers, old=False):
    """Layers are (name, type, arrays, LRN settings); `old` writes V1LayerParameter."""
    content = field(1, b"net")
    for name, kind, arrays, *lrn in layers:
        if old:
            message = field(4, name.encode()) + varint(5 << 3) + varint(V1_TYPES[kind])
            message += b"".join(field(6, blob(a, old)) for a in arrays)
        else:
            message = field(1, name.encode()) + field(2, kind.encode())
            message += b"".join(field(7, blob(a, old)) for a in arrays)
        for size, alpha, beta in lrn:
            settings = varint(1 << 3) + varint(size)
            settings += varint(2 << 3 | 5) + struct.pack("<f", alpha)
            settings += varint(3 << 3 | 5) + struct.pack("<f", beta)
            message += field(18 if old else 118, settings)
        content += field(2 if old else 100, message)
    path.write_bytes(content)
    return path


def resnet20(classes=10, *, shortcut=None, head="linear"):
    """A state dict of the ResNet of 20 layers for CIFAR-10; `shortcut` names projections."""
    generator, state = torch.Generator().manual_seed(0), {}

    def conv(name, outputs, inputs, window):
        shape = (outputs, inputs, window, window)
        state[f"{name}.weight"] = torch.randn(shape, generator=generator)

    def norm(name, maps):
        for variable in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{variable}"] = torch.rand(maps, generator=generator) + 0.5
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    conv("conv1", 16, 3, 3)
    norm("bn1", 16)
    reads = 16
    for stage, maps in enumerate((16, 32, 64), start=1):
        for block in range(3):
            name = f"layer{stage}.{block}"
            for number, inputs in ((1, reads), (2, maps)):
                conv(f"{name}.conv{number}", maps, inputs, 3)
                norm(f"{name}.bn{number}", maps)
            if reads != maps and shortcut:
                conv(f"{name}.{shortcut[0]}", maps, reads, 1)
                norm(f"{name}.{shortcut[1]}", maps)
            reads = maps
    state[f"{head}.weight"] = torch.randn((classes, 64), generator=generator)
    state[f"{head}.bias"] = torch.randn((classes,), generator=generator)
    return state


def assert_same(loaded, expected):
    """Every array of two `Weights`, bit for bit."""
    for a, b in ((loaded.params, expected.params), (loaded.statistics, expected.statistics)):
        assert jax.tree.structure(a) == jax.tree.structure(b)
        jax.tree.map(np.testing.assert_array_equal, a, b)
