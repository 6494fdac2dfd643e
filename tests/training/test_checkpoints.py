import jax.numpy as jnp
import numpy as np
import pytest

from training import TrainingError
from training.checkpoints import Checkpoints


def state(value):
    return {
        "params": {"w": jnp.full((3,), value, jnp.float32)},
        "statistics": {},
        "step": jnp.int32(value),
    }


def save(checkpoints, step, error=None):
    validation = None if error is None else {"top1_error": error, "examples": 4, "loss": 1.0}
    images = {"mean": jnp.zeros((2, 2, 3)), "deviation": jnp.ones(3)}
    now = state(step)
    model = {name: now[name] for name in ("params", "statistics")}
    checkpoints.save(step, now, model, images, {"evaluated": step}, {}, validation)


def steps(directory):
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


def test_the_best_outlives_a_restart(tmp_path):
    first = Checkpoints(tmp_path, keep=2)
    for step, error in ((2, 0.5), (4, 0.3), (6, 0.7)):
        save(first, step, error)
    first.close()
    second = Checkpoints(tmp_path, keep=2)
    for step, error in ((8, 0.8), (10, 0.4), (11, None), (12, 0.9)):
        save(second, step, error)
    second.close()
    assert steps(tmp_path) == [4, 11, 12]
    third = Checkpoints(tmp_path)
    assert (third.choose("best"), third.choose("latest"), third.choose("11")) == (4, 12, 11)
    restored = third.restore_model(4, {k: state(0)[k] for k in ("params", "statistics")})
    np.testing.assert_array_equal(restored["params"]["w"], np.full(3, 4.0))
    assert restored["statistics"] == {}
    third.close()


def test_a_checkpoint_that_could_not_be_evaluated_is_replaced_when_it_has_been(tmp_path):
    first = Checkpoints(tmp_path)
    save(first, 5)
    first.close()
    second = Checkpoints(tmp_path)
    with pytest.raises(TrainingError, match="has been evaluated; choose latest"):
        second.choose("best")
    save(second, 5, 0.2)
    save(second, 7, 0.4)
    second.close()
    assert Checkpoints(tmp_path).choose("best") == 5


def test_what_cannot_be_chosen_or_restored_is_named(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 3, 0.5)
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(TrainingError, match=r"checkpoint=9: choose latest, best or one of .* 3"):
        checkpoints.choose("9")
    other = {"params": {"v": jnp.zeros((4,))}, "statistics": {}}
    with pytest.raises(TrainingError, match="not a checkpoint of this network"):
        checkpoints.restore_model(3, other)
