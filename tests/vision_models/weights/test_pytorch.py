"""PyTorch's files: equality with PyTorch's own networks, and the names that are in use."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vision_models
from tests.vision_models.weights.making import (
    RESNET,
    V15,
    functional_torch,
    images,
    saved,
    to_torch,
    torch,
    torch_network,
    torchvision_models,
)
from vision_models import weights
from vision_models.forward import WHOLE_BATCH
from vision_models.functional import functional
from vision_models.weights import WeightsError, pytorch
from vision_models.weights.convert import layers_with_variables
from vision_models.weights.types import Source

# torchvision's name, ours, our options


NETWORKS = [
    ("alexnet", "alexnet_owt", {}),
    pytest.param("vgg16", "vgg_d", {}, marks=pytest.mark.slow),
    pytest.param("vgg16_bn", "vgg16", {"batch_norm": True}, marks=pytest.mark.slow),
    ("googlenet", "googlenet_bn", {}),
    pytest.param("inception_v3", "inception_v3", {"count_padding": True}, marks=pytest.mark.slow),
    pytest.param("inception_v4", "inception_v4", {}, marks=pytest.mark.slow),
    ("resnet18", "resnet18", RESNET),
    ("resnet50", "resnet50", V15),
    pytest.param("resnet152", "resnet152", V15, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("theirs, ours, options", NETWORKS)
def test_logits_equal_torchvisions(theirs, ours, options, tmp_path):
    peer = torch_network(theirs)
    loaded = weights.load(saved(peer, tmp_path / "weights.pth"), ours, options)
    network = functional(lambda rngs: vision_models.create(ours, rngs=rngs, **options))
    x = images(size=139 if ours.startswith("inception") else 224)
    with torch.no_grad():
        expected = peer(to_torch(x)).numpy()
    logits = np.asarray(jax.jit(network.apply)(loaded.params, loaded.statistics, x))
    assert np.abs(expected[0] - expected[1]).max() > 1e-3 * np.abs(expected).max()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logits / scale, expected / scale, atol=1e-4)


@pytest.mark.parametrize(
    "name, made_by", [("inception_v3", "torchvision"), ("inception_v4", "timm")]
)
def test_every_tensor_of_inception_has_its_name(name, made_by):
    models = torchvision_models()  # which timm imports
    with torch.device("meta"):
        if made_by == "timm":
            peer = pytest.importorskip("timm", reason="needs timm").create_model(name)
        else:
            peer = models.inception_v3(weights=None, init_weights=False)
    model = nnx.eval_shape(lambda: vision_models.create(name, rngs=nnx.Rngs(0)))
    names = pytorch.layer_names(name, model, Source("pytorch", {}, ""))
    ours = [
        pytorch.tensor_name(names[path], variable)
        for path, layer in layers_with_variables(model).items()
        for variable in layer.shapes
    ]
    theirs = [n for n in peer.state_dict() if not n.endswith("num_batches_tracked")]
    assert sorted(ours) == sorted(theirs)


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
    "theirs, ours, options",
    [
        pytest.param("alexnet", "alexnet_owt", {}, marks=pytest.mark.slow),
        pytest.param("resnet18", "resnet18", RESNET, marks=pytest.mark.slow),
    ],
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


@pytest.mark.slow
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


def test_published_weights(shared_data):
    """The two files at hand are recognised for what they are."""
    resnet = weights.load(shared_data("weights/resnet20-12fca82f.th"), "resnet20")
    assert resnet.params["fc"]["kernel"].shape == (64, 10)
    lenet = weights.load(shared_data("weights/lenet_iter_10000.caffemodel"), "lenet_caffe")
    assert lenet.params["ip1"]["kernel"].shape == (800, 500)
    np.testing.assert_array_equal(lenet.normalization["deviation"], [256] * 3)


def test_cifar_resnets_of_unknown_preprocessing(shared_data, tmp_path):
    """Those whose head is called `fc` are in use with other statistics."""
    source = shared_data("weights/resnet20-12fca82f.th")
    state = torch.load(source, map_location="cpu", weights_only=True)["state_dict"]
    renamed = {k.replace("linear.", "fc."): v for k, v in state.items()}
    torch.save(renamed, tmp_path / "other.pth")
    assert weights.load(tmp_path / "other.pth", "resnet20").normalization is None
    assert weights.load(source, "resnet20").normalization is not None
    with pytest.raises(WeightsError, match=r"--config.model.shortcut=pad"):
        weights.load(source, "resnet20", {"shortcut": "none"})
