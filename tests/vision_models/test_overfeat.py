"""OverFeat's sliding windows have the sizes of the paper's Table 5."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vision_models
from vision_models.dense import score_maps

# Image, maps before the last pool, and scores for each offset of its windows. (The paper has 35
# columns where 497 pixels give 38.)
TABLE_5 = [
    ((245, 245), (17, 17), (1, 1)),
    ((281, 317), (20, 23), (2, 3)),
    ((317, 389), (23, 29), (3, 5)),
    ((389, 461), (29, 35), (5, 7)),
    ((461, 569), (35, 44), (7, 10)),
]


@pytest.mark.quick
@pytest.mark.parametrize("size, before, scores", TABLE_5)
def test_windows_are_the_papers(size, before, scores):
    options = {"kernels": (4,) * 6, "hidden": (4, 4), "num_classes": 3}
    model = nnx.eval_shape(
        lambda: vision_models.create("overfeat_accurate", rngs=nnx.Rngs(0), **options)
    )
    graph, state = nnx.split(model)
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)

    def shapes(state, images):
        return score_maps(nnx.merge(graph, state), images, jnp.array([size]), offsets=True)

    maps = jax.eval_shape(shapes, state, images)
    assert [m.shape for m, _ in maps] == [(1, *scores, 3)] * 9
    # By hand: conv1 7/2, pool 3/3, conv2 7, pool 2/2.
    assert tuple(((np.array(size) - 7) // 2 + 1) // 3 // 2 - 3) == before


def test_an_offset_that_leaves_too_little_has_no_windows():
    """The fast network's smallest scale: with an offset of a pixel 5 of 6 rows are left."""
    options = {"kernels": (4,) * 5, "hidden": (4, 4), "num_classes": 3}
    model = nnx.eval_shape(
        lambda: vision_models.create("overfeat_fast", rngs=nnx.Rngs(0), **options)
    )
    graph, state = nnx.split(model)

    def shapes(size):
        images = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
        maps = jax.eval_shape(
            lambda state, images: score_maps(
                nnx.merge(graph, state), images, jnp.array([size, size]), offsets=True
            ),
            state,
            images,
        )
        return [m.shape for m, cells in maps]

    assert shapes((245, 326)) == [(2, 1, 3, 3), (2, 1, 3, 3), (2, 0, 0, 3), (2, 0, 0, 3)]
    with pytest.raises(ValueError, match="too small"):
        shapes((200, 326))
