"""Caffe's files, encoded by hand, field by field as caffe.proto numbers them."""

import jax
import numpy as np
import pytest

import vision_models
from tests.vision_models.weights.making import (
    V15,
    caffemodel,
    functional_torch,
    images,
    saved,
    to_torch,
    torch,
    torch_network,
)
from vision_models import weights
from vision_models.functional import functional
from vision_models.weights import WeightsError

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


@pytest.mark.parametrize(
    "pool_first, old", [(False, True), pytest.param(True, False, marks=pytest.mark.slow)]
)
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
    layers.append(("pool1/norm1", "LRN", [], (5, 1e-4, 0.75)))
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
    with pytest.raises(WeightsError, match=r"need --config.model.lrn=True$"):
        weights.load(path, "googlenet", {"lrn": False})
    options = {"auxiliary": False}
    loaded = weights.load(path, "googlenet", options)
    network = functional(lambda rngs: vision_models.create("googlenet", rngs=rngs, **options))
    logits = jax.jit(network.apply)(loaded.params, loaded.statistics, x)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logits / scale, expected / scale, atol=1e-4)


@pytest.mark.slow
def test_the_authors_network_in_network(tmp_path):
    """nin_imagenet.caffemodel for 64 pixels: ten layers' names, some of them with -1024."""
    f, rng, blobs = functional_torch, np.random.default_rng(0), {}

    def conv(x, name, maps, window, **options):
        shape = (maps, x.shape[1], window, window)
        kernel = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)
        blobs[name] = kernel, rng.normal(0, 0.1, maps).astype(np.float32)
        return f.relu(f.conv2d(x, *map(torch.from_numpy, blobs[name]), **options))

    x = 50 * images(2, 64)
    out = to_torch(x[..., ::-1])
    numbers = iter(range(1, 9))
    for block, (maps, window, options) in enumerate(
        [(96, 11, {"stride": 4}), (256, 5, {"padding": 2}), (384, 3, {"padding": 1})]
    ):
        out = conv(out, f"conv{block + 1}", maps, window, **options)
        for _ in range(2):
            out = conv(out, f"cccp{next(numbers)}", maps, 1)
        out = f.max_pool2d(out, 3, 2, ceil_mode=True)
    out = conv(out, "conv4-1024", 1024, 3, padding=1)
    out = conv(conv(out, "cccp7-1024", 1024, 1), "cccp8-1024", 1000, 1)
    expected = out.mean((2, 3)).numpy()
    layers = [(name, "Convolution", arrays) for name, arrays in blobs.items()]
    path = caffemodel(tmp_path / "nin.caffemodel", layers, old=True)
    options = {"image_size": 64}
    loaded = weights.load(path, "nin_imagenet", options)
    network = functional(lambda rngs: vision_models.create("nin_imagenet", rngs=rngs, **options))
    logits = np.asarray(jax.jit(network.apply)(loaded.params, loaded.statistics, x))
    scale = np.abs(expected).max()
    assert np.abs(expected[0] - expected[1]).max() > 1e-3 * scale
    np.testing.assert_allclose(logits / scale, expected / scale, atol=1e-4)


@pytest.mark.slow
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
