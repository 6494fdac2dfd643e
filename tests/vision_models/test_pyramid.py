"""Pyramid pooling: a vector of one size for images of every size, equal to pooling by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vision_models
from tests.networks import drawn
from vision_models import pooling
from vision_models.dense import score_map
from vision_models.pyramid import pyramid_pool

LEVELS = (6, 3, 2, 1)
SMALL = {"kernels": (4, 4, 4, 4, 4), "hidden": (6, 6), "num_classes": 5, "image_size": 64}


def by_hand(maps):
    """Maxima over the windows of appendix A: maps [h, w, c] -> a vector."""
    height, width = maps.shape[:2]
    found = []
    for n in LEVELS:
        for i in range(n):
            rows = slice(int(np.floor(i * height / n)), int(np.ceil((i + 1) * height / n)))
            for j in range(n):
                columns = slice(int(np.floor(j * width / n)), int(np.ceil((j + 1) * width / n)))
                found.append(maps[rows, columns].max((0, 1)))
    return np.concatenate(found)


@pytest.mark.quick
@pytest.mark.parametrize("height, width", [(10, 13), (17, 5), (1, 1)])
def test_equals_pooling_by_hand_at_every_size(height, width):
    rng = np.random.default_rng(height)
    maps = rng.normal(size=(2, height, width, 3)).astype(np.float32)
    expected = np.stack([by_hand(image) for image in maps])
    assert expected.shape == (2, 50 * 3)
    pool = jax.jit(pyramid_pool, static_argnums=1)
    np.testing.assert_array_equal(pool(maps, LEVELS), expected)
    # The same maps in a corner of larger ones, whose rest is not looked at.
    larger = rng.normal(10, 1, (2, 20, 21, 3)).astype(np.float32)
    larger[:, :height, :width] = maps
    valid = np.array([[height, width]] * 2, np.int32)
    np.testing.assert_array_equal(pool(larger, LEVELS, valid), expected)


def test_is_the_papers_sliding_window_on_13_pixels():
    """Section 2.3: windows of ceil(a / n) at strides of floor(a / n)."""
    maps = np.random.default_rng(0).normal(size=(1, 13, 13, 2)).astype(np.float32)

    @jax.jit
    def both(maps):
        pools = [pooling.pool(maps, "max", window=-(-13 // n), stride=13 // n) for n in LEVELS]
        return pyramid_pool(maps, LEVELS), jnp.concatenate([p.reshape(1, -1) for p in pools], 1)

    np.testing.assert_array_equal(*both(maps))


def test_gradients_go_to_the_maxima():
    maps = np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1)
    gradient = jax.jit(jax.grad(lambda maps: pyramid_pool(maps, (2,)).sum()))(maps)
    assert np.flatnonzero(gradient).tolist() == [12, 14, 22, 24]
    assert gradient.sum() == 4


def test_images_of_any_size_have_scores():
    """A network and dense evaluation agree on whole images, several of them in one batch."""
    model = drawn(lambda rngs: vision_models.create("zfnet_spp", rngs=rngs, **SMALL))
    rng = np.random.default_rng(1)
    images = [rng.normal(0, 50, (h, w, 3)).astype(np.float32) for h, w in ((64, 64), (79, 71))]
    graph, state = nnx.split(model)
    compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    dense = compiled(lambda state, *inputs: score_map(nnx.merge(graph, state), *inputs))
    batch = np.zeros((2, 90, 110, 3), np.float32)
    for row, image in zip(batch, images, strict=True):
        row[: image.shape[0], : image.shape[1]] = image
    scores, cells = dense(state, batch, np.array([i.shape[:2] for i in images], np.int32))
    assert (np.asarray(cells) == 1).all()
    for image, found in zip(images, scores, strict=True):
        alone = compiled(lambda state, x: nnx.merge(graph, state)(x))(state, image[None])
        assert alone.shape == (1, 5)
        np.testing.assert_allclose(found[0, 0], alone[0], atol=1e-5 * np.abs(alone).max())


def test_its_input_is_fixed_by_the_levels():
    for size in (64, 224):
        options = {**SMALL, "image_size": size}
        model = nnx.eval_shape(
            lambda options=options: vision_models.create("zfnet_spp", rngs=nnx.Rngs(0), **options)
        )
        assert model.fc6.kernel.shape == (50 * 4, 6)
