"""The papers' momentum, and learning rates by parameter, moment and plateau."""

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
      match: part of their paths; "" matches all.
      base: before any drop.
      drops: steps from which on it is multiplied by `factor` once more.
      factor: of each drop.
      plateau: it falls on plateaus too.
      freeze: step from which on it is 0; None never.
      warmup: steps during which it is multiplied by `warmup_factor`.
      warmup_factor: see there.
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
      momentum: by which the velocity is multiplied at each update.
      weight_decay: of kernels.
      decay_biases: biases and the scales of normalisations decay as well.
      own_decays: (part of a parameter's path, its weight decay); the longest part counts.
    """

    momentum: float = 0.9
    weight_decay: float = 0.0
    decay_biases: bool = False
    own_decays: tuple[tuple[str, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Average:
    """The average of parameters that is evaluated in their place.

    Attributes:
      kind: `polyak`, the mean of the parameters after every update since `start` (Polyak and
        Juditsky 1992), or `exponential`, which forgets.
      decay: of `exponential`, less at first: after n updates at most (1 + n) / (10 + n).
      start: updates before which the average is the parameters themselves; those that were
        left out do not count.
    """

    kind: str
    decay: float = 0.9999
    start: int = 0


def rates_by_parameter(rates: Sequence[Rate], names: Sequence[str]) -> list[Rate]:
    """The rate of each named parameter: the longest `match` that its name contains.

    Raises:
      TrainingError: a group that matches nothing.
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
        own = [(match, decay) for match, decay in momentum.own_decays if match in name]
        decay = max(own, key=lambda pair: len(pair[0]))[1] if own else momentum.weight_decay
        is_kernel = name.rsplit("/", 1)[-1] == "kernel"
        decays.append(decay if is_kernel or momentum.decay_biases else 0.0)
    return decays


def papers_momentum(momentum: float, decay: Any) -> optax.GradientTransformationExtraArgs:
    """Momentum with the learning rate inside the velocity.

        v <- momentum v - rate (decay w + gradient),    w <- w + v

    Krizhevsky et al. 2012, section 5; Caffe has it too. In optax's and PyTorch's own
    momentum the rate multiplies the velocity instead: after a drop of the rate the steps
    are ten times smaller at once, where here the velocity of before dies out over some ten
    steps.

    Args:
      momentum: .9 in the papers.
      decay: like the parameters, the factor by which each decays.

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
    """An average of parameters with those of now taken in.

    Args:
      average: of which kind.
      so_far: the average after one update less.
      now: like it, after `updates` updates.
      updates: scalar int32.
    """
    count = jnp.maximum(updates - average.start, 1).astype(jnp.float32)
    if average.kind == "polyak":
        share = 1 / count
    else:
        share = 1 - jnp.minimum(average.decay, (1 + count) / (10 + count))
    share = jnp.where(updates <= average.start, 1.0, share)

    def mix(old: Array, new: Array) -> Array:
        # So written, what does not change stays as it is to the bit.
        return jnp.where(share >= 1, new, old + share * (new - old))

    return jax.tree.map(mix, so_far, now)


def limit_filters(params: Any, names: Sequence[str], rms: float) -> Any:
    """Convolution filters whose root mean square exceeds `rms` shrunk to it.

    Zeiler and Fergus 2014, section 3.1: .1. A filter is what makes one map: all weights
    that a kernel [h, w, in, out] has for an output.
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
      factor: by which the rate is multiplied.
      patience: evaluations without a new best error before it falls; 0: it never does.
      drops: how often it may fall.
      best: lowest error so far.
      waited: evaluations since the best, or since the last drop.
      dropped: how often it has fallen.
    """

    factor: float = 0.1
    patience: int = 0
    drops: int = 3
    best: float = float("inf")
    waited: int = 0
    dropped: int = 0

    @property
    def scale(self) -> float:
        """Factor of the rate now."""
        return self.factor**self.dropped

    def after(self, error: float) -> "Plateau":
        """The same once an evaluation has given this error."""
        if error < self.best:
            return dataclasses.replace(self, best=error, waited=0)
        waited = self.waited + 1
        if self.patience and waited >= self.patience and self.dropped < self.drops:
            return dataclasses.replace(self, waited=0, dropped=self.dropped + 1)
        return dataclasses.replace(self, waited=waited)
