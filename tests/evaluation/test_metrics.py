import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import Scores, metrics


@settings(deadline=None, max_examples=30)
@given(
    batch=st.integers(1, 8),
    classes=st.integers(1, 12),
    k=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
def test_misses_equal_sorting(batch, classes, k, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (batch, classes)).astype(np.float32)  # many ties
    labels = rng.integers(0, classes, batch)
    ranked = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    expected = [0.0 if label in row else 1.0 for label, row in zip(labels, ranked, strict=True)]
    np.testing.assert_array_equal(metrics.misses(scores, labels, k), expected)


@pytest.mark.quick
def test_a_network_that_says_nothing_is_wrong():
    labels = jnp.arange(10)
    assert float(metrics.misses(jnp.zeros((10, 10)), labels, 1).sum()) == 9
    assert float(metrics.misses(jnp.full((10, 10), jnp.nan), labels, 5).sum()) == 10


@pytest.mark.quick
def test_totals_and_means_agree():
    log_p = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]], np.float32))
    labels = np.array([0, 1], np.int32)
    expected = {
        "examples": 2,
        "loss": pytest.approx(-(np.log(0.7) + np.log(0.2)) / 2),
        "top1_error": 0.5,
        "top5_error": 0.0,
    }
    for found in (
        metrics.averages(metrics.totals(log_p, labels)),
        metrics.means(Scores(np.array([4, 9], np.int32), log_p, labels)),
    ):
        assert {name: found[name] for name in expected} == expected
        assert found.keys() == set(metrics.SUMS)


@pytest.mark.quick
def test_an_example_counts_once():
    """Though two processes, whose devices hold two towers, bring the scores of the same images."""
    log_p = np.log(np.array([[0.7, 0.3], [0.1, 0.9], [0.1, 0.9]], np.float32))
    scores = Scores(np.array([5, 2, 2], np.int32), log_p, np.array([0, 0, 0], np.int32))
    assert metrics.means(scores)["examples"] == 2
    assert metrics.means(scores)["top1_error"] == 0.5


@pytest.mark.quick
def test_no_examples_have_no_mean():
    scores = Scores(np.zeros(0, np.int32), np.zeros((0, 3), np.float32), np.zeros(0, np.int32))
    assert metrics.means(scores)["examples"] == 0
    assert np.isnan(metrics.means(scores)["loss"])


@pytest.mark.quick
def test_more_examples_than_are_measured_at_once():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (5000, 3)).astype(np.float32)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    labels = rng.integers(0, 3, 5000).astype(np.int32)
    found = metrics.means(Scores(np.arange(5000, dtype=np.int32), log_p, labels))
    assert found["top1_error"] == np.mean(log_p.argmax(axis=1) != labels)
    assert found["loss"] == pytest.approx(-log_p[np.arange(5000), labels].mean(dtype=np.float64))


@pytest.mark.quick
def test_lenets_criterion_is_equation_9():
    """y of the label + log(e^-j + sum of e^-y), in double precision by hand."""
    rng = np.random.default_rng(0)
    penalties, labels, j = rng.uniform(0, 6, (5, 10)), np.array([0, 3, 9, 1, 1]), 1.5
    expected = penalties[np.arange(5), labels] + np.log(np.exp(-j) + np.exp(-penalties).sum(1))
    logits = jnp.asarray(-penalties, jnp.float32)
    ours = metrics.cross_entropy(jax.nn.log_softmax(logits), jnp.asarray(labels))
    ours = ours + metrics.rubbish_loss(logits, j)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


@pytest.mark.quick
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_smoothed_labels_are_those_of_optax(share):
    rng = np.random.default_rng(0)
    logits, labels = jnp.asarray(rng.normal(0, 3, (6, 7)), jnp.float32), jnp.arange(6)
    ours = metrics.cross_entropy(jax.nn.log_softmax(logits), labels)
    ours = ours + metrics.smoothing_loss(logits, labels, share)
    smooth = optax.smooth_labels(jax.nn.one_hot(labels, 7), share)
    np.testing.assert_allclose(ours, optax.softmax_cross_entropy(logits, smooth), rtol=1e-5)
