"""The gradient of every layer, by its input and by its parameters, against differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vision_models import lenet, modules, towers
from vision_models.forward import BatchStatistics, Pass
from vision_models.layers import initializer
from vision_models.network import Block, Branches, Sequential

MAPS, FEATURES = (4, 6, 6, 4), (4, 10)
INIT = initializer("gaussian", 0.5)


def conv(rngs, **options):
    return modules.Conv(4, 3, 3, neuron="tanh", init=INIT, rngs=rngs, **options)


def dense(rngs, in_shape=(6, 6, 4)):
    return modules.Dense(in_shape, 5, neuron="tanh", init=INIT, rngs=rngs)


def branches(join):
    return lambda r: Branches(
        {
            "a": Sequential({"conv": conv(r, padding=((1, 1), (1, 1)))}),
            "b": Sequential({"conv": conv(r, padding=((1, 1), (1, 1)))}),
        },
        join,
    )


LAYERS = {
    "conv": (MAPS, lambda r: conv(r, stride=2, padding=((1, 1), (0, 2)), bias=0.1)),
    "conv without a bias": (MAPS, lambda r: conv(r, bias=None)),
    "dense of maps": (MAPS, dense),
    "dense of features": (FEATURES, lambda r: dense(r, (10,))),
    "locally connected": (
        MAPS,
        lambda r: modules.LocallyConnected(
            MAPS[1:], 3, 3, padding=((1, 1), (1, 1)), neuron="tanh", init=INIT, bias=0.1, rngs=r
        ),
    ),
    "batch norm": (MAPS, lambda r: modules.BatchNorm(4)),
    **{
        f"{kind} pool{' ceil' * ceil}": (
            MAPS,
            lambda r, kind=kind, ceil=ceil: modules.Pool(kind, 3, 2, ((1, 0), (0, 1)), ceil),
        )
        for kind in ("max", "average", "l2")
        for ceil in (False, True)
    },
    "global average": (MAPS, lambda r: modules.GlobalAveragePool(6)),
    "adaptive average": (MAPS, lambda r: modules.AdaptiveAveragePool(4, 2)),
    "response norm": (MAPS, lambda r: modules.LocalResponseNorm(3, 1.0, 0.5)),
    "response norm, averaged": (MAPS, lambda r: modules.LocalResponseNorm(4, 1.0, 0.5, 0.6, True)),
    "spatial response norm": (MAPS, lambda r: modules.SpatialResponseNorm(3, 1.0, 0.5)),
    "dropout": (MAPS, lambda r: modules.Dropout(0.5)),
    "dropout, not inverted": (MAPS, lambda r: modules.Dropout(0.3, inverted=False)),
    "grayscale": ((2, 5, 5, 3), lambda r: modules.Grayscale()),
    "pad channels": (MAPS, lambda r: modules.PadChannels(7, 2)),
    **{
        f"neuron {name}": (MAPS, lambda r, name=name: modules.Neuron(name))
        for name in ("relu", "tanh", "scaled_tanh", "sigmoid", "identity")
    },
    "block": (MAPS, lambda r: Block({"conv": conv(r), "norm": modules.BatchNorm(3)})),
    "branches added": (MAPS, branches("add")),
    "branches joined": (MAPS, branches("concatenate")),
    "LeNet's C3": ((2, 7, 7, 6), lambda r: lenet.SparseConv(3, neuron="tanh", rngs=r)),
    "LeNet's S2": (MAPS, lambda r: lenet.Subsample(4, neuron="tanh", rngs=r)),
    "LeNet's RBF": ((3, 84), lambda r: lenet.RBFHead()),
    "towers' conv": (
        MAPS,
        lambda r: towers.TowerConv(4, 3, 3, towers=2, neuron="tanh", init=INIT, bias=0.1, rngs=r),
    ),
    "towers' dense": (
        MAPS, lambda r: towers.TowerDense(MAPS[1:], 5, towers=2, neuron="tanh", init=INIT, rngs=r),
    ),
    "towers' head": (
        MAPS,
        lambda r: Sequential({
            "conv": towers.TowerConv(4, 3, 3, towers=2, neuron="tanh", init=INIT, rngs=r),
            "head": towers.TowerHead((4, 4, 3), 5, towers=2, init=INIT, rngs=r),
        }),
    ),
    "exchange": (
        MAPS,
        lambda r: Sequential({
            "conv": towers.TowerConv(4, 3, 3, towers=2, neuron="tanh", init=INIT, rngs=r),
            "all": towers.Exchange(2),
            "again": towers.TowerConv(6, 2, 3, towers=2, neuron="tanh", init=INIT, rngs=r),
        }),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_equal_differences(name):
    """In training, in double precision, along random directions through random points."""
    shape, make = LAYERS[name]
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        layer = make(nnx.Rngs(0))
        graph, params, others = (
            nnx.split(layer, nnx.Param, ...) if isinstance(layer, nnx.Module) else (None, {}, {})
        )
        params = jax.tree.map(lambda v: jnp.asarray(rng.normal(0.3, 0.5, v.shape)), params)
        others = jax.tree.map(
            lambda v: v.astype(jnp.float64) if v.dtype == jnp.float32 else v, others
        )
        keys = jax.random.split(jax.random.key(1), shape[0])
        weights = {}

        def total(params, x):
            whole = nnx.merge(graph, params, others, copy=True) if graph is not None else layer
            run = Pass(keys, BatchStatistics(group=2 if name == "batch norm" else 0))
            call = whole.run if type(whole) is Sequential else whole
            out = call(x, run, "layer")
            out = jnp.concatenate(out, axis=-1) if isinstance(out, list) else out
            weights.setdefault("out", rng.normal(size=out.shape))
            return jnp.sum(out * weights["out"])

        point = (params, jnp.asarray(rng.normal(0, 1, shape)))
        direction = jax.tree.map(lambda v: jnp.asarray(rng.normal(0, 1, v.shape)), point)
        step = 1e-6

        def moved(by):
            return jax.tree.map(lambda v, d: v + by * d, point, direction)

        numeric = float(total(*moved(step)) - total(*moved(-step))) / (2 * step)
        slope = jax.grad(total, argnums=(0, 1))(*point)
        products = jax.tree.map(lambda s, d: jnp.sum(s * d), slope, direction)
        analytic = float(sum(jax.tree.leaves(products)))
        assert abs(numeric) > 1e-3
        assert analytic == pytest.approx(numeric, rel=1e-5)


def test_no_layer_is_missing():
    """Every layer that the packages define is one of those above, or made of them."""
    import inspect

    import vision_models.network as network

    defined = {
        kind.__name__
        for module in (modules, towers, lenet)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__ and "__call__" in vars(kind)
    }
    made = set()
    for _, make in LAYERS.values():
        layer = make(nnx.Rngs(0))
        parts = (
            [getattr(layer, n) for n in layer.names]
            if isinstance(layer, network.Sequential)
            else []
        )
        made |= {type(layer).__name__} | {type(part).__name__ for part in parts}
    assert defined <= made
