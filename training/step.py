"""The train state and the compiled training step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from evaluation import inputs, metrics, parallel
from training import optimizer as optimizers
from training.mesh import abstract_arrays, param_specs, shardings
from vision_models.functional import PureNetwork, parameter_names

# params; statistics, BatchNorm's; optimizer; step, the updates made (int32);
# learning_rate, of the last of them; plateau_scale, by which plateaus have lowered it; and
# interval, the sums of `metrics.totals` since the last line of the log, part of the state
# so that a run that was interrupted logs the same averages.
State = dict[str, Any]
Batch = dict[str, Array]


def make_optimizer(config: Any, network: PureNetwork) -> optax.GradientTransformationExtraArgs:
    """The optimiser of a config: `momentum`, `weight_decay`, `decay_biases`, `groups`."""
    decays = optimizers.decay_by_parameter(config, parameter_names(network.per_tower))
    tree = jax.tree.unflatten(jax.tree.structure(network.per_tower), decays)
    return optimizers.papers_momentum(config.momentum, tree)


def init_function(
    network: PureNetwork, optimizer: optax.GradientTransformation
) -> Callable[[Array], State]:
    """A function of a random key that makes a fresh state."""

    def init(key: Array) -> State:
        params, statistics = network.init(key)
        return {
            "params": params,
            "statistics": statistics,
            "optimizer": optimizer.init(params),
            "step": jnp.zeros((), jnp.int32),
            "learning_rate": jnp.zeros((), jnp.float32),
            "plateau_scale": jnp.ones((), jnp.float32),
            "interval": empty_interval(),
        }

    return init


def init_state(
    network: PureNetwork, optimizer: optax.GradientTransformation, seed: int, mesh: Mesh
) -> State:
    """A fresh state, drawn in its place on the mesh; its values do not depend on the mesh.

    Args:
      network: its `init` draws the parameters.
      optimizer: its `init` makes the optimiser's state.
      seed: of the parameters.
      mesh: with axes `data` and `tower`.
    """
    where = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(network, optimizer, mesh))
    init = jax.jit(init_function(network, optimizer), out_shardings=where)
    return init(jax.random.fold_in(jax.random.key(seed), 0))


def abstract_state(
    network: PureNetwork, optimizer: optax.GradientTransformation, mesh: Mesh
) -> State:
    """Shapes, dtypes and shardings of a state; what has the form of parameters lies as they do."""
    shapes = jax.eval_shape(init_function(network, optimizer), jax.random.key(0))
    specs = param_specs(network.per_tower, mesh)
    form: Any = jax.tree.structure(specs)

    def is_like_params(node: Any) -> bool:
        return bool(jax.tree.structure(node) == form)

    whole = jax.tree.map(
        lambda node: specs if is_like_params(node) else PartitionSpec(),
        shapes,
        is_leaf=is_like_params,
    )
    return abstract_arrays(shapes, shardings(mesh, whole))


def empty_interval() -> dict[str, Array]:
    """Sums over no examples."""
    names = ("examples", "loss", "top1_error", "top5_error")
    return {name: jnp.zeros((), jnp.float32) for name in names}


def make_train_step(
    network: PureNetwork,
    optimizer: optax.GradientTransformationExtraArgs,
    rates: list[optimizers.Rate],
    mesh: Mesh,
    *,
    seed: int,
    batch_size: int,
    aligned_mean: bool,
    dtype: str,
    auxiliary_weight: float = 0.0,
    rubbish_penalty: float | None = None,
    max_filter_rms: float = 0.0,
) -> Callable[[State, Batch, inputs.Normalization], tuple[State, dict[str, Array]]]:
    """Compiles (state, batch, normalization) -> (state after one update, metric sums).

    The state is donated: the one passed in cannot be used again.

    Forward, backward and metrics run inside `jax.shard_map`, every device on its
    examples and its towers; what crosses devices is the exchanges of the network, the
    statistics of BatchNorm, the sum of gradients over `data`, and the scalar metrics.

    Args:
      network: what is trained.
      optimizer: from `make_optimizer`.
      rates: from `rates_from_config`.
      mesh: with axes `data` and `tower`.
      seed: of the dropout masks, which are a function of (seed, step, place in the batch).
      batch_size: examples in a batch over all devices.
      aligned_mean: see `evaluation.inputs.training_input`.
      dtype: of the computation; parameters, their updates and the loss are float32.
      auxiliary_weight: of the loss of each auxiliary classifier; the loss in metrics is
        that of the main one.
      rubbish_penalty: see `evaluation.metrics.rubbish_loss`; None leaves it out.
      max_filter_rms: see `optimizer.limit_filters`; 0 does not limit.
    """
    specs = param_specs(network.per_tower, mesh)
    names = parameter_names(network.per_tower)
    structure = jax.tree.structure(network.per_tower)
    rate_of = optimizers.rates_by_parameter(rates, names)
    dropout_key = jax.random.fold_in(jax.random.key(seed), 1)

    data_axis = "data" if mesh.shape["data"] > 1 else None

    def gradients(
        params: Any, statistics: Any, batch: Batch, normalization: inputs.Normalization, key: Array
    ) -> tuple[Any, Any, Any]:
        """On one device: gradients of its share of the mean loss, statistics, metrics."""
        held = batch["label"].shape[0]
        places = parallel.rows(held, mesh, "data")
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, places)
        images = inputs.training_input(batch, normalization, aligned=aligned_mean, dtype=dtype)

        def loss(params: Any) -> tuple[Array, Any]:
            logits, auxiliary, after = network.train(params, statistics, images, keys, data_axis)
            sums = metrics.totals(jax.nn.log_softmax(logits), batch["label"])
            total = sums["loss"]
            for side in auxiliary.values():
                side_loss = metrics.cross_entropy(jax.nn.log_softmax(side), batch["label"])
                total += auxiliary_weight * jnp.sum(side_loss)
            if rubbish_penalty is not None:
                total += jnp.sum(metrics.rubbish_loss(logits, rubbish_penalty))
            return total / batch_size, (after, sums)

        # Parameters are the same on every device along `data`, so that shard_map sums
        # their gradients over it.
        grads, (after, sums) = jax.grad(loss, has_aux=True)(params)
        return grads, after, parallel.total(sums, mesh, "data")

    replicated = PartitionSpec()
    sharded_gradients = jax.shard_map(
        gradients,
        mesh=mesh,
        in_specs=(specs, replicated, parallel.split(mesh, "data"), replicated, replicated),
        out_specs=(specs, replicated, replicated),
    )

    def step(
        state: State, batch: Batch, normalization: inputs.Normalization
    ) -> tuple[State, dict[str, Array]]:
        key = jax.random.fold_in(dropout_key, state["step"])
        grads, statistics, sums = sharded_gradients(
            state["params"], state["statistics"], batch, normalization, key
        )
        now = {rate: rate.at(state["step"], state["plateau_scale"]) for rate in rates}
        rate_tree = jax.tree.unflatten(structure, [now[rate] for rate in rate_of])
        updates, optimizer_state = optimizer.update(
            grads, state["optimizer"], state["params"], rates=rate_tree
        )
        params = optax.apply_updates(state["params"], updates)
        if max_filter_rms:
            params = optimizers.limit_filters(params, names, max_filter_rms)
        state = {
            "params": params,
            "statistics": statistics,
            "optimizer": optimizer_state,
            "step": state["step"] + 1,
            "learning_rate": now[rates[0]],
            "plateau_scale": state["plateau_scale"],
            "interval": jax.tree.map(jnp.add, state["interval"], sums),
        }
        return state, sums

    # Named, so that the state comes back as it went in: otherwise the second step
    # would be compiled anew.
    where = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(network, optimizer, mesh))
    return jax.jit(step, donate_argnums=0, out_shardings=(where, NamedSharding(mesh, replicated)))
