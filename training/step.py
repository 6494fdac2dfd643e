"""The train state and the compiled training step."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NotRequired, TypedDict, cast

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from devices import collectives
from devices.mesh import abstract_arrays, param_specs, shardings
from devices.xla import compiler_options, options_to_run_once, platform_of
from evaluation import metrics
from evaluation.preprocessing import Normalization, training_input
from training import optimizer as optimizers
from training.recipe import Recipe
from vision_models.forward import BatchStatistics
from vision_models.functional import PureNetwork, parameter_names


class State(TypedDict):
    """The train state: everything that a step needs and cannot compute from (seed, step).

    Attributes:
      params: the network's parameters.
      statistics: BatchNorm's statistics.
      optimizer: the optimiser's state.
      step: number of updates made, int32.
      skipped: number of updates left out, int32.
      skipped_in_row: length of the run of left-out updates that ends here, int32.
      learning_rate: of the last update, float32.
      plateau_scale: factor by which plateaus have lowered the rate, float32.
      interval: sums of the metrics since the last line of the log. They are part of the state,
        so that an interrupted run logs the same averages.
      average: `params` and `statistics` of the average, where one is kept.
    """

    params: Any
    statistics: Any
    optimizer: Any
    step: Array
    skipped: Array
    skipped_in_row: Array
    learning_rate: Array
    plateau_scale: Array
    interval: dict[str, Array]
    average: NotRequired[dict[str, Any]]


Batch = dict[str, Array]


def make_optimizer(
    network: PureNetwork, momentum: optimizers.Momentum
) -> optax.GradientTransformationExtraArgs:
    """The optimiser of a network's parameters."""
    decays = optimizers.decay_by_parameter(momentum, parameter_names(network.per_tower))
    tree = jax.tree.unflatten(jax.tree.structure(network.per_tower), decays)
    return optimizers.papers_momentum(momentum.momentum, tree)


def init_function(network: PureNetwork, recipe: Recipe) -> Callable[[Array], State]:
    """A function from a random key to a fresh state."""
    optimizer = make_optimizer(network, recipe.momentum)

    def init(key: Array) -> State:
        params, statistics = network.init(key)
        for number, head in enumerate(network.heads):
            *path, name = head.split("/")
            block = functools.reduce(dict.__getitem__, path, params)
            if name in block:  # LeNet-5's last layer has no parameters
                own_key = jax.random.fold_in(key, number)
                block[name] = recipe.objective.last_layer(own_key, block[name])
        state: State = {
            "params": params,
            "statistics": statistics,
            "optimizer": optimizer.init(params),
            "step": jnp.zeros((), jnp.int32),
            "skipped": jnp.zeros((), jnp.int32),
            "skipped_in_row": jnp.zeros((), jnp.int32),
            "learning_rate": jnp.zeros((), jnp.float32),
            "plateau_scale": jnp.ones((), jnp.float32),
            "interval": empty_interval(recipe),
        }
        if recipe.average is not None:
            state["average"] = model_of(state)
        return state

    return init


def model_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """`params` and `statistics` as trained, not averaged."""
    return {"params": state["params"], "statistics": state["statistics"]}


def init_state(network: PureNetwork, recipe: Recipe, mesh: Mesh) -> State:
    """A fresh state on the mesh; its values do not depend on the mesh.

    Args:
      network: its `init` draws the parameters.
      recipe: `seed`, `momentum` and `average` are read.
      mesh: with axes `data` and `tower`.
    """
    abstract = abstract_state(network, recipe, mesh)
    placement = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    init = jax.jit(
        init_function(network, recipe),
        out_shardings=placement,
        compiler_options=options_to_run_once(platform_of(mesh)),
    )
    return init(jax.random.fold_in(jax.random.key(recipe.seed), 0))


def abstract_state(network: PureNetwork, recipe: Recipe, mesh: Mesh) -> State:
    """Shapes, dtypes and shardings of a state; trees like the parameters are sharded alike."""
    shapes = jax.eval_shape(init_function(network, recipe), jax.random.key(0))
    specs = param_specs(network.per_tower, mesh)
    form: Any = jax.tree.structure(specs)

    def is_like_params(node: Any) -> bool:
        return bool(jax.tree.structure(node) == form)

    state_specs = jax.tree.map(
        lambda node: specs if is_like_params(node) else PartitionSpec(),
        shapes,
        is_leaf=is_like_params,
    )
    return abstract_arrays(shapes, shardings(mesh, state_specs))


def empty_interval(recipe: Recipe) -> dict[str, Array]:
    """The sums of the metrics over no examples."""
    return {name: jnp.zeros((), jnp.float32) for name in recipe.objective.sums}


def make_train_step(
    network: PureNetwork, recipe: Recipe, mesh: Mesh
) -> Callable[[State, Batch, Normalization], tuple[State, dict[str, Array]]]:
    """Compiles (state, batch, normalization) -> (state after one update, outcome).

    The state is donated: the one passed in cannot be used again. The outcome holds the
    objective's `totals` of the batch; `finite`, whether the loss and the updated parameters are
    finite; and `skipped_in_row`, the length of the run of non-finite updates that ends here.

    Forward pass, backward pass and metrics run inside `jax.shard_map`, every device on its
    examples and its towers. Four things cross devices: the network's exchanges, BatchNorm's
    statistics, the sum of gradients over `data`, and scalars.

    Args:
      network: what is trained.
      recipe: how it is trained.
      mesh: with axes `data` and `tower`.
    """
    specs = param_specs(network.per_tower, mesh)
    names = parameter_names(network.per_tower)
    optimizer = make_optimizer(network, recipe.momentum)
    structure = jax.tree.structure(network.per_tower)
    is_frozen = jax.tree.unflatten(structure, [name in recipe.frozen for name in names])
    rate_of = optimizers.rates_by_parameter(recipe.rates, names)
    dropout_key = jax.random.fold_in(jax.random.key(recipe.seed), 1)
    data_axis = "data" if mesh.shape["data"] > 1 else None
    batch_statistics = BatchStatistics(data_axis, recipe.statistics_group, recipe.frozen)

    def gradients(
        params: Any, statistics: Any, batch: Batch, normalization: Normalization, key: Array
    ) -> tuple[Any, Any, Any]:
        """Gradients of the mean loss, new statistics, and metrics; runs on one device."""
        places = collectives.rows(len(batch["label"]), mesh, "data")
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, places)

        def micro_batch_gradients(
            params: Any, statistics: Any, batch: Batch, keys: Array
        ) -> tuple[Any, Any, dict[str, Array]]:
            images = jax.named_scope("input")(training_input)(
                batch, normalization, aligned=recipe.aligned_mean, dtype=recipe.dtype
            )

            def loss(params: Any) -> tuple[Array, Any]:
                params = jax.tree.map(
                    lambda leaf, frozen: lax.stop_gradient(leaf) if frozen else leaf,
                    params,
                    is_frozen,
                )
                outputs, auxiliary, after = network.train(
                    params, statistics, images, keys, batch_statistics
                )
                sums = recipe.objective.totals(outputs, batch)

                def summed(losses: Array) -> Array:
                    """[B] -> the sum, each by the weight of its class."""
                    if recipe.class_weights is None:
                        return jnp.sum(losses)
                    return jnp.sum(losses * jnp.asarray(recipe.class_weights)[batch["label"]])

                def learned(outputs: Array) -> Array:
                    losses, share = recipe.objective.losses(outputs, batch), recipe.label_smoothing
                    if share:
                        losses += metrics.smoothing_loss(outputs, batch["label"], share)
                    return summed(losses)

                total = sums["loss"]
                if recipe.class_weights is not None or recipe.label_smoothing:
                    total = learned(outputs)
                for side in auxiliary.values():
                    total += recipe.auxiliary_weight * learned(side)
                if recipe.rubbish_penalty is not None:
                    total += summed(metrics.rubbish_loss(outputs, recipe.rubbish_penalty))
                return total / recipe.batch_size, (after, sums)

            grads, (after, sums) = jax.grad(loss, has_aux=True)(params)
            # The change by this micro-batch: exactly 0 for frozen statistics.
            moves = jax.tree.map(jnp.subtract, after, statistics)
            return grads, moves, sums

        # A device's parameters give its own gradients, which are summed over `data` once,
        # after the last micro-batch.
        device_params = collectives.own(params, mesh, "data")
        if recipe.micro_batches == 1:
            grads, moves, sums = micro_batch_gradients(device_params, statistics, batch, keys)
        else:
            like = (
                collectives.own(statistics, mesh, "data") if recipe.statistics_group else statistics
            )
            grads, moves, sums = _over_micro_batches(
                functools.partial(micro_batch_gradients, device_params, statistics),
                recipe.micro_batches,
                (batch, keys),
                (device_params, like, collectives.own(empty_interval(recipe), mesh, "data")),
            )
            moves = jax.tree.map(lambda move: move / recipe.micro_batches, moves)
        grads = jax.tree.map(
            lambda grad, param, frozen: (
                jnp.zeros_like(param) if frozen else collectives.total(grad, mesh, "data")
            ),
            grads,
            params,
            is_frozen,
        )
        if recipe.statistics_group and data_axis is not None:
            moves = lax.pmean(moves, data_axis)
        after = jax.tree.map(jnp.add, statistics, moves)
        return grads, after, collectives.total(sums, mesh, "data")

    def all_finite(params: Any) -> Array:
        """Whether the parameters of all towers are finite; runs on one device."""
        faults = {False: jnp.zeros(()), True: jnp.zeros(())}
        for param, split in zip(*map(jax.tree.leaves, (params, network.per_tower)), strict=True):
            faults[split] += jnp.any(~jnp.isfinite(param))
        return faults[False] + collectives.total(faults[True], mesh, "tower") == 0

    replicated = PartitionSpec()
    sharded_gradients = jax.shard_map(
        gradients,
        mesh=mesh,
        in_specs=(specs, replicated, collectives.split(mesh, "data"), replicated, replicated),
        out_specs=(specs, replicated, replicated),
    )
    sharded_all_finite = jax.shard_map(
        all_finite, mesh=mesh, in_specs=(specs,), out_specs=replicated
    )

    def step(
        state: State, batch: Batch, normalization: Normalization
    ) -> tuple[State, dict[str, Array]]:
        key = jax.random.fold_in(dropout_key, state["step"])
        grads, statistics, sums = sharded_gradients(
            state["params"], state["statistics"], batch, normalization, key
        )
        if recipe.max_gradient_norm:
            grads = optimizers.limit_gradient(grads, recipe.max_gradient_norm)
        values = {rate: rate.at(state["step"], state["plateau_scale"]) for rate in recipe.rates}
        rate_tree = jax.tree.unflatten(
            structure,
            [
                jnp.zeros(()) if name in recipe.frozen else values[rate]
                for name, rate in zip(names, rate_of, strict=True)
            ],
        )
        updates, optimizer_state = jax.named_scope("update")(optimizer.update)(
            grads, state["optimizer"], state["params"], rates=rate_tree
        )
        params = jax.named_scope("update")(optax.apply_updates)(state["params"], updates)
        if recipe.max_filter_rms:
            limited = ["" if name in recipe.frozen else name for name in names]
            params = optimizers.limit_filters(params, limited, recipe.max_filter_rms)
        # A gradient that is not finite gives parameters that are not.
        finite = jnp.isfinite(sums["loss"]) & jax.named_scope("check")(sharded_all_finite)(params)
        in_row = jnp.where(finite, 0, state["skipped_in_row"] + 1)
        before, after = (
            dict(state),
            {
                "params": params,
                "statistics": statistics,
                "optimizer": optimizer_state,
                "interval": jax.tree.map(jnp.add, state["interval"], sums),
            },
        )
        if recipe.average is not None:
            after["average"] = optimizers.averaged(
                recipe.average,
                state["average"],
                model_of(after),
                state["step"] + 1 - state["skipped"],
            )
        if recipe.skip_nonfinite:
            after = jax.tree.map(
                lambda new, old: jnp.where(finite, new, old), after, {k: before[k] for k in after}
            )
        after |= {
            "step": state["step"] + 1,
            "skipped": state["skipped"] + (~finite).astype(jnp.int32),
            "skipped_in_row": in_row,
            "learning_rate": values[recipe.rates[0]],
            "plateau_scale": state["plateau_scale"],
        }
        return cast(State, after), sums | {"finite": finite, "skipped_in_row": in_row}

    # The state must come back with the shardings it had: otherwise the second step would be
    # compiled again.
    abstract = abstract_state(network, recipe, mesh)
    placement = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return jax.jit(
        step,
        donate_argnums=0,
        out_shardings=(placement, NamedSharding(mesh, replicated)),
        compiler_options=compiler_options(platform_of(mesh)),
    )


def _over_micro_batches(
    micro_batch_gradients: Callable[[Batch, Array], tuple[Any, Any, Any]],
    count: int,
    examples: tuple[Batch, Array],
    like: tuple[Any, Any, Any],
) -> tuple[Any, Any, Any]:
    """The sums of gradients, moves of statistics, and metrics over the micro-batches.

    Args:
      micro_batch_gradients: (batch, keys) -> (gradients, moves, metrics) of one micro-batch.
      count: number of micro-batches.
      examples: the whole batch and its dropout keys.
      like: arrays with the shapes of gradients, moves and metrics.
    """

    def add(so_far: tuple[Any, Any, Any], micro_batch: tuple[Batch, Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, so_far, micro_batch_gradients(*micro_batch)), None

    split = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), examples)
    return lax.scan(add, jax.tree.map(jnp.zeros_like, like), split)[0]


def make_pooling_step(
    network: PureNetwork, recipe: Recipe, mesh: Mesh
) -> Callable[[Any, Any, Batch, Normalization, Array], Any]:
    """Compiles (params, statistics, batch, normalization, weight) -> statistics.

    The new statistics are a mean of the old ones and the batch's, with `weight` on the
    batch's. Weights 1, 1/2, 1/3 ... give the mean and variance of each layer's input over all
    batches, each batch being normalised by its own. The authors of ResNet computed them so
    after training (the notes with their released models).

    Args:
      network, recipe, mesh: as in training; the statistics are of whole batches.
    """
    data_axis = "data" if mesh.shape["data"] > 1 else None
    dropout_key = jax.random.fold_in(jax.random.key(recipe.seed), 2)

    def pool(params: Any, statistics: Any, batch: Batch, normalization: Any, weight: Array) -> Any:
        places = collectives.rows(len(batch["label"]), mesh, "data")
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(dropout_key, places)
        images = training_input(
            batch, normalization, aligned=recipe.aligned_mean, dtype=recipe.dtype
        )
        pooled = BatchStatistics(data_axis, frozen=recipe.frozen, pooled=weight)
        return network.train(params, statistics, images, keys, pooled)[2]

    replicated = PartitionSpec()
    specs = param_specs(network.per_tower, mesh)
    return jax.jit(
        jax.shard_map(
            pool,
            mesh=mesh,
            in_specs=(specs, replicated, collectives.split(mesh, "data"), replicated, replicated),
            out_specs=replicated,
        ),
        compiler_options=compiler_options(platform_of(mesh)),
    )
