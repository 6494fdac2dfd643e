"""Boxes of windows: where they lie, whose classes they are, and that batches do not matter."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vision_models
from evaluation import EvaluationError, check_objective, protocol_called
from evaluation.localization import regression, windows
from evaluation.localization.merging import Merging, Windows, guesses_of
from evaluation.preprocessing import Preprocessing
from training import (
    RunError,
    Split,
    Trained,
    TrainingError,
    make_task,
    open_classifier,
    windows_of,
)
from training.windows import Classifier
from vision_models.dense import window_places
from vision_models.functional import functional, set_variables

CROP, CLASSES = 32, 3
IMAGES = Preprocessing(CROP, CROP)
OPTIONS = {
    "image_size": CROP, "convolutions": 1, "stages": 2, "kernels": 4, "hidden_layers": 0,
    "pool": "average",
}  # fmt: skip
NONE = {"mean": np.zeros(3, np.float32), "deviation": np.ones(3, np.float32)}
REGRESSES = regression.objective("pcr", (0, 1))


def planted():
    """A regressor that gives the true box from every window.

    Red is how far the box's centre is right of a pixel, plus 100; green how far below, plus 100;
    blue is its width. Its height is twice that, and class c's box is (c + 1) times as large.
    """
    task = make_task("convnet", OPTIONS | {"num_classes": 4 * CLASSES}, IMAGES, data=1)
    params, statistics = jax.device_get(task.network.init(jax.random.key(0)))
    for name in ("conv1_1", "conv2_1"):
        kernel = np.zeros_like(params[name]["kernel"])
        for colour in range(3):
            kernel[1, 1, colour, colour] = 1
        params[name] = {"kernel": kernel, "bias": np.zeros_like(params[name]["bias"])}
    shape = (8, 8, 8, CLASSES, 2, 2)  # row, column, map, class; place or size; x or y
    kernel, bias = np.zeros(shape), np.zeros(shape[3:])
    for axis in range(2):
        # The first value of a map is the mean of the window's first 4 x 4 pixels.
        kernel[0, 0, axis, :, 0, axis] = 1 / CROP
        bias[:, 0, axis] = (1.5 - 100) / CROP
        kernel[0, 0, 2, :, 1, axis] = np.arange(1, CLASSES + 1) * (1 + axis) / CROP
    size = 4 * CLASSES
    params["fc"] = {
        "kernel": kernel.reshape(params["fc"]["kernel"].shape).astype(np.float32),
        "bias": bias.reshape(size).astype(np.float32),
    }
    trained = Trained("convnet", task.options, params, statistics, NONE, "planted", IMAGES)
    return trained, dataclasses.replace(task, objective=REGRESSES)


def pictures(sizes):
    """Images of these sizes for `planted`, and the centre and width of each box in pixels."""
    rng = np.random.default_rng(0)
    found = []
    for height, width in sizes:
        x, y, wide = int(rng.integers(20, width - 20)), int(rng.integers(20, height - 20)), 6
        rows, columns = np.mgrid[:height, :width]
        image = [x - columns + 100, y - rows + 100, np.full((height, width), wide)]
        found.append((np.stack(image, axis=-1).astype(np.uint8), (x, y, wide)))
    return found


def split_of(images, labels, batch_size, shape=(80, 96)):
    """A split of these images, in batches with padding."""

    def batches(look, start):
        for begin in range(0, len(images), batch_size):
            batch = {
                "image": np.full((batch_size, *shape, 3), 77, np.uint8),
                "valid": np.ones((batch_size, 2), np.int32),
                "label": np.full(batch_size, -1, np.int32),
                "index": np.zeros(batch_size, np.int64),
                "mask": np.zeros(batch_size, np.float32),
            }
            for row, number in enumerate(range(begin, min(begin + batch_size, len(images)))):
                height, width = images[number].shape[:2]
                batch["image"][row, :height, :width] = images[number]
                batch["valid"][row] = height, width
                batch["label"][row], batch["index"][row] = labels[number], number
                batch["mask"][row] = 1
            yield batch

    names = [str(n) for n in range(CLASSES)]
    return Split("test", batches, None, names, str, lambda look: "", lambda look: batch_size)


SIZES = [(64, 80), (80, 64), (64, 64), (67, 90), (64, 95)]


@functools.cache
def found(batch_size, protocol="dense_boxes_true_class", *scales):
    images = pictures(SIZES)
    trained, task = planted()
    chosen = protocol_called(protocol, IMAGES, scales or (64,))
    split = split_of([image for image, _ in images], [0, 1, 2, 1, 0], batch_size)
    return windows_of(trained, task, chosen, split, None, 5)


@pytest.mark.quick
def test_a_planted_regressor_gives_the_true_box_from_every_window():
    (look,) = found(2)
    assert look.labels.tolist() == [[0], [1], [2], [1], [0]]
    # Of 64 pixels in windows of 32, four apart: 9 places.
    assert look.counts.tolist() == [9 * 13, 13 * 9, 9 * 9, 9 * 15, 9 * 16]
    begin = 0
    truths = []
    for row, (image, (x, y, wide)) in enumerate(pictures(SIZES)):
        size = np.tile(image.shape[1::-1], 2)
        half = wide * (look.labels[row, 0] + 1) / 2
        truths.append(np.array([x - half, y - 2 * half, x + half, y + 2 * half]) / size)
        boxes = look.boxes[begin : begin + look.counts[row], 0]
        np.testing.assert_allclose(boxes, np.tile(truths[-1], (len(boxes), 1)), atol=1e-5)
        begin += look.counts[row]
    merged = guesses_of([look], np.array(SIZES), Merging())
    for guess, truth in zip(merged, truths, strict=True):
        np.testing.assert_allclose(guess.boxes, truth.clip(0, 1)[None], atol=1e-5)


def test_the_size_of_a_batch_does_not_matter():
    for other in (1, 5):
        for ours, theirs in zip(found(2), found(other), strict=True):
            for field in dataclasses.fields(Windows):
                np.testing.assert_allclose(
                    getattr(ours, field.name), getattr(theirs, field.name), rtol=1e-6, atol=1e-6
                )


def classifier(seed=1, **options):
    """A random classifier; `seed` draws its weights."""
    task = make_task(
        "convnet", OPTIONS | {"num_classes": CLASSES, "pool": "max"} | options, IMAGES, data=1
    )
    params, statistics = jax.device_get(task.network.init(jax.random.key(seed)))
    expected = {"mean": np.full(3, 90, np.float32), "deviation": np.full(3, 50, np.float32)}
    return Classifier(
        Trained("convnet", task.options, params, statistics, expected, "random", IMAGES), task
    )


OTHER = {"image_size": 24, "stages": 1}  # than the regressor's windows


def of_crops(network, image, begins):
    """Logits of crops, one by one, by the network as it was trained."""
    size = network.task.options["image_size"]
    pixels = (image.astype(np.float32) - 90) / 50
    crops = np.stack([pixels[y : y + size, x : x + size] for y, x in begins])
    return np.asarray(network.task.network.apply(network.trained.params, {}, jnp.asarray(crops)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dense_boxes", {}), ("overfeat_boxes", OTHER), ("dense_boxes_true_class", OTHER),
        *[pytest.param(*of, marks=pytest.mark.slow)
          for of in (("dense_boxes", OTHER), ("overfeat_boxes", {}))],
    ],
)  # fmt: skip
def test_windows_have_the_scores_of_a_classifier(name, options):
    """Of its window at the same place, or, where these have another size, at the nearest centre."""
    images = pictures(SIZES[:1])
    trained, task = planted()
    other = classifier(window=1, **options)  # whose windows do not see what is around them
    split = split_of([image for image, _ in images], [1], 2)
    (look,) = windows_of(trained, task, protocol_called(name, IMAGES, (64,)), split, other, 2)
    size, step = (24, 2) if options else (32, 4)
    if name == "overfeat_boxes":
        step //= 2
    own = 2 if name == "overfeat_boxes" else 4
    begins = [(y, x) for y in range(0, 33, own) for x in range(0, 49, own)]
    shift = (CROP - size) // 2
    probabilities = np.asarray(
        jax.nn.softmax(of_crops(other, images[0][0], [(y + shift, x + shift) for y, x in begins]))
    )
    everywhere = [(y, x) for y in range(0, 65 - size, step) for x in range(0, 81 - size, step)]
    logits = of_crops(other, images[0][0], everywhere)
    whole = jax.nn.softmax(logits.max(axis=0) if own == 2 else logits.mean(axis=0))
    best = [1] if name.endswith("true_class") else np.argsort(-whole)[:2].tolist()
    assert look.labels[0].tolist() == best and look.counts[0] == len(begins)
    np.testing.assert_allclose(look.scores[0], whole[np.array(best)], rtol=1e-4)
    # Windows of all offsets come map by map.
    sums = np.sort(look.confidences, axis=0), np.sort(probabilities[:, best], axis=0)
    np.testing.assert_allclose(*sums, rtol=1e-3)
    if own == 4:
        np.testing.assert_allclose(look.confidences, probabilities[:, best], rtol=1e-3)


def test_offsets_that_leave_too_little_are_left_out():
    """Images as high as a window: no window begins a row below the first."""
    trained, task = planted()
    other = classifier(window=1)
    ((image, _),) = pictures([(64, 80)])
    split = split_of([image[:32, :40]], [1], 1, shape=(32, 40))
    (look,) = windows_of(
        trained, task, protocol_called("overfeat_boxes", IMAGES, (32,)), split, other, 3
    )
    assert look.counts.tolist() == [5]  # 0, 4, 8 and 2, 6 pixels from the left
    begins = [(0, 0), (0, 4), (0, 8), (0, 2), (0, 6)]
    logits = of_crops(other, image[:32, :40], begins)
    order = look.labels[0]
    np.testing.assert_allclose(look.confidences, jax.nn.softmax(logits)[:, order], rtol=1e-3)
    np.testing.assert_allclose(look.scores[0], jax.nn.softmax(logits.max(axis=0))[order], rtol=1e-4)


@pytest.mark.parametrize("offsets", [pytest.param(False, marks=pytest.mark.slow), True])
def test_windows_are_crops_at_their_places(offsets):
    """A spot on nothing, which padding is as well: a window's output is that of its crop."""
    options = OPTIONS | {"hidden_layers": 1, "pool": "max"}
    network = functional(
        lambda rngs: vision_models.create("convnet", num_classes=5, **options, rngs=rngs)
    )
    params, statistics = jax.jit(network.init)(jax.random.key(0))
    side, low, high = CROP + 30, 28, 36
    image = np.zeros((1, side, side, 3), np.float32)
    image[0, low:high, low : high - 2] = np.random.default_rng(0).uniform(-1, 1, (8, 6, 3))
    valid = jnp.array([[side, side - 3]])
    slide = jax.jit(network.score_maps, static_argnums=(4, 5))
    maps = slide(params, statistics, jnp.asarray(image), valid, offsets, True)
    places = network.window_places(offsets)
    outputs, begins, there = jax.device_get(windows.flat(maps, places, CROP, valid))
    outputs, begins = outputs[0][there[0]], begins[0][there[0]]
    step = 2 if offsets else 4
    expected = [(y, x) for y in range(0, 31, step) for x in range(0, 28, step)]
    assert sorted(map(tuple, begins.tolist())) == expected
    crops = np.stack([image[0, y : y + CROP, x : x + CROP] for y, x in begins])
    expected = jax.jit(network.apply)(params, statistics, jnp.asarray(crops))
    # What the spot spreads to is inside as well.
    whole = ((begins <= low - 6) & (begins + CROP >= high + 6)).all(axis=1)
    assert whole.sum() >= 9 and np.ptp(np.asarray(expected)[whole], axis=0).max() > 0.01
    np.testing.assert_allclose(outputs[whole], expected[whole], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_an_average_over_maps_slides():
    """A network that ends in one has an output for every window, like its convolutional form."""
    options = {"num_classes": 5, "image_size": 32}
    network = functional(lambda rngs: vision_models.create("all_cnn_c", **options, rngs=rngs))
    params, statistics = jax.jit(network.init)(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (1, 40, 52, 3))
    slide = jax.jit(network.score_maps, static_argnums=(4, 5))
    ((found, cells),) = slide(params, statistics, images, jnp.array([[40, 52]]), False, True)
    model = vision_models.create("all_cnn_c", **options, rngs=nnx.Rngs(0))
    set_variables(model, params, statistics)
    expected = nnx.jit(vision_models.fully_convolutional(model))(images)
    assert cells.tolist() == [list(expected.shape[1:3])] and expected.shape[1:3] == (3, 6)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "apart", "shifts"),
    [
        ("alexnet", 32, 16), ("vgg16", 32, 16), ("zfnet", 32, 16), ("resnet18", 32, None),
        ("googlenet", 32, None), ("overfeat_fast", 32, 16), ("overfeat_accurate", 36, 12),
        ("lenet5", 4, None),
    ],
)  # fmt: skip
def test_how_far_windows_are_apart(name, apart, shifts):
    """OverFeat's windows are 36 pixels apart, and 12 with offsets (section 3.3)."""
    model = nnx.eval_shape(lambda: vision_models.create(name, rngs=nnx.Rngs(0)))
    assert window_places(model, offsets=False) == (apart, [(0, 0)])
    if shifts is not None:
        spacing, places = window_places(model, offsets=True)
        assert spacing == apart and places[1] == (0, shifts)
        assert len(places) == (apart // shifts) ** 2


def test_a_process_without_images():
    """It has no rows, and gets those of the others; without any image nothing is evaluated."""
    (look,) = found(2)
    columns = [getattr(look, field.name) for field in dataclasses.fields(Windows)]
    others = iter([columns[:4], columns[4:]])

    def gather_rows(*mine):
        return tuple(np.concatenate(pair) for pair in zip(mine, next(others), strict=True))

    together = windows.gathered(windows.joined([], 1), gather_rows)
    for name, column in zip(vars(together), columns, strict=True):
        np.testing.assert_array_equal(getattr(together, name), column)
        assert getattr(together, name).dtype == column.dtype
    trained, task = planted()
    chosen = protocol_called("dense_boxes_true_class", IMAGES)
    with pytest.raises(RunError, match="not one example of test could be read"):
        windows_of(trained, task, chosen, split_of([], [], 2), None, 5)


def test_what_is_missing_is_named():
    images = pictures(SIZES[:1])
    trained, task = planted()
    split = split_of([image for image, _ in images], [-1], 2)
    with pytest.raises(EvaluationError, match=r"--config\.evaluation\.classifier"):
        windows_of(trained, task, protocol_called("dense_boxes", IMAGES), split, None, 5)
    with pytest.raises(EvaluationError, match="0 has no label"):
        windows_of(trained, task, protocol_called("dense_boxes_true_class", IMAGES), split, None, 5)
    large = classifier(image_size=96)
    with pytest.raises(
        EvaluationError, match="64 is below the 96 pixels of a window of the classifier"
    ):
        windows_of(trained, task, protocol_called("dense_boxes", IMAGES, (64,)), split, large, 5)
    with pytest.raises(TrainingError, match=r"evaluation\.classifier: .*no such"):
        open_classifier("nowhere", ["a"], task)
    with pytest.raises(EvaluationError, match="for networks that regress boxes"):
        check_objective(protocol_called("dense_boxes", IMAGES), large.task.objective)
