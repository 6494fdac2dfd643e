"""Every protocol against loops over Pillow's images and NumPy, one image and one view at a time."""

import contextlib
import functools
import itertools
from inspect import signature

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import vision_models
from configs import notes
from devices import mesh as meshes
from evaluation import (
    EvaluationError,
    check_network,
    evaluate,
    make_steps,
    protocol_called,
    steps,
    whole,
)
from evaluation.preprocessing import Preprocessing
from evaluation.protocols import PROTOCOLS, training_protocol
from training.scoring import over_looks
from vision_models.functional import functional

CROP, RESIZE = 32, 40
IMAGES = Preprocessing(RESIZE, CROP)
MEAN, DEVIATION = np.array([120.0, 115.0, 100.0], np.float32), np.float32([60.0, 58.0, 57.0])
# The scales that a protocol is tested at; those that are not here have one.
SCALES = {
    "multi_crop": (32, 41), "crops_144": (40, 49), "dense": (44, 53), "overfeat": (40, 45),
    "multi_crop_and_dense": (36, 45), "multi_scale": (32, 43, 51), "multi_scale_logits": (32, 43),
}  # fmt: skip


def create(rngs):
    return vision_models.create(
        "convnet", num_classes=7, image_size=CROP, convolutions=1, stages=2, kernels=4,
        window=5, hidden=12, rngs=rngs,
    )  # fmt: skip


@functools.cache
def network():
    form = functional(create)
    return form, form.init(jax.random.key(3))


def correlated(x, kernel, bias):
    """[h, w, in] with windows [a, b, in, out], no padding -> [h - a + 1, w - b + 1, out]."""
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(0, 1))
    return np.tensordot(windows, kernel, axes=((3, 4, 2), (0, 1, 2))) + bias


def below_the_last_pool(pixels):
    """Maps [height / 2, width / 2, 8] of an image of any size."""
    (params, _), x = network()[1], (np.asarray(pixels, np.float64) - MEAN) / DEVIATION
    for name in ("conv1_1", "conv2_1"):
        layer = jax.tree.map(np.asarray, params[name])
        x = np.maximum(
            correlated(np.pad(x, [(2, 2), (2, 2), (0, 0)]), layer["kernel"], layer["bias"]), 0
        )
        x = pooled(x) if name == "conv1_1" else x
    return x


def pooled(x):
    """Maxima of 2x2; a last row or column without a partner is left out."""
    height, width = (n // 2 * 2 for n in x.shape[:2])
    whole = x[:height, :width].reshape(height // 2, 2, width // 2, 2, -1)
    return whole.max(axis=(1, 3))


def above_it(x):
    """Maps of scores [h, w, classes]: the fully connected layers at every position."""
    params = jax.tree.map(np.asarray, network()[1][0])
    hidden, head = params["hidden1"], params["fc"]
    side = CROP // 4
    kernel = hidden["kernel"].reshape(side, side, -1, hidden["kernel"].shape[-1])
    x = np.maximum(correlated(pooled(x), kernel, hidden["bias"]), 0)
    return x @ head["kernel"].reshape(x.shape[-1], -1) + head["bias"]


def softmax(scores):
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def rescaled(photograph, side):
    width, height = photograph.size
    shorter = min(width, height)
    size = [round(n * side / shorter) for n in (width, height)]
    return photograph.resize(size, Image.BILINEAR)


def scores_of(pixels):
    """Of a crop: [classes]."""
    return above_it(below_the_last_pool(pixels))[0, 0]


def crop_of(image, left, top, size=CROP):
    return image.crop((left, top, left + size, top + size))


def mirror(image):
    return image.transpose(Image.FLIP_LEFT_RIGHT)


def square(photograph):
    image = rescaled(photograph, RESIZE)
    return crop_of(image, (image.width - RESIZE) // 2, (image.height - RESIZE) // 2, RESIZE)


def corners_and_centre(image):
    """Upper left, upper right, centre, lower left, lower right."""
    x, y = image.width - CROP, image.height - CROP
    places = [(0, 0), (x, 0), (x // 2, y // 2), (0, y), (x, y)]
    return [crop_of(image, *place) for place in places]


def center_crop(photograph, scales):
    return softmax(scores_of(corners_and_centre(square(photograph))[2]))


def ten_view(photograph, scales):
    views = corners_and_centre(square(photograph))
    return np.mean([softmax(scores_of(v)) for v in views + [mirror(v) for v in views]], axis=0)


def ten_view_logits(photograph, scales):
    image = rescaled(photograph, RESIZE)
    centre = corners_and_centre(image)[2]
    views = [centre, mirror(centre)]
    for turned in (image, mirror(image)):
        views += [view for n, view in enumerate(corners_and_centre(turned)) if n != 2]
    return softmax(np.mean([scores_of(v) for v in views], axis=0))


def nine_crop(photograph, scales):
    image = square(photograph)
    views = [crop_of(image, x, y) for y in (0, 4, 8) for x in (0, 4, 8)]
    return np.mean([softmax(scores_of(v)) for v in views], axis=0)


def multi_crop(photograph, scales):
    found = []
    for side in scales:
        image = rescaled(photograph, side)
        rows, columns = (
            np.floor(np.linspace(0, n - CROP, 5)).astype(int) for n in (image.height, image.width)
        )
        for y, x in itertools.product(rows, columns):
            view = crop_of(image, x, y)
            found += [softmax(scores_of(view)), softmax(scores_of(mirror(view)))]
    assert len(found) == 50 * len(scales)
    return np.mean(found, axis=0)


def crops_144(photograph, scales):
    found = []
    for side in scales:
        image = rescaled(photograph, side)
        longer = max(image.size) - side
        for start in (0, longer // 2, longer):
            place = (start, 0) if image.width > image.height else (0, start)
            part = crop_of(image, *place, size=side)
            views = [*corners_and_centre(part), part.resize((CROP, CROP), Image.BILINEAR)]
            found += [softmax(scores_of(v)) for v in views + [mirror(v) for v in views]]
    assert len(found) == 36 * len(scales)
    return np.mean(found, axis=0)


def score_maps(photograph, scales):
    """Of the image and of its mirror image at each scale: [positions, classes]."""
    for side, flip in itertools.product(scales, (False, True)):
        image = rescaled(photograph, side)
        scores = above_it(below_the_last_pool(mirror(image) if flip else image))
        yield scores.reshape(-1, scores.shape[-1])


def dense(photograph, scales):
    return np.mean([softmax(m.mean(axis=0)) for m in score_maps(photograph, scales)], axis=0)


def dense_probabilities(photograph, scales):
    return np.mean([softmax(m).mean(axis=0) for m in score_maps(photograph, scales)], axis=0)


def multi_scale_logits(photograph, scales):
    return softmax(np.mean([m.mean(axis=0) for m in score_maps(photograph, scales)], axis=0))


def multi_crop_and_dense(photograph, scales):
    return (multi_crop(photograph, scales) + dense(photograph, scales)) / 2


def overfeat(photograph, scales):
    """Windows of the last pool (2/2) at each of four offsets: below it the maps, cut there."""
    found = []
    for side, flip in itertools.product(scales, (False, True)):
        image = rescaled(photograph, side)
        x = below_the_last_pool(mirror(image) if flip else image)
        largest = [
            above_it(x[down:, across:]).max(axis=(0, 1))
            for down, across in itertools.product(range(2), repeat=2)
        ]
        found.append(np.max(largest, axis=0))
    return softmax(np.mean(found, axis=0))


REFERENCES = {
    "center_crop": center_crop, "ten_view": ten_view, "ten_view_logits": ten_view_logits,
    "nine_crop": nine_crop, "multi_crop": multi_crop, "crops_144": crops_144, "dense": dense,
    "multi_crop_and_dense": multi_crop_and_dense, "multi_scale": dense,
    "multi_scale_logits": multi_scale_logits, "overfeat": overfeat,
}  # fmt: skip


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """Compiles several times as fast; convolutions and products are not that compiler's."""
    options = {"xla_backend_optimization_level": 0}
    monkeypatch.setattr(steps, "compiler_options", lambda platform: options)


@pytest.fixture(scope="module")
def photographs(shared_data):
    """20 photographs of ImageNet, lying and standing ones among them, also among the first 5."""
    found = sorted(shared_data("imagenet_sample/val").glob("*/*.JPEG"))[:20]
    stands = [height > width for width, height in (Image.open(path).size for path in found)]
    assert any(stands) and not all(stands)
    first = [stands.index(True), stands.index(False)]
    return [found[n] for n in first + [n for n in range(20) if n not in first]]


@pytest.fixture(scope="module")
def opened(photographs, tmp_path_factory):
    """How many photographs -> the first of them as a split."""
    from configs.alexnet import get_config
    from input_pipeline import open_data

    @functools.cache
    def split(count):
        root = tmp_path_factory.mktemp("photographs")
        for number, path in enumerate(photographs[:count]):
            folder = root / "val" / f"{number % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:02}.jpg").symlink_to(path)
        fields = get_config().data
        fields.name, fields.dir, fields.decode = "folder", str(root), "exact"
        fields.resize, fields.crop, fields.threads = RESIZE, CROP, 2
        return open_data(fields, root / "cache", only="validation", class_names=tuple("01"))

    return split


def evaluated(data, protocol, layout=(1, 1), batch_size=2, most=2):
    form, (params, statistics) = network()
    mesh = meshes.make_mesh(1, data=layout[0], tower=layout[1])
    specs = meshes.param_specs(form.per_tower, mesh)
    programs = make_steps(protocol, form, mesh, specs, IMAGES, "float32")
    place, looks = meshes.batch_placer(mesh), []
    for look, step in zip(protocol.looks, programs, strict=True):
        mean, plan = np.broadcast_to(MEAN, (RESIZE, RESIZE, 3)), None
        if look.images.whole:
            sizes, mean = data.sizes("validation", look.images), MEAN
            plan = whole.batches(sizes, whole.widths(sizes, most), batch_size)
        batches = data.evaluation("validation", look.images, batch_size=batch_size, plan=plan)
        expected = {"mean": jnp.asarray(mean), "deviation": jnp.asarray(DEVIATION)}
        looks.append(evaluate(step, params, statistics, expected, batches, place))
    return over_looks(protocol, looks)


# Of classifiers; that of boxes is held by test_regression.
OF_CLASSES = [name for name, make in PROTOCOLS.items() if not make(IMAGES).of_boxes]
CASES = (*OF_CLASSES, "dense-probabilities", "dense-2x1")
# Whose kind others hold as well.
SLOW = (
    "multi_scale_logits", "multi_scale", "multi_crop", "dense", "dense-2x1", "dense-probabilities",
    "nine_crop", "ten_view", "center_crop",
)  # fmt: skip
assert set(OF_CLASSES) == set(REFERENCES), "a new protocol needs a loop over its views here"


def check(data, name, count):
    """Equal to the reference on every photograph."""
    base, _, more = name.partition("-")
    scales = SCALES.get(base, ())
    average = "probabilities" if more == "probabilities" else "scores"
    protocol = protocol_called(base, IMAGES, scales, average)
    layout = (2, 1) if more == "2x1" else (1, 1)
    scores = evaluated(data, protocol, layout)
    reference = dense_probabilities if average == "probabilities" else REFERENCES[base]
    assert scores.index.tolist() == list(range(count))
    expected = []
    for index in range(count):
        photograph = Image.open(data.examples("validation").name(index)).convert("RGB")
        expected.append(reference(photograph, scales))
    assert np.ptp(expected, axis=0).max() > 0.1  # the images matter
    np.testing.assert_allclose(np.exp(scores.scores), expected, rtol=0, atol=1e-5)


@pytest.mark.quick
@pytest.mark.parametrize("name", [name for name in CASES if name not in SLOW])
def test_a_protocol_equals_loops_over_views(opened, name):
    """Of a standing photograph and four others, in several batches."""
    check(opened(5), name, 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_protocol_equals_loops_over_views_of_20_photographs(opened, name):
    check(opened(20), name, 20)


@pytest.mark.slow
def test_few_programs_score_a_whole_set(shared_data, tmp_path, caplog):
    """250 photographs at Q = 384, of 70 sizes: 16 compilations at most, each image once."""
    from configs.alexnet import get_config
    from input_pipeline import open_data

    for number, path in enumerate(sorted(shared_data("imagenet_sample").glob("*/*/*.JPEG"))):
        folder = tmp_path / "data" / "val" / f"{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:03}.jpg").symlink_to(path)
    fields = get_config().data
    fields.name, fields.dir, fields.threads = "folder", str(tmp_path / "data"), 2
    fields.resize, fields.crop = 384, CROP
    data = open_data(fields, tmp_path, only="validation", class_names=tuple("01"))
    protocol = protocol_called("dense", Preprocessing(384, CROP))
    with jax.log_compiles(), caplog.at_level("WARNING"):
        scores = evaluated(data, protocol, batch_size=8, most=16)
    programs = [r for r in caplog.records if r.getMessage().startswith("Compiling jit(local)")]
    assert 2 <= len(programs) <= 16
    assert scores.index.tolist() == list(range(250))


def test_those_that_slide_are_known_to_the_configs():
    sliding = {
        name for name, make in PROTOCOLS.items() if "dense_average" in signature(make).parameters
    }
    assert set(notes.SLIDING) == sliding
    boxes = {name: make(IMAGES) for name, make in PROTOCOLS.items() if make(IMAGES).of_boxes}
    assert set(notes.MERGING) == {name for name, protocol in boxes.items() if protocol.merges}
    assert set(notes.BOX_OF_VIEW) == boxes.keys() - set(notes.MERGING)


def test_training_is_watched_by_its_own_squares():
    usual, called = Preprocessing(256, 224), []
    for name in PROTOCOLS:
        with contextlib.suppress(EvaluationError):
            called.append(training_protocol(name, usual).name)
    crops = {"center_crop", "ten_view", "nine_crop"}
    assert set(called) == {*crops, "center_crop_true_class"}


def test_numbers_of_views_and_their_order():
    usual = Preprocessing(256, 224)

    def counts(name, *scales):
        protocol = protocol_called(name, usual, scales)
        return [look.images.side for look in protocol.looks], protocol.count

    assert counts("multi_crop") == ([256], 50)
    assert counts("multi_crop", 256, 384, 512) == ([256, 384, 512], 150)
    assert counts("crops_144") == ([256, 288, 320, 352], 144)
    assert counts("dense", 256, 384, 512) == ([256, 384, 512], 6)
    assert counts("multi_scale") == ([224, 256, 384, 480, 640], 10)
    assert counts("multi_crop_and_dense", 256, 384) == ([256, 384], 104)
    assert counts("overfeat")[1] == 12

    def views(name, width=256):
        (look,) = protocol_called(name, usual).looks
        places = look.views[0].offsets(256, width)
        return [(*p, f) for p, f in zip(places.tolist(), look.views[0].views[:, 2], strict=True)]

    first = [([0, 0], 0), ([0, 32], 0), ([16, 16], 0), ([32, 0], 0), ([32, 32], 0)]
    as_lists = [([y, x], int(flip)) for y, x, flip in views("ten_view")]
    assert as_lists == first + [(place, 1) for place, _ in first]
    # Of an image of 500 x 375, the corners of all of it.
    torch = [([y, x], int(flip)) for y, x, flip in views("ten_view_logits", 341)]
    assert [place for place, _ in torch[:5]] == [[16, 58], [0, 0], [0, 117], [32, 0], [32, 117]]
    assert [place for place, _ in torch[5:]] == [[16, 58], [0, 117], [0, 0], [32, 117], [32, 0]]
    (look,) = protocol_called("multi_crop", usual).looks
    grid = look.views[0].offsets(256, 341)
    assert grid[:6].tolist() == [[0, 0], [0, 29], [0, 58], [0, 87], [0, 117], [8, 0]]


@pytest.mark.parametrize(
    "name, scales, message",
    [
        ("multi_crop", (40, 31), "evaluation.scales: 31 is below the 32 pixels of a crop"),
        ("dense", (31,), "evaluation.scales of 32 and more"),
        ("dense", (40, 64, 40), "40.: a scale is there twice"),
        ("ten_view", (40,), "ten_view has one scale, data.resize; leave it out"),
    ],
)
def test_scales_that_cannot_be_are_named(name, scales, message):
    with pytest.raises(EvaluationError, match=message):
        protocol_called(name, IMAGES, scales)


def test_networks_that_cannot_slide_are_named():
    local = functional(
        lambda rngs: vision_models.create("cifar10_13pct", num_classes=10, rngs=rngs)
    )
    for name in ("dense", "multi_crop_and_dense", "overfeat"):
        with pytest.raises(EvaluationError, match=f"evaluation.protocol={name}: local3 .*ten_view"):
            check_network(protocol_called(name, Preprocessing(32, 24)), local)
    check_network(protocol_called("multi_crop", Preprocessing(32, 24)), local)
    pooled = functional(lambda rngs: vision_models.create("resnet20", num_classes=10, rngs=rngs))
    check_network(protocol_called("dense", Preprocessing(32, 32)), pooled)
    with pytest.raises(EvaluationError, match="overfeat: no last pool"):
        check_network(protocol_called("overfeat", Preprocessing(32, 32), (32,)), pooled)
