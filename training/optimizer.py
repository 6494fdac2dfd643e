"""The papers' momentum, and learning rates by parameter, moment and plateau."""

import dataclasses
from collections.abc import Callable, Sequence
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


def rates_from_config(optimizer: Any, to_steps: Callable[[str], Any]) -> list[Rate]:
    """The rates of a config's `optimizer`: the common one first, then its groups'.

    Args:
      optimizer: `learning_rate`, `drop_factor`, `drop_*`, `warmup_*`, `groups`.
      to_steps: path of a duration in the config, such as `optimizer.drop` -> steps.
    """
    drops = to_steps("optimizer.drop") or ()
    warmup = {
        "warmup": to_steps("optimizer.warmup") or 0,
        "warmup_factor": optimizer.warmup_factor,
    }
    common = Rate("", optimizer.learning_rate, drops, optimizer.drop_factor, **warmup)
    groups = []
    for name in optimizer.groups:
        group = optimizer.groups[name]
        own = to_steps(f"optimizer.groups.{name}.drop")
        groups.append(
            Rate(
                group.match,
                optimizer.learning_rate * group.multiplier,
                drops if own is None else own,
                optimizer.drop_factor,
                plateau=own is None,
                freeze=to_steps(f"optimizer.groups.{name}.freeze"),
                **warmup,
            )
        )
    return [common, *groups]


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


def decay_by_parameter(optimizer: Any, names: Sequence[str]) -> list[float]:
    """The weight decay of each named parameter.

    Kernels decay by `optimizer.weight_decay`, or by their group's own; biases and the
    scales of normalisations only with `optimizer.decay_biases`.
    """
    groups = [optimizer.groups[name] for name in optimizer.groups]
    decays = []
    for name in names:
        own = [g for g in groups if g.match in name and g.weight_decay is not None]
        chosen = max(own, key=lambda g: len(g.match)).weight_decay if own else None
        decay = optimizer.weight_decay if chosen is None else chosen
        is_kernel = name.rsplit("/", 1)[-1] == "kernel"
        decays.append(decay if is_kernel or optimizer.decay_biases else 0.0)
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


@dataclasses.dataclass
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

    factor: float
    patience: int
    drops: int
    best: float = float("inf")
    waited: int = 0
    dropped: int = 0

    @property
    def scale(self) -> float:
        """Factor of the rate now."""
        return self.factor**self.dropped

    def observe(self, error: float) -> bool:
        """Takes the error of an evaluation; true if it is the best so far."""
        if error < self.best:
            self.best, self.waited = error, 0
            return True
        self.waited += 1
        if self.patience and self.waited >= self.patience and self.dropped < self.drops:
            self.dropped, self.waited = self.dropped + 1, 0
        return False
