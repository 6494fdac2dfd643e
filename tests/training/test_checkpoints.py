import errno
import json
import os
import shutil
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint._src.futures.synchronization import MultihostSynchronizedValue
from orbax.checkpoint._src.path import atomicity

from training import RunError, TrainingError, sums
from training.checkpoints import Checkpoints
from training.workdir import steps_in


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


def test_averages_of_other_metrics_begin_anew(tmp_path):
    """All else is as it was saved: a metric may be added between two parts of a run."""
    checkpoints = Checkpoints(tmp_path)
    saved = state(4) | {"interval": {"loss": jnp.float32(7), "examples": jnp.float32(2)}}
    model = {name: saved[name] for name in ("params", "statistics")}
    checkpoints.save(4, saved, model, {"mean": jnp.zeros(3)}, {"plateau": {}}, {}, None)
    checkpoints.finish()
    same = checkpoints.restore_state(4, saved)
    assert {name: float(v) for name, v in same["interval"].items()} == {"loss": 7, "examples": 2}
    now = saved | {"interval": dict.fromkeys(("loss", "examples", "new"), jnp.float32(0))}
    restored = checkpoints.restore_state(4, now)
    assert {name: float(v) for name, v in restored["interval"].items()} == {
        "loss": 0,
        "examples": 0,
        "new": 0,
    }
    np.testing.assert_array_equal(restored["params"]["w"], np.full(3, 4.0))
    checkpoints.close()


def test_parts_that_cannot_be_read_are_said_with_the_version_that_wrote_them(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    save(checkpoints, 3, 0.5)
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    about = {"versions": {"vision-models": "9.1"}, "git_commit": "0123456789abcdef"}
    (tmp_path / "config.json").write_text(json.dumps(about))
    whole = state(0)
    whole["something_new"] = jnp.zeros(())
    with pytest.raises(TrainingError, match=r"begun by vision_models 9\.1, commit 0123456789ab$"):
        checkpoints.restore_state(3, whole)


def files(directory):
    return sorted(path for path in directory.rglob("*") if path.is_file())


def flip_a_byte(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << (at % 8)
    path.write_bytes(content)


def test_one_flipped_byte_anywhere_is_found(tmp_path):
    """Of a file with a sum; the others hold no values, and are not needed to restore."""
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    save(checkpoints, 2)
    save(checkpoints, 4, 0.5)
    checkpoints.finish()
    assert checkpoints.latest_sound() == 4
    newest, rng, found = tmp_path / "checkpoints" / "4", np.random.default_rng(0), 0
    for path in files(newest):
        whole = path.read_bytes()
        if not whole:
            continue
        flip_a_byte(path, rng.integers(len(whole)))
        again = Checkpoints(tmp_path / "checkpoints")
        again.close()
        if not newest.exists():  # what was damaged are the metrics that all are listed with
            assert path == newest / "metrics" / "metrics"
            (tmp_path / "damaged" / "4").rename(newest)
            path.write_bytes(whole)
            found += 1
            continue
        if checkpoints.damage(4) is None:
            name = str(path.relative_to(newest))
            assert name in ("_CHECKPOINT_METADATA", "commit_success.txt")
            again = Checkpoints(tmp_path / "checkpoints")
            again.close()
            restored = again.restore_state(4, state(0))
            np.testing.assert_array_equal(restored["params"]["w"], np.full(3, 4.0))
        else:
            found += 1
        path.write_bytes(whole)
        assert checkpoints.damage(4) is None
    assert found > 15
    checkpoints.close()


@pytest.mark.parametrize("how", ["flipped", "shortened", "missing", "no sums"])
def test_the_checkpoint_before_a_damaged_one_is_used(tmp_path, capsys, how):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in (2, 4):
        save(checkpoints, step)
    checkpoints.finish()
    newest = tmp_path / "checkpoints" / "4"
    values = max(files(newest / "training"), key=lambda path: path.stat().st_size)
    if how == "flipped":
        flip_a_byte(values, values.stat().st_size // 2)
    elif how == "shortened":
        values.write_bytes(values.read_bytes()[:-1])
    elif how == "missing":
        values.unlink()
    else:
        (newest / "sha256.json").unlink()
    assert Checkpoints(tmp_path / "checkpoints").choose("latest") == 2
    assert "passed over" in capsys.readouterr().out
    with pytest.raises(TrainingError, match="4 is damaged"):
        checkpoints.choose("4")
    assert checkpoints.latest_sound() == 2
    assert "damaged: checkpoint 4" in capsys.readouterr().out
    assert steps(tmp_path / "checkpoints") == [2]
    assert (tmp_path / "damaged" / "4").is_dir()
    save(checkpoints, 4)
    checkpoints.finish()
    assert checkpoints.latest_sound() == 4

    for step in (2, 4):
        (tmp_path / "checkpoints" / str(step) / "sha256.json").write_text("[]")
    with pytest.raises(TrainingError, match="every checkpoint was damaged; they are in") as caught:
        checkpoints.latest_sound()
    assert "emove" not in str(caught.value)  # something of them may still be good
    assert sorted(p.name for p in (tmp_path / "damaged").iterdir()) == ["2", "4", "4-1"]
    with pytest.raises(TrainingError, match="every checkpoint was damaged"):  # not begun anew
        Checkpoints(tmp_path / "checkpoints").latest_sound()


def lay_strays(root):
    """What file systems, desktops and people leave in every directory below one."""
    for directory in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        for name in (".DS_Store", "._d", ".nfs0001", "Thumbs.db", "notes.txt", "zarr.json", "²"):
            (directory / name).write_bytes(b"\xff?")
        (directory / "@eaDir").mkdir()
        (directory / "@eaDir" / "model").write_text("?")
        (directory / "gone").symlink_to("nowhere")


def test_what_lies_there_besides_changes_nothing(tmp_path, capsys):
    """Inside of every checkpoint, and beside them: copies, other numbers, plain files."""
    place = tmp_path / "checkpoints"
    checkpoints = Checkpoints(place, keep=2)
    for step, error in ((2, 0.1), (4, 0.5)):
        save(checkpoints, step, error)
    checkpoints.close()
    own = files(place)
    lay_strays(place)
    (tmp_path / "damaged").mkdir()
    lay_strays(tmp_path / "damaged")
    others = [
        "4 copy", "4 (conflicted copy)", "007", "step_9", "4.replaced.bak", "my.replaced",
        "copy of 4.orbax-checkpoint-tmp",
    ]  # fmt: skip
    for name in others:
        shutil.copytree(place / "4", place / name, symlinks=True)
    before = {path: path.read_bytes() for path in files(tmp_path)}
    for _ in range(2):
        checkpoints = Checkpoints(place, keep=2)
        checkpoints.clear_unfinished()
        assert checkpoints.latest_sound() == 4
        assert (checkpoints.choose("best"), checkpoints.choose("latest")) == (2, 4)
        restored = checkpoints.restore_state(4, state(0))
        np.testing.assert_array_equal(restored["params"]["w"], np.full(3, 4.0))
        everywhere = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        model = checkpoints.restore_model_as_saved(4, everywhere)
        np.testing.assert_array_equal(model["params"]["w"], np.full(3, 4.0))
        assert set(own) <= set(files(place))
        checkpoints.close()
    assert {path: path.read_bytes() for path in files(tmp_path)} == before
    assert capsys.readouterr().out == ""
    # It goes on, also to the step whose name a file has.
    (place / "6").write_text("a list")
    checkpoints = Checkpoints(place, keep=2)
    save(checkpoints, 6, 0.4)
    save(checkpoints, 8, 0.3)
    checkpoints.finish()
    assert checkpoints.latest_sound() == 8
    assert steps_in(place) == [2, 6, 8]
    assert all((place / name).is_dir() for name in others)
    assert (tmp_path / "damaged" / "6").read_text() == "a list"
    checkpoints.close()


def test_strays_of_the_moment_of_writing_are_not_missed_later(tmp_path):
    for name in ("a/manifest", "a/d/0f", "a/.nfs0001", "@eaDir/a", "Thumbs.db", ".DS_Store"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    sums.write_sums(tmp_path)
    assert sums.read_sums(tmp_path).keys() == {"a/manifest", "a/d/0f"}
    (tmp_path / "a" / ".nfs0001").unlink()
    assert sums.damage(tmp_path) is None


@pytest.mark.parametrize("target", ["itself", "/proc/self/mem"])
@pytest.mark.parametrize("name", ["sha256.json", "metrics/metrics", "model/manifest.ocdbt"])
def test_what_cannot_be_read_is_not_damaged(tmp_path, name, target):
    """A loop of links; memory that is not there, whose reading is an I/O error."""
    if target != "itself" and not Path(target).exists():
        pytest.skip(f"no {target}")
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in (2, 4):
        save(checkpoints, step, 0.5)
    checkpoints.finish()
    path = tmp_path / "checkpoints" / "4" / name
    kept = path.rename(tmp_path / "kept")
    path.symlink_to(path.name if target == "itself" else target)
    for asked in (
        checkpoints.latest_sound,
        lambda: checkpoints.choose("latest"),
        lambda: Checkpoints(tmp_path / "checkpoints").latest_sound(),
    ):
        with pytest.raises(TrainingError, match=r"cannot be read \(.*may still be good"):
            asked()
    assert not (tmp_path / "damaged").exists()
    path.unlink()
    kept.rename(path)
    assert checkpoints.latest_sound() == 4
    checkpoints.close()


def test_one_that_was_to_be_replaced_comes_back_for_a_damaged_one(tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    save(checkpoints, 4)
    checkpoints.finish()
    place = tmp_path / "checkpoints"
    shutil.copytree(place / "4", place / "4.replaced")
    (place / "4" / "model" / "manifest.ocdbt").unlink()
    checkpoints.clear_unfinished()
    assert "damaged: checkpoint 4 (model/manifest.ocdbt is missing)" in capsys.readouterr().out
    assert checkpoints.latest_sound() == 4
    assert sorted(path.name for path in place.iterdir()) == ["4"]
    assert (tmp_path / "damaged" / "4").is_dir()
    shutil.copytree(place / "4", place / "4.replaced")
    checkpoints.clear_unfinished()
    assert sorted(path.name for path in place.iterdir()) == ["4"]
    checkpoints.close()


@pytest.mark.parametrize("content", ["{", "", "[1]", "{}", '{"top1_error"'])
def test_metrics_that_cannot_be_read_cost_their_checkpoint_alone(tmp_path, capsys, content):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step, error in ((2, 0.1), (4, 0.5), (6, 0.4)):
        save(checkpoints, step, error)
    checkpoints.close()
    (tmp_path / "checkpoints" / "2" / "metrics" / "metrics").write_text(content)
    again = Checkpoints(tmp_path / "checkpoints")
    assert "damaged: checkpoint 2 (metrics/metrics has changed)" in capsys.readouterr().out
    assert (again.latest_sound(), again.choose("best")) == (6, 6)
    again.close()
    assert (tmp_path / "damaged" / "2").is_dir()


def test_a_write_that_fails_half_way(small_disk, monkeypatch, caplog):
    """A disk that others fill up meanwhile: space was seen, and is not there."""
    monkeypatch.setattr(Checkpoints, "_check_space", lambda self: None)
    place, _ = small_disk
    checkpoints = Checkpoints(place / "checkpoints")
    large = jnp.asarray(np.random.default_rng(0).random((3, 50_000)), jnp.float32)

    def write(step):
        now = state(step) | {"params": {"w": large}, "optimizer": {"w": large[0]}}
        model = {name: now[name] for name in ("params", "statistics")}
        images = {"mean": jnp.zeros((2, 2, 3)), "deviation": jnp.ones(3)}
        checkpoints.save(step, now, model, images, {}, {}, None)
        checkpoints.finish()
        return now

    now = write(2)
    with pytest.raises(RunError, match=r"step 4 could not be written \(the disk is full\)"):
        write(4)
    assert steps(place / "checkpoints") == [2]
    assert [path.name for path in (place / "checkpoints").iterdir()] == ["2"]
    again = Checkpoints(place / "checkpoints")
    assert again.latest_sound() == 2
    np.testing.assert_array_equal(again.restore_state(2, now)["params"]["w"], large)
    again.close()


def test_what_a_killed_process_left_is_cleared(tmp_path):
    """Half a checkpoint goes; one that was being replaced comes back."""
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 2)
    save(checkpoints, 4)
    checkpoints.finish()
    (tmp_path / "4").rename(tmp_path / "4.replaced")
    (tmp_path / "6.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "6.orbax-checkpoint-tmp" / "model").write_text("half")
    again = Checkpoints(tmp_path)
    again.clear_unfinished()
    assert again.latest_sound() == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "4"]


def test_averages_and_models_of_their_own_are_saved_once(tmp_path):
    """The model is the average; at the end its statistics are in no other part of the state."""
    now = state(3) | {
        "statistics": {"mean": jnp.full(2, 3.0)},
        "average": {"params": {"w": jnp.full(3, 2.5)}, "statistics": {"mean": jnp.full(2, 2.5)}},
    }
    images = {"mean": jnp.zeros((2, 2, 3)), "deviation": jnp.ones(3)}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, now, now["average"], images, {}, {}, None)
    anew = {"params": now["average"]["params"], "statistics": {"mean": jnp.full(2, 9.0)}}
    checkpoints.save(4, now, anew, images, {}, {}, None)
    checkpoints.finish()
    for step, mean in ((3, 2.5), (4, 9.0)):
        restored = checkpoints.restore_state(step, now)
        assert restored.keys() == now.keys()
        for path, leaf in jax.tree_util.tree_leaves_with_path(now):
            ours = restored
            for key in path:
                ours = ours[key.key]
            np.testing.assert_array_equal(ours, leaf)
        model = checkpoints.restore_model(step, now["average"])
        np.testing.assert_array_equal(model["params"]["w"], np.full(3, 2.5))
        np.testing.assert_array_equal(model["statistics"]["mean"], np.full(2, mean))


@pytest.mark.parametrize("fails", ["sums", "rename"])
def test_a_write_that_fails_here_is_told_before_the_others_have_ended_theirs(
    tmp_path, monkeypatch, fails
):
    """As in process 0 of two, whose last part of a write is its own: the other waits for it."""
    others_come, failed = threading.Event(), threading.Event()
    ended = MultihostSynchronizedValue.set

    def waits_for_others(self, value):
        if not value:
            failed.set()
            assert others_come.wait(60)
        ended(self, value)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 2)
    checkpoints.finish()
    monkeypatch.setattr(MultihostSynchronizedValue, "set", waits_for_others)
    if fails == "sums":
        monkeypatch.setattr(sums, "write_sums", full)
    else:
        monkeypatch.setattr(atomicity, "on_commit_callback", full)
    save(checkpoints, 4)
    assert failed.wait(60)
    try:
        for ask in (checkpoints.check, checkpoints.finish, lambda: save(checkpoints, 6)):
            with pytest.raises(RunError, match=r"step 4 could not be written \(the disk is full\)"):
                ask()
    finally:
        others_come.set()
    checkpoints.close()
    assert steps_in(tmp_path) == [2]


def test_a_write_that_others_have_left_is_no_failure_of_its_own(tmp_path, monkeypatch):
    """Orbax says that its barrier was late; JAX's error below it is of other processes."""

    def barrier():
        raise TimeoutError("Timed out") from jax.errors.JaxRuntimeError(
            "UNAVAILABLE: process 0 is gone"
        )

    checkpoints = Checkpoints(tmp_path)
    monkeypatch.setattr(checkpoints._manager, "check_for_errors", barrier)
    with pytest.raises(jax.errors.JaxRuntimeError, match="process 0 is gone"):
        checkpoints.finish()
    monkeypatch.undo()
    checkpoints.close()
