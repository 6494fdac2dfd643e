import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vision_models
from devices import mesh as meshes
from evaluation import EvaluationError, evaluate, make_steps, metrics, protocol_called
from evaluation.preprocessing import Preprocessing, training_input, view_input
from evaluation.protocols import PROTOCOLS, Crops, Images, Look, Protocol
from input_pipeline import augment, open_dataset
from input_pipeline.batches import Reading, evaluation_batches
from vision_models.functional import functional

RESIZE, CROP = 72, 64


@functools.cache
def network():
    return functional(
        lambda rngs: vision_models.create(
            "alexnet",
            num_classes=10,
            image_size=CROP,
            kernels=(8, 12, 16, 16, 12),
            hidden=(24, 20),
            init_std=0.2,  # large enough that the image decides the logits
            init_std_conv3to5=0.2,
            rngs=rngs,
        )
    )


@functools.cache
def params():
    return network().init(jax.random.key(1))[0]


def mean_image():
    return np.random.default_rng(5).uniform(60, 190, (RESIZE, RESIZE, 3)).astype(np.float32)


DEVIATION = np.array([2.0, 1.0, 0.5], np.float32)


def normalization(mean):
    return {"mean": jnp.asarray(mean), "deviation": jnp.asarray(DEVIATION)}


IMAGES = Preprocessing(RESIZE, CROP, aligned_mean=True)


def step_of(mesh, protocol):
    specs = meshes.param_specs(network().per_tower, mesh)
    chosen = protocol_called(protocol, IMAGES)
    (step,) = make_steps(chosen, network(), mesh, specs, IMAGES, "float32")
    return step


def run(mesh, batches, protocol="center_crop"):
    specs = meshes.param_specs(network().per_tower, mesh)
    placed = jax.device_put(params(), meshes.shardings(mesh, specs))
    images = {
        "mean": meshes.replicate(mesh, mean_image()),
        "deviation": meshes.replicate(mesh, DEVIATION),
    }
    place = meshes.batch_placer(mesh)
    return evaluate(step_of(mesh, protocol), placed, {}, images, batches, place)


@pytest.mark.slow
@pytest.mark.parametrize(
    "layouts",
    [[(1, 1), (2, 1), (2, 2)], [(1, 1), (1, 2), (4, 1)]],
    ids=str,
)
def test_an_odd_number_of_examples_at_any_batch_size_and_mesh(tmp_path, layouts):
    """Identical counts and errors: 77 digits, batches of 1, 7 and 64, on 1, 2 and 4 devices."""
    digits = open_dataset("digits", None, validation_examples=77, cache_dir=tmp_path)
    validation = digits.examples("validation")
    results = {}
    for data, tower in layouts:
        mesh = meshes.make_mesh(2, data=data, tower=tower)
        for batch_size in (1, 7, 64):
            padded = -(-batch_size // data) * data
            square = augment.central_square(RESIZE)
            batches = evaluation_batches(validation, square, batch_size=padded, reading=Reading())
            scores = run(mesh, batches)
            assert scores.index.tolist() == list(range(77))
            labels = [validation.read(i)[1] for i in range(77)]
            assert scores.label.tolist() == labels
            np.testing.assert_allclose(np.exp(scores.scores).sum(axis=1), 1, rtol=1e-5)
            results[data, tower, batch_size] = metrics.means(scores)
    reference = results[1, 1, 1]
    assert reference["examples"] == 77
    assert 0.5 < reference["top1_error"] < 1
    for key, result in results.items():
        for name in ("examples", "top1_error", "top5_error"):
            assert result[name] == reference[name], key
        assert result["loss"] == pytest.approx(reference["loss"], rel=1e-5), key


def test_ten_views_equal_the_average_taken_by_hand():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, RESIZE, RESIZE, 3), np.uint8)
    mean = mean_image()
    far, middle = RESIZE - CROP, (RESIZE - CROP) // 2
    total = np.zeros((4, 10))
    for y, x in [(0, 0), (0, far), (far, 0), (far, far), (middle, middle)]:
        crops = ((images - mean) / DEVIATION)[:, y : y + CROP, x : x + CROP]
        for view in (crops, crops[:, :, ::-1]):
            logits = network().apply(params(), {}, jnp.asarray(view))
            total += np.asarray(jax.nn.softmax(logits))
    step = step_of(meshes.make_mesh(2, data=1, tower=1), "ten_view")
    log_p = step(params(), {}, normalization(mean), jnp.asarray(images))
    expected = np.log(total / 10)
    assert np.ptp(expected, axis=0).max() > 0.1  # the images matter
    np.testing.assert_allclose(log_p, expected, rtol=1e-5, atol=1e-4)


def test_views():
    """Row and column of each crop in its square, and whether it is mirrored."""

    def views(protocol, *sizes):
        (look,) = protocol_called(protocol, Preprocessing(*sizes)).looks
        (crops,) = look.views
        places = crops.offsets(look.images.square, look.images.square)
        return np.concatenate([places, crops.views[:, 2:]], axis=1)

    assert views("center_crop", 256, 224).tolist() == [[16, 16, 0]]
    assert views("center_crop", 32, 32, 4).tolist() == [[4, 4, 0]]
    ten = views("ten_view", 256, 224)
    assert len({tuple(view) for view in ten}) == 10
    assert {(y, x) for y, x, _ in ten} == {(0, 0), (0, 32), (16, 16), (32, 0), (32, 32)}
    nine = views("nine_crop", 32, 24)
    assert {tuple(v) for v in nine} == {(y, x, 0) for y in (0, 4, 8) for x in (0, 4, 8)}
    with pytest.raises(EvaluationError, match="choose one of center_crop, ten_view, nine_crop"):
        views("twelve_view", 256, 224)


def test_views_outside_the_image_are_refused(monkeypatch):
    """A slice that reaches over an edge would be moved without a word."""

    def astray(preprocessing):
        crops = Crops(preprocessing.crop, np.array([[0, 9, 0]], np.int32), places=places)
        return Protocol("", (Look(Images(preprocessing.resize), (crops,)),))

    monkeypatch.setitem(PROTOCOLS, "astray", astray)
    places = 10
    assert protocol_called("astray", Preprocessing(RESIZE, CROP)).name == "astray"
    with pytest.raises(EvaluationError, match="72 pixels is below the 73 pixels of a crop"):
        protocol_called("astray", Preprocessing(RESIZE, RESIZE + 1))
    places = 9
    with pytest.raises(EvaluationError, match=r"astray: a view at \[0, 9, 0\] is not in its image"):
        protocol_called("astray", Preprocessing(RESIZE, CROP))


@pytest.mark.parametrize("aligned, room", [(True, RESIZE - CROP), (True, 0), (False, 8)])
def test_training_input_equals_numpy(aligned, room):
    """Also where crops are as large as the mean image."""
    rng = np.random.default_rng(0)
    mean = mean_image()[: CROP + room, : CROP + room]
    batch = {
        "image": rng.integers(0, 256, (5, CROP, CROP, 3), np.uint8),
        "crop_offset": rng.integers(0, room + 1, (5, 2)).astype(np.int32),
        "flip": np.array([True, False, True, True, False]),
        "colour_shift": rng.normal(0, 6, (5, 3)).astype(np.float32),
        "colour_scale": np.full(5, 1 / 1.1, np.float32),
    }
    ours = training_input(
        jax.tree.map(jnp.asarray, batch), normalization(mean), aligned=aligned, dtype="float32"
    )
    for i in range(5):
        y, x = batch["crop_offset"][i] if aligned else (4, 4)
        under = mean[y : y + CROP, x : x + CROP]
        if aligned and batch["flip"][i]:
            under = under[:, ::-1]
        expected = (batch["image"][i] - under + batch["colour_shift"][i]) / 1.1 / DEVIATION
        np.testing.assert_allclose(ours[i], expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("aligned", [True, False])
def test_mean_of_a_view(aligned):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, RESIZE, RESIZE, 3), np.uint8)
    mean = mean_image()
    for y, x, flip in [(0, 8, 1), (4, 4, 0)]:
        seen = view_input(
            jnp.asarray(images), normalization(mean), jnp.array([y, x, flip]),
            size=CROP, aligned=aligned, dtype="float32",
        )  # fmt: skip
        crops = images[:, y : y + CROP, x : x + CROP].astype(np.float32)
        under = mean[y : y + CROP, x : x + CROP] if aligned else mean[4 : 4 + CROP, 4 : 4 + CROP]
        if flip:
            crops = crops[:, :, ::-1]
            under = under[:, ::-1] if aligned else under
        np.testing.assert_allclose(seen, (crops - under) / DEVIATION, rtol=1e-5, atol=1e-3)


def test_evaluation_can_be_stopped():
    mesh = meshes.make_mesh(2, data=1, tower=1)
    batch = {
        "image": np.zeros((1, RESIZE, RESIZE, 3), np.uint8),
        "label": np.zeros(1, np.int32),
        "index": np.zeros(1, np.int64),
        "mask": np.ones(1, np.float32),
    }
    answer = evaluate(
        step_of(mesh, "center_crop"),
        params(),
        {},
        normalization(mean_image()),
        [batch] * 3,
        meshes.batch_placer(mesh),
        lambda: True,
    )
    assert answer is None


def test_functional_form_equals_the_module():
    def create(rngs):
        small = {"kernels": (8, 16, 16, 16, 16), "hidden": (32, 32), "image_size": 64}
        return vision_models.create("alexnet", num_classes=5, rngs=rngs, **small)

    model, form = create(nnx.Rngs(0)), functional(create)
    images = np.random.default_rng(0).normal(0, 60, (2, 64, 64, 3)).astype(np.float32)
    held = nnx.to_pure_dict(nnx.state(model))
    np.testing.assert_array_equal(form.apply(held, {}, images), model(images))
    assert form.towers == 2
    assert form.per_tower["fc8"] == {"bias": False, "kernel": True}
