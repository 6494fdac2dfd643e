"""The papers' momentum, and learning rates by parameter, step and plateau."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from training.errors import TrainingError


@dataclasses.dataclass(frozen=True)
class Rate:
    """The learning rate of some parameters.

    Attributes:
      match: part of the parameters' paths; "" matches all.
      base: the rate before any drop.
      drops: steps of the drops; each multiplies the rate by `factor` from then on.
      factor: see `drops`.
      plateau: whether plateaus lower the rate as well.
      freeze: step from which on the rate is 0; None for never.
      warmup: number of first steps in which the rate is multiplied by `warmup_factor`.
      warmup_factor: see `warmup`.
    """

    match: str
    base: float
    drops: tuple[int, ...] = ()
    factor: float = 0.1
    plateau: bool = True
    freeze: int | None = None
    warmup: int = 0
    warmup_factor: float = 1.0

    def at(self, step: Array | int, plateau_scale: Array | float) -> Array:
        """Scalar float32: the rate of the update that follows `step` updates."""
        powers = jnp.array([self.base * self.factor**n for n in range(len(self.drops) + 1)])
        passed = jnp.sum(jnp.asarray(step) >= jnp.asarray(self.drops, jnp.int32))
        rate = powers[passed] * (plateau_scale if self.plateau else 1.0)
        if self.warmup:
            rate = jnp.where(jnp.asarray(step) < self.warmup, rate * self.warmup_factor, rate)
        return rate if self.freeze is None else jnp.where(step < self.freeze, rate, 0.0)


@dataclasses.dataclass(frozen=True)
class Momentum:
    """The papers' momentum and weight decay.

    Attributes:
      momentum: factor of the velocity at each update.
      weight_decay: of kernels.
      decay_biases: whether biases and the scales of normalisations decay as well.
      own_decays: (part of a parameter's path, its weight decay); the longest match counts.
    """

    momentum: float = 0.9
    weight_decay: float = 0.0
    decay_biases: bool = False
    own_decays: tuple[tuple[str, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Average:
    """An average of the parameters, which is evaluated in their place.

    Attributes:
      kind: `polyak`, the mean of the parameters after every update since `start` (Polyak and
        Juditsky 1992), or `exponential`, a moving average.
      decay: of `exponential`; after n updates at most (1 + n) / (10 + n).
      start: number of updates up to which the average is the parameters themselves; updates
        that were left out do not count.
    """

    kind: str
    decay: float = 0.9999
    start: int = 0


def rates_by_parameter(rates: Sequence[Rate], names: Sequence[str]) -> list[Rate]:
    """The rate of each named parameter: the longest `match` that its name contains.

    Raises:
      TrainingError: a group matches nothing.
    """
    chosen = [max((r for r in rates if r.match in n), key=lambda r: len(r.match)) for n in names]
    for rate in rates:
        if not any(rate.match in name for name in names):
            raise TrainingError(
                f"optimizer.groups: {rate.match!r} matches no parameter of {', '.join(names)}"
            )
    return chosen


def decay_by_parameter(momentum: Momentum, names: Sequence[str]) -> list[float]:
    """The weight decay of each named parameter."""
    decays = []
    for name in names:
        matches = [(match, decay) for match, decay in momentum.own_decays if match in name]
        decay = max(matches, key=lambda m: len(m[0]))[1] if matches else momentum.weight_decay
        is_kernel = name.rsplit("/", 1)[-1] == "kernel"
        decays.append(decay if is_kernel or momentum.decay_biases else 0.0)
    return decays


def papers_momentum(momentum: float, decay: Any) -> optax.GradientTransformationExtraArgs:
    """Momentum with the learning rate inside the velocity.

        v <- momentum v - rate (decay w + gradient),    w <- w + v

    Krizhevsky et al. 2012, section 5; Caffe has it too. In optax's and PyTorch's own
    momentum the rate multiplies the velocity instead: after a drop of the rate the steps
    are ten times smaller at once. Here the old velocity dies out over some ten steps.

    Args:
      momentum: .9 in the papers.
      decay: a tree like the parameters, with the weight decay of each.

    Returns:
      A transformation whose `update` takes `rates`, a tree like the parameters.
    """

    def scale(updates: Any, state: Any, params: Any = None, *, rates: Any, **_: Any) -> Any:
        def step(update: Array, param: Array, factor: float, rate: Array) -> Array:
            return -rate * (update + factor * param if factor else update)

        return jax.tree.map(step, updates, params, decay, rates), state

    by_rate = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), scale)
    return optax.chain(by_rate, optax.trace(momentum))


def averaged(average: Average, so_far: Any, now: Any, updates: Array) -> Any:
    """The average after one more update.

    Args:
      average: kind, decay and start.
      so_far: the average before this update.
      now: a tree like `so_far`, with the values after `updates` updates.
      updates: scalar int32.
    """
    count = jnp.maximum(updates - average.start, 1).astype(jnp.float32)
    if average.kind == "polyak":
        weight = 1 / count
    else:
        weight = 1 - jnp.minimum(average.decay, (1 + count) / (10 + count))
    weight = jnp.where(updates <= average.start, 1.0, weight)

    def mix(old: Array, new: Array) -> Array:
        # In this form, values that do not change stay equal to the bit.
        return jnp.where(weight >= 1, new, old + weight * (new - old))

    return jax.tree.map(mix, so_far, now)


def limit_gradient(gradient: Any, norm: float) -> Any:
    """Scales a gradient whose Euclidean norm, over all parameters, exceeds `norm` down to it.

    Pascanu, Mikolov and Bengio 2013, section 3.2; Szegedy et al. 2016, section 8, with 2. Each
    value is divided by the largest one before it is squared, which else overflows. A gradient that
    is not finite stays so.
    """
    leaves = jax.tree.leaves(gradient)
    largest = jnp.maximum(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in leaves]).max(), 1e-30)
    size = largest * jnp.sqrt(sum(jnp.sum(jnp.square(leaf / largest)) for leaf in leaves))
    factor = jnp.minimum(1.0, norm / size)
    return jax.tree.map(lambda leaf: leaf * factor, gradient)


def limit_filters(params: Any, names: Sequence[str], rms: float) -> Any:
    """Scales convolution filters whose root mean square exceeds `rms` down to it.

    Zeiler and Fergus 2014, section 3.1, with .1. A filter is the weights of one output map
    of a kernel [h, w, in, out].
    """

    def limit(name: str, value: Array) -> Array:
        if not name.endswith("kernel") or value.ndim < 4:
            return value
        size = jnp.sqrt(jnp.mean(jnp.square(value), axis=(-4, -3, -2), keepdims=True))
        return value * jnp.minimum(1.0, rms / jnp.maximum(size, 1e-12))

    leaves, structure = jax.tree.flatten(params)
    return jax.tree.unflatten(structure, [limit(n, v) for n, v in zip(names, leaves, strict=True)])


@dataclasses.dataclass(frozen=True)
class Plateau:
    """Divides the rate when validation error stops improving (section 5).

    Attributes:
      factor: factor of the rate at each drop.
      patience: number of evaluations without a new best error before a drop; 0 for no drops.
      drops: number of drops at most.
      best: lowest error so far.
      waited: number of evaluations since the best, or since the last drop.
      dropped: number of drops so far.
    """

    factor: float = 0.1
    patience: int = 0
    drops: int = 3
    best: float = float("inf")
    waited: int = 0
    dropped: int = 0

    @property
    def scale(self) -> float:
        """The present factor of the rate."""
        return self.factor**self.dropped

    def after(self, error: float) -> "Plateau":
        """The plateau after an evaluation with this error."""
        if error < self.best:
            return dataclasses.replace(self, best=error, waited=0)
        waited = self.waited + 1
        if self.patience and waited >= self.patience and self.dropped < self.drops:
            return dataclasses.replace(self, waited=0, dropped=self.dropped + 1)
        return dataclasses.replace(self, waited=waited)
