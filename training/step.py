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
from devices.xla import compiler_options, options_to_run_once
from evaluation import metrics
from evaluation.preprocessing import Normalization, training_input
from training import optimizer as optimizers
from training.recipe import Recipe
from vision_models.forward import BatchStatistics
from vision_models.functional import PureNetwork, parameter_names


class State(TypedDict):
    """The train state: all that a step needs and that is not recomputed from (seed, step).

    Attributes:
      params: of the network.
      statistics: BatchNorm's.
      optimizer: its state.
      step: updates made, int32.
      skipped: how many of them were left out, int32.
      skipped_in_row: how many of the last, int32.
      learning_rate: of the last update, float32.
      plateau_scale: by which plateaus have lowered the rate, float32.
      interval: sums of the metrics since the last line of the log. Part of the state, so that a
        run that was interrupted logs the same averages.
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
    """A function of a random key that makes a fresh state."""
    optimizer = make_optimizer(network, recipe.momentum)

    def init(key: Array) -> State:
        params, statistics = network.init(key)
        state: State = {
            "params": params,
            "statistics": statistics,
            "optimizer": optimizer.init(params),
            "step": jnp.zeros((), jnp.int32),
            "skipped": jnp.zeros((), jnp.int32),
            "skipped_in_row": jnp.zeros((), jnp.int32),
            "learning_rate": jnp.zeros((), jnp.float32),
            "plateau_scale": jnp.ones((), jnp.float32),
            "interval": empty_interval(),
        }
        if recipe.average is not None:
            state["average"] = model_of(state)
        return state

    return init


def model_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """`params` and `statistics` as they are trained."""
    return {"params": state["params"], "statistics": state["statistics"]}


def init_state(network: PureNetwork, recipe: Recipe, mesh: Mesh) -> State:
    """A fresh state, drawn in its place on the mesh; its values do not depend on the mesh.

    Args:
      network: its `init` draws the parameters.
      recipe: `seed` of the parameters; `momentum` and `average`.
      mesh: with axes `data` and `tower`.
    """
    abstract = abstract_state(network, recipe, mesh)
    where = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    init = jax.jit(
        init_function(network, recipe),
        out_shardings=where,
        compiler_options=options_to_run_once(),
    )
    return init(jax.random.fold_in(jax.random.key(recipe.seed), 0))


def abstract_state(network: PureNetwork, recipe: Recipe, mesh: Mesh) -> State:
    """Shapes, dtypes and shardings of a state; what has the form of parameters lies as they do."""
    shapes = jax.eval_shape(init_function(network, recipe), jax.random.key(0))
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
    return {name: jnp.zeros((), jnp.float32) for name in metrics.SUMS}


def make_train_step(
    network: PureNetwork, recipe: Recipe, mesh: Mesh
) -> Callable[[State, Batch, Normalization], tuple[State, dict[str, Array]]]:
    """Compiles (state, batch, normalization) -> (state after one update, what happened).

    The state is donated: the one passed in cannot be used again. What happened: the sums of
    `metrics.totals` over the batch; `finite`, whether the loss and the parameters after the
    update are; `skipped_in_row`, how many updates that were not it is the last of.

    Forward, backward and metrics run inside `jax.shard_map`, every device on its
    examples and its towers; what crosses devices is the exchanges of the network, the
    statistics of BatchNorm, the sum of gradients over `data`, and scalars.

    Args:
      network: what is trained.
      recipe: how.
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
        """Of the mean loss; the statistics after it, and what happened. On one device."""
        places = collectives.rows(len(batch["label"]), mesh, "data")
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, places)

        def of_micro_batch(
            params: Any, statistics: Any, batch: Batch, keys: Array
        ) -> tuple[Any, Any, dict[str, Array]]:
            images = training_input(
                batch, normalization, aligned=recipe.aligned_mean, dtype=recipe.dtype
            )

            def loss(params: Any) -> tuple[Array, Any]:
                params = jax.tree.map(
                    lambda leaf, still: lax.stop_gradient(leaf) if still else leaf,
                    params,
                    is_frozen,
                )
                logits, auxiliary, after = network.train(
                    params, statistics, images, keys, batch_statistics
                )
                sums = metrics.totals(jax.nn.log_softmax(logits), batch["label"])
                total = sums["loss"]
                for side in auxiliary.values():
                    side_loss = metrics.cross_entropy(jax.nn.log_softmax(side), batch["label"])
                    total += recipe.auxiliary_weight * jnp.sum(side_loss)
                if recipe.rubbish_penalty is not None:
                    total += jnp.sum(metrics.rubbish_loss(logits, recipe.rubbish_penalty))
                return total / recipe.batch_size, (after, sums)

            grads, (after, sums) = jax.grad(loss, has_aux=True)(params)
            # By how much each micro-batch moves them: exactly 0 where they are frozen.
            moves = jax.tree.map(jnp.subtract, after, statistics)
            return grads, moves, sums

        # Each device's own gradients, summed over `data` once, after the last micro-batch.
        own = collectives.own(params, mesh, "data")
        if recipe.micro_batches == 1:
            grads, moves, sums = of_micro_batch(own, statistics, batch, keys)
        else:
            like = (
                collectives.own(statistics, mesh, "data") if recipe.statistics_group else statistics
            )
            grads, moves, sums = _over_micro_batches(
                functools.partial(of_micro_batch, own, statistics),
                recipe.micro_batches,
                (batch, keys),
                (own, like, collectives.own(empty_interval(), mesh, "data")),
            )
            moves = jax.tree.map(lambda move: move / recipe.micro_batches, moves)
        grads = jax.tree.map(
            lambda grad, param, still: (
                jnp.zeros_like(param) if still else collectives.total(grad, mesh, "data")
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
        """Of all towers; on one device."""
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
        now = {rate: rate.at(state["step"], state["plateau_scale"]) for rate in recipe.rates}
        rate_tree = jax.tree.unflatten(
            structure,
            [
                jnp.zeros(()) if name in recipe.frozen else now[rate]
                for name, rate in zip(names, rate_of, strict=True)
            ],
        )
        updates, optimizer_state = optimizer.update(
            grads, state["optimizer"], state["params"], rates=rate_tree
        )
        params = optax.apply_updates(state["params"], updates)
        if recipe.max_filter_rms:
            limited = ["" if name in recipe.frozen else name for name in names]
            params = optimizers.limit_filters(params, limited, recipe.max_filter_rms)
        # What is not finite in a gradient makes the parameters so.
        finite = jnp.isfinite(sums["loss"]) & sharded_all_finite(params)
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
            "learning_rate": now[recipe.rates[0]],
            "plateau_scale": state["plateau_scale"],
        }
        return cast(State, after), sums | {"finite": finite, "skipped_in_row": in_row}

    # Named, so that the state comes back as it went in: otherwise the second step
    # would be compiled anew.
    abstract = abstract_state(network, recipe, mesh)
    where = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return jax.jit(
        step,
        donate_argnums=0,
        out_shardings=(where, NamedSharding(mesh, replicated)),
        compiler_options=compiler_options(),
    )


def _over_micro_batches(
    of_micro_batch: Callable[[Batch, Array], tuple[Any, Any, Any]],
    count: int,
    examples: tuple[Batch, Array],
    like: tuple[Any, Any, Any],
) -> tuple[Any, Any, Any]:
    """Gradients, moves of statistics and metrics of one micro-batch after another, added up.

    Args:
      of_micro_batch: (batch, keys) -> (gradients, moves, metrics).
      count: how many micro-batches.
      examples: batch and dropout keys, of all of them.
      like: arrays like the three.
    """

    def add(so_far: tuple[Any, Any, Any], micro_batch: tuple[Batch, Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, so_far, of_micro_batch(*micro_batch)), None

    split = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), examples)
    return lax.scan(add, jax.tree.map(jnp.zeros_like, like), split)[0]


def make_pooling_step(
    network: PureNetwork, recipe: Recipe, mesh: Mesh
) -> Callable[[Any, Any, Batch, Normalization, Array], Any]:
    """Compiles (params, statistics, batch, normalization, share) -> statistics with the batch in.

    `share` is that of this batch among those so far: 1, 1/2, 1/3 ... make the mean and
    variance of each layer's input over all of them, each normalised by its own, as the authors
    of ResNet computed them after training (the notes with their released models).

    Args:
      network, recipe, mesh: as in training; the statistics are of whole batches.
    """
    data_axis = "data" if mesh.shape["data"] > 1 else None
    dropout_key = jax.random.fold_in(jax.random.key(recipe.seed), 2)

    def pool(params: Any, statistics: Any, batch: Batch, normalization: Any, share: Array) -> Any:
        places = collectives.rows(len(batch["label"]), mesh, "data")
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(dropout_key, places)
        images = training_input(
            batch, normalization, aligned=recipe.aligned_mean, dtype=recipe.dtype
        )
        taken = BatchStatistics(data_axis, frozen=recipe.frozen, pooled=share)
        return network.train(params, statistics, images, keys, taken)[2]

    replicated = PartitionSpec()
    specs = param_specs(network.per_tower, mesh)
    return jax.jit(
        jax.shard_map(
            pool,
            mesh=mesh,
            in_specs=(specs, replicated, collectives.split(mesh, "data"), replicated, replicated),
            out_specs=replicated,
        ),
        compiler_options=compiler_options(),
    )
