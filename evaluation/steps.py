"""The compiled programs of a protocol."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from devices import collectives
from devices.xla import compiler_options, platform_of
from evaluation import masks
from evaluation.errors import EvaluationError
from evaluation.preprocessing import Preprocessing, crop_input, view_input, whole_input
from evaluation.protocols.protocol import Crops, Dense, Look, Protocol
from vision_models.functional import PureNetwork

# (parameters, statistics, normalization, images[, sizes of whole images]) -> scores
Step = Callable[..., Array]


def make_steps(
    protocol: Protocol,
    network: PureNetwork,
    mesh: Mesh,
    param_specs: Any,
    preprocessing: Preprocessing,
    dtype: str,
) -> list[Step]:
    """The compiled function of each look of a protocol.

    Its arguments are parameters, statistics, normalization and images, uint8
    [B, height, width, 3], split over `data`. For whole images a further argument, int32 [B, 2],
    is the height and width of each without its padding. It returns float32 [B, classes], split
    likewise: the average over the views of the look. If the protocol averages probabilities,
    these are logarithms of the average.

    The network is compiled once for all crops, whatever the shape of the images that they are
    cut from; a dense look is compiled for every shape.

    Args:
      protocol: whose views are scored.
      network: the network that is evaluated.
      mesh: has an axis `data`, over which batches are split.
      param_specs: partition specs of the parameters on the mesh.
      preprocessing: how an image becomes the network's input.
      dtype: of the computation, such as "bfloat16".
    """
    compile_ = _Compiler(mesh, param_specs, protocol.average)
    size, scores = preprocessing.crop, masks.scores(network, protocol.masks)

    def score(params: Any, statistics: Any, seen: Array) -> Array:
        return compile_.value(scores(params, statistics, seen))

    scored = compile_(score, "params", "everywhere", "rows")
    return [
        _of_whole(look, network, compile_, scored, size, dtype)
        if look.images.whole
        else _of_square(look, score, compile_, preprocessing, dtype)
        for look in protocol.looks
    ]


def check_network(protocol: Protocol, network: PureNetwork) -> None:
    """Checks that a network can be evaluated by a protocol.

    Raises:
      EvaluationError: the protocol is dense, and the network cannot slide over whole images.
    """
    dense = [v for look in protocol.looks for v in look.views if isinstance(v, Dense)]
    try:
        for views in dense:
            network.check_whole(views.offsets)
    except ValueError as error:
        raise EvaluationError(
            f"evaluation.protocol={protocol.name}: {error}; choose a protocol of crops, such as "
            "ten_view or multi_crop"
        ) from error


class _Compiler:
    """Compiles functions of arrays on a mesh, and averages scores or log-probabilities."""

    def __init__(self, mesh: Mesh, param_specs: Any, average: str):
        """See `make_steps`."""
        self.mesh, self.log = mesh, average == "probabilities"
        rows = collectives.split(mesh, "data")
        self.specs = {
            "params": param_specs,
            "everywhere": PartitionSpec(),
            "rows": rows,
            "views": PartitionSpec(None, *rows),  # [views, B, ...]
        }

    def __call__(self, function: Callable[..., Array], *where: str, out: str = "rows") -> Any:
        """Compiles a function; `where` and `out` name the layouts of its arguments and result."""
        sharded = jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=tuple(self.specs[name] for name in where),
            out_specs=self.specs[out],
        )
        return jax.jit(sharded, compiler_options=compiler_options(platform_of(self.mesh)))

    def value(self, logits: Array) -> Array:
        """What is averaged over views: logits, or their log-probabilities."""
        return jax.nn.log_softmax(logits) if self.log else logits

    def add(self, total: Array | None, value: Array, weight: int) -> Array:
        """Adds a view's value to the sum so far, None before the first, with a weight.

        Probabilities are summed as logarithms, so that small ones do not underflow.
        """
        if self.log:
            value = value + np.float32(np.log(weight))
            return value if total is None else jnp.logaddexp(total, value)
        return value * weight if total is None else total + value * weight

    def mean(self, total: Array, weights: int) -> Array:
        """The average from the sum of `add`; `weights` is the sum of all weights."""
        return total - np.float32(np.log(weights)) if self.log else total / weights


def _of_square(
    look: Look,
    score: Callable[[Any, Any, Array], Array],
    compile_: _Compiler,
    preprocessing: Preprocessing,
    dtype: str,
) -> Step:
    """The step of a look at squares: one program for all its views."""
    (crops,) = look.views
    assert isinstance(crops, Crops) and crops.size == preprocessing.crop
    side = look.images.square
    offsets = crops.offsets(side, side)
    places = np.concatenate([offsets, crops.views[:, 2:]], axis=1)

    def local(
        params: Any, statistics: Any, normalization: dict[str, Array], images: Array
    ) -> Array:
        def of_view(view: Array) -> Array:
            seen = view_input(
                images,
                normalization,
                view,
                size=preprocessing.crop,
                aligned=preprocessing.aligned_mean,
                dtype=dtype,
            )
            return score(params, statistics, seen)

        # One view at a time, to keep the activations of one view only.
        per_view = lax.map(of_view, jnp.asarray(places))
        if not compile_.log:
            return per_view.mean(axis=0)
        return jax.nn.logsumexp(per_view, axis=0) - jnp.log(crops.count)

    return compile_(local, "params", "everywhere", "everywhere", "rows")


def _of_whole(
    look: Look, network: PureNetwork, compile_: _Compiler, scored: Step, size: int, dtype: str
) -> Step:
    """The step of a look at whole images, which scores one view after another."""
    all_crops = [views for views in look.views if isinstance(views, Crops)]
    all_dense = [views for views in look.views if isinstance(views, Dense)]
    cuts: list[tuple[Any, int, Any]] = []  # (function of `_cutter`, number of the view, mirrored)
    if all_crops:
        starts = compile_(
            lambda valid: jnp.concatenate([c.offsets(valid[:, 0], valid[:, 1]) for c in all_crops]),
            "rows",
            out="views",
        )
        by_size = {cut: _cutter(compile_, cut, size, dtype) for cut in {c.size for c in all_crops}}
        flips = [(by_size[c.size], np.bool_(view[2])) for c in all_crops for view in c.views]
        cuts = [(cut, number, flip) for number, (cut, flip) in enumerate(flips)]
    slides = [(_slider(views, network, compile_, dtype), views.weight) for views in all_dense]
    weights = len(cuts) + sum(2 * weight for _, weight in slides)

    def step(
        params: Any, statistics: Any, normalization: dict[str, Array], images: Array, valid: Array
    ) -> Array:
        total: Array | None = None
        if cuts:
            places = starts(valid)
        for cut, number, flip in cuts:
            seen = cut(normalization, images, places, np.int32(number), flip)
            total = compile_.add(total, scored(params, statistics, seen), 1)
        for slide, weight in slides:
            for mirrored in np.array([False, True]):
                value = slide(params, statistics, normalization, images, valid, mirrored)
                total = compile_.add(total, value, weight)
        assert total is not None
        return compile_.mean(total, weights)

    return step


def _cutter(compile_: _Compiler, cut: int, size: int, dtype: str) -> Any:
    """(normalization, images, places of all views, number of a view, mirrored) -> crops."""

    def local(
        normalization: dict[str, Array], images: Array, places: Array, number: Array, flip: Array
    ) -> Array:
        at = lax.dynamic_index_in_dim(places, number, keepdims=False)
        return crop_input(images, normalization, at, flip, cut=cut, size=size, dtype=dtype)

    return compile_(local, "everywhere", "rows", "views", "everywhere", "everywhere")


def _slider(views: Dense, network: PureNetwork, compile_: _Compiler, dtype: str) -> Any:
    """(parameters, statistics, normalization, images, sizes, mirrored) -> what is averaged."""

    def local(
        params: Any,
        statistics: Any,
        normalization: dict[str, Array],
        images: Array,
        valid: Array,
        flip: Array,
    ) -> Array:
        seen = whole_input(images, valid, normalization, flip, dtype=dtype)
        maps = network.score_maps(params, statistics, seen, valid, views.offsets, False)
        value = over_positions(maps, of=views.of, maximum=views.maximum)
        return compile_.value(value) if views.of == "scores" else value

    return compile_(local, "params", "everywhere", "everywhere", "rows", "rows", "everywhere")


def over_positions(maps: Sequence[tuple[Array, Array]], *, of: str, maximum: bool) -> Array:
    """The average, or the maximum, of score maps over all their positions.

    Args:
      maps: pairs of logits, float32 [B, h, w, classes], and int32 [B, 2], the number of their
        rows and columns that lie in the image and not in its padding.
      of: `scores` for the logits; `probabilities` for these, of which the log is returned.
      maximum: the largest of each class instead of the average.

    Returns:
      float32 [B, classes].
    """
    examples, classes = len(maps[0][0]), maps[0][0].shape[-1]
    values = jnp.concatenate([scores.reshape(examples, -1, classes) for scores, _ in maps], 1)
    there = jnp.concatenate([_positions(*each).reshape(examples, -1, 1) for each in maps], 1)
    positions = there.sum(axis=1)
    if of == "probabilities":
        values = jax.nn.log_softmax(values)
    if maximum:
        return jnp.where(there, values, -jnp.inf).max(axis=1)
    if of == "scores":
        return jnp.where(there, values, 0).sum(axis=1) / positions
    return jax.nn.logsumexp(values, axis=1, where=there) - jnp.log(positions)


def _positions(scores: Array, cells: Array) -> Array:
    """Bool [B, h, w], true at the positions that lie in the image."""
    rows, columns = (jnp.arange(n) for n in scores.shape[1:3])
    return (rows < cells[:, :1])[:, :, None] & (columns < cells[:, 1:])[:, None, :]
