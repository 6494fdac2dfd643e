"""Weights from elsewhere: equality with PyTorch's own networks, Caffe's files, and bad files."""

import functools
import pickle
import struct
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vision_models
from vision_models import weights
from vision_models.forward import WHOLE_BATCH
from vision_models.functional import functional, variables
from vision_models.weights import WeightsError

torch = pytest.importorskip("torch", reason="needs the torch extra")
functional_torch = torch.nn.functional


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
    """A network of torchvision with random weights and statistics, in evaluation."""
    torch.manual_seed(0)
    if name == "googlenet":
        options |= {"init_weights": False, "transform_input": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
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


def images(count=2, size=224, seed=0):
    return np.random.default_rng(seed).normal(0, 1, (count, size, size, 3)).astype(np.float32)


def to_torch(x):
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def saved(model, path):
    torch.save(model.state_dict(), path)
    return path


RESNET = {"pool1_padded": True}
V15 = {"stride_in": "3x3", "pool1_padded": True}
# torchvision's name, ours, our options
NETWORKS = [
    ("alexnet", "alexnet_owt", {}),
    ("vgg16", "vgg_d", {}),
    ("vgg16_bn", "vgg16", {"batch_norm": True}),
    ("googlenet", "googlenet_bn", {}),
    ("resnet18", "resnet18", RESNET),
    ("resnet50", "resnet50", V15),
    pytest.param("resnet152", "resnet152", V15, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("theirs, ours, options", NETWORKS)
def test_logits_equal_torchvisions(theirs, ours, options, tmp_path):
    peer = torch_network(theirs)
    loaded = weights.load(saved(peer, tmp_path / "weights.pth"), ours, options)
    network = functional(lambda rngs: vision_models.create(ours, rngs=rngs, **options))
    x = images()
    with torch.no_grad():
        expected = peer(to_torch(x)).numpy()
    logits = np.asarray(jax.jit(network.apply)(loaded.params, loaded.statistics, x))
    assert np.abs(expected[0] - expected[1]).max() > 1e-3 * np.abs(expected).max()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logits / scale, expected / scale, atol=1e-4)


def gradients_in_torch(peer, x, labels, tmp_path):
    """The gradients of the mean cross-entropy in double precision, saved as if weights."""
    peer = peer.double()
    loss = functional_torch.cross_entropy(peer(to_torch(x).double()), torch.from_numpy(labels))
    loss.backward()
    state = peer.state_dict()
    for name, parameter in peer.named_parameters():
        state[name] = parameter.grad
    path = tmp_path / "gradients.pth"
    torch.save(state, path)
    return path


@pytest.mark.parametrize(
    "theirs, ours, options", [("alexnet", "alexnet_owt", {}), ("resnet18", "resnet18", RESNET)]
)
def test_gradients_equal_torchvisions(theirs, ours, options, tmp_path):
    peer = torch_network(theirs)
    loaded = weights.load(saved(peer, tmp_path / "weights.pth"), ours, options)
    x, labels = images(4), np.array([3, 999, 0, 500])
    path = gradients_in_torch(peer, x, labels, tmp_path)
    expected = weights.load(path, ours, options).params
    network = functional(lambda rngs: vision_models.create(ours, rngs=rngs, **options))

    # In double precision: in single, rounding decides which side of zero some ReLU is on.
    with jax.enable_x64(True):
        double = functools.partial(jax.tree.map, lambda a: jnp.asarray(a, jnp.float64))
        params, statistics, inputs = double((loaded.params, loaded.statistics, x))

        def loss(params):
            log_p = jax.nn.log_softmax(network.apply(params, statistics, inputs))
            return -log_p[np.arange(4), labels].mean()

        gradients = jax.device_get(jax.jit(jax.grad(loss))(params))
    for (path, ours_leaf), theirs_leaf in zip(
        jax.tree_util.tree_leaves_with_path(gradients), jax.tree.leaves(expected), strict=True
    ):
        scale = np.abs(theirs_leaf).max()
        assert scale > 0, path
        np.testing.assert_allclose(
            ours_leaf / scale, theirs_leaf / scale, atol=1e-5, err_msg=str(path)
        )


def test_batch_norm_statistics_equal_torchs_after_three_steps(tmp_path):
    """Three steps of plain gradient descent in training mode, statistics and parameters."""
    peer = torch_network("resnet18", num_classes=10).train()
    options = {**RESNET, "image_size": 64, "num_classes": 10}
    loaded = weights.load(saved(peer, tmp_path / "weights.pth"), "resnet18", options)
    network = functional(lambda rngs: vision_models.create("resnet18", rngs=rngs, **options))
    optimizer = torch.optim.SGD(peer.parameters(), lr=0.001)
    params, statistics = loaded.params, loaded.statistics
    keys = jax.random.split(jax.random.key(0), 8)

    @jax.jit
    def step(params, statistics, x, labels):
        def loss(params):
            logits, _, after = network.train(params, statistics, x, keys, WHOLE_BATCH)
            return -jax.nn.log_softmax(logits)[jnp.arange(8), labels].mean(), after

        gradients, after = jax.grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 0.001 * g, params, gradients), after

    for number in range(3):
        x, labels = images(8, 64, seed=number), np.arange(8) + number % 2
        optimizer.zero_grad()
        functional_torch.cross_entropy(peer(to_torch(x)), torch.from_numpy(labels)).backward()
        optimizer.step()
        params, statistics = step(params, statistics, x, labels)
    expected = weights.load(saved(peer, tmp_path / "after.pth"), "resnet18", options)
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max() > 1e-3, loaded.statistics, expected.statistics
    )
    assert all(jax.tree.leaves(moved))
    for name, a, b in (
        ("statistics", statistics, expected.statistics),
        ("params", params, expected.params),
    ):
        jax.tree.map(
            lambda x, y, name=name: np.testing.assert_allclose(
                x, y, rtol=1e-3, atol=1e-3 * np.abs(y).max(), err_msg=name
            ),
            a,
            b,
        )


def test_timms_names(tmp_path):
    """timm has VGG's fully connected layers as convolutions, and ResNets as torchvision."""
    peer = torch_network("vgg11")
    state = peer.state_dict()
    renamed = {k: v for k, v in state.items() if k.startswith("features")}
    for old, new, shape in (
        ("classifier.0", "pre_logits.fc1", (4096, 512, 7, 7)),
        ("classifier.3", "pre_logits.fc2", (4096, 4096, 1, 1)),
        ("classifier.6", "head.fc", (1000, 4096)),
    ):
        renamed[f"{new}.weight"] = state[f"{old}.weight"].reshape(shape)
        renamed[f"{new}.bias"] = state[f"{old}.bias"]
    torch.save(renamed, tmp_path / "timm.pth")
    timm = weights.load(tmp_path / "timm.pth", "vgg_a")
    torchvision = weights.load(saved(peer, tmp_path / "tv.pth"), "vgg_a")
    jax.tree.map(np.testing.assert_array_equal, timm.params, torchvision.params)


def test_safetensors_with_pytorchs_names_and_the_preprocessing(tmp_path):
    from safetensors.torch import save_file

    peer = torch_network("resnet18")
    save_file(peer.state_dict(), tmp_path / "model.safetensors")
    loaded = weights.load(tmp_path / "model.safetensors", "resnet18", RESNET)
    other = weights.load(saved(peer, tmp_path / "model.pth"), "resnet18", RESNET)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, other.params)
    np.testing.assert_allclose(
        loaded.normalization["mean"], 255 * np.array([0.485, 0.456, 0.406]), rtol=1e-5
    )
    np.testing.assert_allclose(
        loaded.normalization["deviation"], 255 * np.array([0.229, 0.224, 0.225]), rtol=1e-5
    )


# Caffe. The files here are encoded by hand, field by field as caffe.proto numbers them.


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


ALEXNET_SHAPES = {
    "conv1": (96, 3, 11, 11), "conv2": (256, 48, 5, 5), "conv3": (384, 256, 3, 3),
    "conv4": (384, 192, 3, 3), "conv5": (256, 192, 3, 3),
    "fc6": (4096, 9216), "fc7": (4096, 4096), "fc8": (1000, 4096),
}  # fmt: skip
CAFFE_LRN = {"size": 5, "k": 1.0, "alpha": 1e-4, "beta": 0.75, "average": True}


def alexnet_blobs(seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: (
            rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32),
            rng.normal(0, 0.1, shape[:1]).astype(np.float32),
        )
        for name, shape in ALEXNET_SHAPES.items()
    }


def caffe_alexnet(blobs, x, pool_first):
    """Caffe's AlexNet (or CaffeNet) in PyTorch: x is blue, green, red, 227 pixels."""
    f = functional_torch

    def tensors(name):
        return [torch.from_numpy(a) for a in blobs[name]]

    def norm_pool(x):
        def norm(x):
            return f.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)

        return norm(f.max_pool2d(x, 3, 2)) if pool_first else f.max_pool2d(norm(x), 3, 2)

    x = norm_pool(f.relu(f.conv2d(x, *tensors("conv1"), stride=4)))
    x = norm_pool(f.relu(f.conv2d(x, *tensors("conv2"), padding=2, groups=2)))
    x = f.relu(f.conv2d(x, *tensors("conv3"), padding=1))
    x = f.relu(f.conv2d(x, *tensors("conv4"), padding=1, groups=2))
    x = f.relu(f.conv2d(x, *tensors("conv5"), padding=1, groups=2))
    x = f.max_pool2d(x, 3, 2).flatten(1)
    x = f.relu(f.linear(x, *tensors("fc6")))
    x = f.relu(f.linear(x, *tensors("fc7")))
    return f.linear(x, *tensors("fc8")).numpy()


@pytest.mark.parametrize("pool_first, old", [(False, True), (True, False)])
def test_caffes_alexnet_and_caffenet(pool_first, old, tmp_path):
    """Grouped filters become towers, blue-green-red becomes red-green-blue."""
    blobs = alexnet_blobs()
    order = [("norm1", "LRN", [], (5, 1e-4, 0.75)), ("pool1", "Pooling", [])]
    layers = [
        (name, "Convolution" if name.startswith("conv") else "InnerProduct", arrays)
        for name, arrays in blobs.items()
    ]
    layers[1:1] = order[::-1] if pool_first else order
    path = caffemodel(tmp_path / "net.caffemodel", layers, old)
    options = {
        "image_size": 227, "lrn_constants": CAFFE_LRN, "lrn_across_towers": True,
        "pool_before_norm": pool_first, "inverted_dropout": True,
    }  # fmt: skip
    loaded = weights.load(path, "alexnet", options)
    network = functional(lambda rngs: vision_models.create("alexnet", rngs=rngs, **options))
    x = 50 * images(2, 227)
    logits = np.asarray(jax.jit(network.apply)(loaded.params, loaded.statistics, x))
    expected = caffe_alexnet(blobs, to_torch(x[..., ::-1]), pool_first)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logits / scale, expected / scale, atol=1e-4)
    np.testing.assert_allclose(loaded.normalization["mean"], [123.68, 116.779, 103.939])

    with pytest.raises(WeightsError) as error:
        weights.load(path, "alexnet", {})
    for override in (
        "lrn_constants.k=1.0",
        "average=True",
        "inverted_dropout=True",
        "lrn_across_towers=True",
    ):
        assert override in str(error.value)
    assert ("pool_before_norm" in str(error.value)) == pool_first


def test_caffes_resnet(tmp_path):
    """BatchNorm and Scale layers, a scale factor, a bias before BatchNorm, He's names."""
    peer = torch_network("resnet50", num_classes=10)
    for stage in (peer.layer2, peer.layer3, peer.layer4):  # the stride where the paper has it
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    peer.maxpool = torch.nn.MaxPool2d(3, 2, ceil_mode=True)
    layers = []

    def norm(suffix, module, shift=0.0):
        mean, variance = module.running_mean.numpy(), module.running_var.numpy()
        arrays = [4 * (mean + shift), 4 * variance, np.array([4.0])]
        layers.append((f"bn{suffix}", "BatchNorm", arrays))
        scale = [module.weight.detach().numpy(), module.bias.detach().numpy()]
        layers.append((f"scale{suffix}", "Scale", scale))

    def conv(name, module, *bias, flip=False):
        kernel = module.weight.detach().numpy()
        layers.append((name, "Convolution", [kernel[:, ::-1] if flip else kernel, *bias]))

    bias = np.linspace(-1, 1, 64).astype(np.float32)
    conv("conv1", peer.conv1, bias, flip=True)
    norm("_conv1", peer.bn1, shift=bias)
    for stage, blocks in enumerate((peer.layer1, peer.layer2, peer.layer3, peer.layer4), start=2):
        for letter, block in zip("abcdef", blocks, strict=False):
            if block.downsample is not None:
                conv(f"res{stage}{letter}_branch1", block.downsample[0])
                norm(f"{stage}{letter}_branch1", block.downsample[1])
            for part, number in zip("abc", (1, 2, 3), strict=True):
                conv(f"res{stage}{letter}_branch2{part}", getattr(block, f"conv{number}"))
                norm(f"{stage}{letter}_branch2{part}", getattr(block, f"bn{number}"))
    head = [peer.fc.weight.detach().numpy(), peer.fc.bias.detach().numpy()]
    layers.append(("fc1000", "InnerProduct", head))
    path = caffemodel(tmp_path / "resnet.caffemodel", layers)

    loaded = weights.load(path, "resnet50", {"num_classes": 10})
    network = functional(lambda rngs: vision_models.create("resnet50", num_classes=10, rngs=rngs))
    x = images()
    with torch.no_grad():
        expected = peer(to_torch(x)).numpy()
    logits = jax.jit(network.apply)(loaded.params, loaded.statistics, x)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logits / scale, expected / scale, atol=1e-4)
    with pytest.raises(WeightsError, match=r"needs? --config.model.stride_in=1x1"):
        weights.load(path, "resnet50", {"num_classes": 10, **V15})


def test_caffes_googlenet(tmp_path):
    """Names and order of the branches, against the network put together in PyTorch."""
    f, rng, layers, blobs = functional_torch, np.random.default_rng(0), [], {}

    def make(name, shape, kind="Convolution"):
        kernel = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)
        bias = rng.normal(0, 0.1, shape[:1]).astype(np.float32)
        blobs[name] = torch.from_numpy(kernel), torch.from_numpy(bias)
        layers.append((name, kind, [kernel, bias]))

    make("conv1/7x7_s2", (64, 3, 7, 7))
    make("conv2/3x3_reduce", (64, 64, 1, 1))
    make("conv2/3x3", (192, 64, 3, 3))
    reads = 192
    table = {
        "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64),
        "4a": (192, 96, 208, 16, 48, 64), "4b": (160, 112, 224, 24, 64, 64),
        "4c": (128, 128, 256, 24, 64, 64), "4d": (112, 144, 288, 32, 64, 64),
        "4e": (256, 160, 320, 32, 128, 128), "5a": (256, 160, 320, 32, 128, 128),
        "5b": (384, 192, 384, 48, 128, 128),
    }  # fmt: skip
    for name, (one, r3, three, r5, five, pool) in table.items():
        make(f"inception_{name}/1x1", (one, reads, 1, 1))
        make(f"inception_{name}/3x3_reduce", (r3, reads, 1, 1))
        make(f"inception_{name}/3x3", (three, r3, 3, 3))
        make(f"inception_{name}/5x5_reduce", (r5, reads, 1, 1))
        make(f"inception_{name}/5x5", (five, r5, 5, 5))
        make(f"inception_{name}/pool_proj", (pool, reads, 1, 1))
        reads = one + three + five + pool
    make("loss3/classifier", (1000, 1024), "InnerProduct")
    path = caffemodel(tmp_path / "googlenet.caffemodel", layers)

    def conv(x, name, **options):
        return f.relu(f.conv2d(x, *blobs[name], **options))

    def pool(x):
        return f.max_pool2d(x, 3, 2, ceil_mode=True)

    def norm(x):
        return f.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)

    x = 50 * images()
    y = norm(pool(conv(to_torch(x[..., ::-1]), "conv1/7x7_s2", stride=2, padding=3)))
    y = pool(norm(conv(conv(y, "conv2/3x3_reduce"), "conv2/3x3", padding=1)))
    for name in table:
        block = f"inception_{name}"
        y = torch.cat(
            [
                conv(y, f"{block}/1x1"),
                conv(conv(y, f"{block}/3x3_reduce"), f"{block}/3x3", padding=1),
                conv(conv(y, f"{block}/5x5_reduce"), f"{block}/5x5", padding=2),
                conv(f.max_pool2d(y, 3, 1, 1), f"{block}/pool_proj"),
            ],
            1,
        )
        y = pool(y) if name in ("3b", "4e") else y
    expected = f.linear(y.mean((2, 3)), *blobs["loss3/classifier"]).numpy()

    with pytest.raises(WeightsError, match=r"--config.model.auxiliary=False"):
        weights.load(path, "googlenet")
    options = {"auxiliary": False}
    loaded = weights.load(path, "googlenet", options)
    network = functional(lambda rngs: vision_models.create("googlenet", rngs=rngs, **options))
    logits = jax.jit(network.apply)(loaded.params, loaded.statistics, x)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logits / scale, expected / scale, atol=1e-4)


def test_caffes_vgg_is_torchvisions_in_other_colours(tmp_path):
    peer = torch_network("vgg11", num_classes=10)
    names = ["conv1_1", "conv2_1", "conv3_1", "conv3_2", "conv4_1", "conv4_2", "conv5_1", "conv5_2"]
    modules = [m for m in peer.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    layers = []
    for name, module in zip([*names, "fc6", "fc7", "fc8"], modules, strict=True):
        kernel, bias = (p.detach().numpy() for p in (module.weight, module.bias))
        kind = "Convolution" if kernel.ndim == 4 else "InnerProduct"
        layers.append((name, kind, [kernel[:, ::-1] if name == "conv1_1" else kernel, bias]))
    path = caffemodel(tmp_path / "vgg.caffemodel", layers, old=True)
    ours = weights.load(path, "vgg11", {"num_classes": 10})
    theirs = weights.load(saved(peer, tmp_path / "vgg.pth"), "vgg_a", {"num_classes": 10})
    jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)


def test_published_weights(shared_data):
    """The two files at hand are recognised for what they are."""
    resnet = weights.load(shared_data / "weights" / "resnet20-12fca82f.th", "resnet20")
    assert resnet.params["fc"]["kernel"].shape == (64, 10)
    lenet = weights.load(shared_data / "weights" / "lenet_iter_10000.caffemodel", "lenet_caffe")
    assert lenet.params["ip1"]["kernel"].shape == (800, 500)
    np.testing.assert_array_equal(lenet.normalization["deviation"], [256] * 3)


# Ours, and back.


@pytest.mark.parametrize("name", ["alexnet", "resnet20", "lenet5", "cifar10_11pct"])
def test_safetensors_there_and_back(name, tmp_path):
    options = {"num_classes": 10}
    if name == "alexnet":
        options |= {"kernels": (8, 8, 8, 8, 8), "hidden": (16, 16)}
    model = vision_models.create(name, rngs=nnx.Rngs(0), **options)
    params, statistics = variables(model)
    images_of = {"mean": np.arange(3.0, dtype=np.float32), "deviation": np.ones(3, np.float32)}
    path = tmp_path / "w.safetensors"
    weights.save(path, name, options, params, statistics, images_of)
    loaded = weights.load(path, name, options)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)
    jax.tree.map(np.testing.assert_array_equal, loaded.statistics, statistics)
    assert loaded.fresh == ()
    np.testing.assert_array_equal(loaded.normalization["mean"], [0, 1, 2])

    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        assert file.metadata()["model"] == name
        assert any(key.endswith("/kernel") for key in file.keys())  # noqa: SIM118

    other = vision_models.create(name, rngs=nnx.Rngs(1), **options)
    weights.set_weights(other, loaded)
    x = images(1, other.image_size)
    np.testing.assert_array_equal(other(x), model(x))


def test_a_deeper_vgg_starts_from_a(tmp_path):
    """Section 3.1: the first four convolutions and the fully connected layers."""
    small = {"hidden": (8, 8), "num_classes": 5, "image_size": 32}
    shallow = vision_models.create("vgg_a", rngs=nnx.Rngs(0), **small)
    path = tmp_path / "a.safetensors"
    weights.save(path, "vgg_a", small, *variables(shallow))
    for name in ("vgg_b", "vgg16", "vgg_e"):
        loaded = weights.load(path, name, small)
        deep = vision_models.create(name, rngs=nnx.Rngs(1), **small)
        untouched = np.asarray(deep.conv5_1.kernel[...])
        weights.set_weights(deep, loaded)
        for layer in ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8"):
            np.testing.assert_array_equal(
                getattr(deep, layer).kernel[...], getattr(shallow, layer).kernel[...]
            )
        np.testing.assert_array_equal(deep.conv5_1.kernel[...], untouched)
        assert {"conv1_2", "conv4_1", "conv5_1"} <= set(loaded.fresh)
        assert not {"conv1_1", "fc8"} & set(loaded.fresh)
    with pytest.raises(WeightsError, match="holds a vgg_a, the config's network is resnet18"):
        weights.load(path, "resnet18")


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


# Bad files. Each message says which tensors, or what to do.


@pytest.fixture
def resnet18(tmp_path):
    return saved(torch_network("resnet18"), tmp_path / "resnet18.pth")


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


def test_wrapped_state_dicts(resnet18, tmp_path):
    state = torch.load(resnet18, weights_only=True)
    expected = weights.load(resnet18, "resnet18", RESNET)
    parallel = {f"module.{k}": v for k, v in state.items()}
    for wrapped in ({"state_dict": state, "epoch": 3}, {"model": parallel}, {"anything": state}):
        torch.save(wrapped, tmp_path / "wrapped.pth")
        loaded = weights.load(tmp_path / "wrapped.pth", "resnet18", RESNET)
        jax.tree.map(np.testing.assert_array_equal, loaded.params, expected.params)
    torch.save({"outer": {"state_dict": state}}, tmp_path / "deep.pth")
    with pytest.raises(WeightsError, match="no tensors by name, but outer; save the"):
        weights.load(tmp_path / "deep.pth", "resnet18", RESNET)


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


def test_settings_of_our_own_files_are_compared(tmp_path):
    """What the tensors do not show, but what is free to differ: initialisation, dropout."""
    path = tmp_path / "w.safetensors"
    model = vision_models.create("lenet_caffe", neuron="tanh", pool="average", rngs=nnx.Rngs(0))
    weights.save(path, "lenet_caffe", {"neuron": "tanh", "pool": "average"}, *variables(model))
    with pytest.raises(WeightsError, match=r"--config.model.neuron=tanh --config.model.pool=av"):
        weights.load(path, "lenet_caffe")
    weights.load(path, "lenet_caffe", {"neuron": "tanh", "pool": "average", "init": "he"})
    small = {"kernels": (8, 8, 8, 8, 8), "hidden": (16, 16), "num_classes": 3, "image_size": 67}
    for inverted, free in ((True, True), (False, False)):
        made = {**small, "inverted_dropout": inverted}
        net = vision_models.create("alexnet", rngs=nnx.Rngs(0), **made)
        weights.save(path, "alexnet", made, *variables(net))
        if free:
            weights.load(path, "alexnet", {**made, "dropout": 0.3})
        else:
            with pytest.raises(WeightsError, match=r"--config.model.dropout=0.5"):
                weights.load(path, "alexnet", {**made, "dropout": 0.3})


def test_vgg_a_and_a_lrn_are_told_apart(tmp_path):
    small = {"hidden": (8, 8), "num_classes": 5, "image_size": 32}
    path = tmp_path / "a.safetensors"
    model = vision_models.create("vgg_a", rngs=nnx.Rngs(0), **small)
    weights.save(path, "vgg_a", small, *variables(model))
    with pytest.raises(WeightsError, match=r"--config.model.lrn=False"):
        weights.load(path, "vgg_a_lrn", small)
    with pytest.raises(WeightsError, match=r"--config.model.batch_norm=False"):
        weights.load(path, "vgg_d", {**small, "batch_norm": True})
    # A deeper network for other classes.
    loaded = weights.load(path, "vgg_d", {**small, "num_classes": 9}, new_head=True)
    assert "fc8" in loaded.fresh and "fc7" not in loaded.fresh


def test_a_file_of_pytorch_grows_too_with_a_new_head(tmp_path):
    path = saved(torch_network("vgg11", num_classes=10), tmp_path / "vgg11.pth")
    loaded = weights.load(path, "vgg_b", {"num_classes": 4}, new_head=True)
    assert {"fc8", "conv1_2"} <= set(loaded.fresh)
    theirs = weights.load(path, "vgg_a", {"num_classes": 10})
    np.testing.assert_array_equal(loaded.params["fc6"]["kernel"], theirs.params["fc6"]["kernel"])


def test_numbers_that_are_none_are_refused(resnet18, tmp_path):
    state = torch.load(resnet18, weights_only=True)
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(WeightsError, match=r"layer1.0.conv1.weight holds numbers that are not fin"):
        weights.load(tmp_path / "nan.pth", "resnet18", RESNET)


def test_files_of_training_scripts(tmp_path):
    """A tensor beside the state dict; DataParallel around a part; compiled modules."""
    peer = torch_network("vgg11")
    expected = weights.load(saved(peer, tmp_path / "plain.pth"), "vgg_a")
    state = {
        "_orig_mod." + k.replace("features.", "features.module."): v
        for k, v in peer.state_dict().items()
    }
    torch.save({"best_acc1": torch.tensor(3.0), "state_dict": state}, tmp_path / "script.pth")
    loaded = weights.load(tmp_path / "script.pth", "vgg_a")
    jax.tree.map(np.testing.assert_array_equal, loaded.params, expected.params)


def test_cifar_resnets_of_unknown_preprocessing(shared_data, tmp_path):
    """Those whose head is called `fc` are in use with other statistics."""
    source = shared_data / "weights" / "resnet20-12fca82f.th"
    state = torch.load(source, map_location="cpu", weights_only=True)["state_dict"]
    renamed = {k.replace("linear.", "fc."): v for k, v in state.items()}
    torch.save(renamed, tmp_path / "other.pth")
    assert weights.load(tmp_path / "other.pth", "resnet20").normalization is None
    assert weights.load(source, "resnet20").normalization is not None
    with pytest.raises(WeightsError, match=r"--config.model.shortcut=pad"):
        weights.load(source, "resnet20", {"shortcut": "none"})


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
