"""An opened dataset: what is evaluated, normalised and prepared follows the images asked for."""

import itertools
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from configs.alexnet import get_config
from input_pipeline import REPORTED, DataError, augment, open_data, prepare_data
from tests.conftest import write_images

pytestmark = pytest.mark.quick


def images(side, pad=0):
    return SimpleNamespace(side=side, pad=pad, whole=False)


@pytest.fixture
def fields(tmp_path):
    """Of 12 + 11 training images and 9 for validation; the training square has 40 pixels."""
    root = write_images(tmp_path / "images", {"train/a": 12, "train/b": 11, "val/a": 5, "val/b": 4})
    data = get_config().data
    data.name, data.dir = "folder", str(root)
    data.resize, data.crop, data.mean = 40, 32, "image"
    return data


def opened(fields, tmp_path, **options):
    return open_data(fields, tmp_path / "cache", **options)


def squares(data, split, wanted):
    """The images of a split, read one by one."""
    examples, crops = data.examples(split), augment.central_square(wanted.side, wanted.pad)
    out = np.empty((examples.count, crops.crop, crops.crop, 3), np.uint8)
    for index in range(examples.count):
        content, _ = examples.read(index)
        augment.take(content, crops, np.full(augment.DRAWS, 0.5), out[index], exact=False)
    return out


@pytest.mark.parametrize("batch_size, shares", [(1, 1), (4, 1), (4, 2), (12, 3)])
def test_the_index_says_which_example_it_is(fields, tmp_path, batch_size, shares):
    (tmp_path / "images" / "val" / "a" / "2.jpg").write_bytes(b"damaged")
    data = opened(fields, tmp_path)
    wanted = images(40)
    streams = [
        list(data.evaluation("validation", wanted, batch_size=batch_size, share=(number, shares)))
        for number in range(shares)
    ]
    batches = [batch for step in zip(*streams, strict=True) for batch in step]
    index, mask, label = (
        np.concatenate([batch[name] for batch in batches]) for name in ("index", "mask", "label")
    )
    assert index.dtype == np.int64
    assert index[mask > 0].tolist() == [0, 1, 3, 4, 5, 6, 7, 8]
    assert set(index[mask == 0]) <= {-1}
    assert [data.examples("validation").read(i)[1] for i in index[mask > 0]] == list(
        label[mask > 0]
    )


@pytest.mark.parametrize("shares", [1, 2])
def test_evaluation_starts_at_any_batch_without_reading_those_before(fields, tmp_path, shares):
    data = opened(fields, tmp_path)
    share = (shares - 1, shares)
    batches = list(data.evaluation("validation", images(40), batch_size=2, share=share))
    assert len(batches) == 5
    validation, read = data.dataset.splits["validation"], set()

    def noting(index):
        read.add(index)
        return validation.read(index)

    data.dataset.splits["validation"] = SimpleNamespace(
        count=validation.count, read=noting, name=validation.name
    )
    for start in (5, 4, 3, 7):
        read.clear()
        rest = list(
            data.evaluation("validation", images(40), batch_size=2, share=share, start=start)
        )
        assert len(rest) == max(5 - start, 0)
        for ours, theirs in zip(rest, batches[start:], strict=True):
            assert ours.keys() == theirs.keys()
            for name in ours:
                np.testing.assert_array_equal(ours[name], theirs[name])
        assert all(index >= 2 * start for index in read)


def test_a_rest_of_nothing_but_damage_is_no_error(fields, tmp_path):
    """The batches before it may have been good."""
    (tmp_path / "images" / "val" / "b" / "3.jpg").write_bytes(b"damaged")
    (rest,) = opened(fields, tmp_path).evaluation("validation", images(40), batch_size=2, start=4)
    assert not rest["mask"].any()


@pytest.mark.parametrize("side, pad", [(24, 0), (56, 3)])
def test_images_need_not_be_the_training_square(fields, tmp_path, side, pad):
    data, wanted = opened(fields, tmp_path), images(side, pad)
    batches = list(data.evaluation("validation", wanted, batch_size=9))
    np.testing.assert_array_equal(batches[0]["image"], squares(data, "validation", wanted))
    mean = data.normalization(wanted)["mean"]
    square = side + 2 * pad
    assert (mean.shape, mean.dtype) == ((square, square, 3), np.float32)
    inside = slice(pad, pad + side)
    np.testing.assert_allclose(
        mean[inside, inside], squares(data, "train", images(side)).mean(axis=0), rtol=1e-6
    )
    assert np.count_nonzero(mean) == np.count_nonzero(mean[inside, inside])


def test_fields_are_read_when_the_data_are_opened(fields, tmp_path):
    fields.augment.colour_noise, fields.mean = "paper", "channel"
    data, others = (opened(fields, tmp_path) for _ in range(2))
    streams = [data.training(2, seed=1, batch_size=4)]
    fields.resize, fields.crop, fields.pad, fields.mean = 64, 48, 2, "none"
    fields.augment.flip, fields.augment.colour_noise, fields.augment.crop = False, "none", "center"
    streams.append(others.training(2, seed=1, batch_size=4))
    for ours, theirs in itertools.islice(zip(*streams, strict=True), 3):
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])
    assert others.normalization(images(40))["mean"].all()


def test_neither_a_mean_nor_one_image_alone_needs_boxes(fields, tmp_path):
    """Of a config whose batches have boxes, and a dataset without annotations."""
    fields.boxes.count = 3
    assert opened(fields, tmp_path).normalization(images(40))["mean"].shape == (40, 40, 3)
    fields.augment.colour_noise = "none"
    content = next((tmp_path / "images").glob("train/a/*")).read_bytes()
    batch = next(opened(fields, tmp_path).alone(content).training(0, seed=0, batch_size=2))
    assert batch["image"].shape == (2, 32, 32, 3) and "boxes" not in batch


def test_the_training_split_is_opened_for_its_mean_alone(fields, tmp_path):
    wanted, everything = images(32, 2), opened(fields, tmp_path)
    expected = everything.normalization(wanted)
    data = open_data(fields, tmp_path / "other", only=REPORTED)
    assert list(data.dataset.splits) == ["validation"]
    np.testing.assert_array_equal(data.normalization(wanted)["mean"], expected["mean"])
    shutil.rmtree(tmp_path / "images" / "train")
    fields.prepared_dir = None
    message = r"data.mean=image is computed from the training set: .*\nTo do without: --config.init"
    with pytest.raises(DataError, match=message):
        open_data(fields, tmp_path / "third", only=REPORTED).normalization(wanted)
    fields.mean = "values"
    made = open_data(fields, tmp_path / "third", only=REPORTED).normalization(wanted)
    assert made["mean"].shape == (36, 36, 3)


def test_no_stream_without_a_training_split(fields, tmp_path):
    with pytest.raises(DataError, match=r"no split 'train'"):
        opened(fields, tmp_path, only="validation").training(0, seed=0, batch_size=2)


@pytest.fixture
def prepared(fields, tmp_path):
    """The same, prepared at 40 pixels."""
    fields.prepared_dir = str(tmp_path / "prepared")
    prepare_data(fields, tmp_path / "cache")
    return fields


@pytest.mark.parametrize("only", [None, REPORTED])
def test_images_prepared_too_small_are_refused(prepared, tmp_path, only):
    data = opened(prepared, tmp_path, only=only)
    list(data.evaluation("validation", images(40, 4), batch_size=9))
    message = r"size is 40, and 41 is needed.*mode=prepare_data --config.data.resize=41 --config.d"
    with pytest.raises(DataError, match=message):
        data.evaluation("validation", images(41), batch_size=9)
    with pytest.raises(DataError, match=message):
        data.normalization(images(41))


def test_images_prepared_larger_serve_for_evaluation(prepared, tmp_path, capsys):
    """As the message about smaller ones says; training asks for exactly its own."""
    prepared.resize = 32
    data = opened(prepared, tmp_path, only=REPORTED)
    assert "note: " in capsys.readouterr().err
    for side in (32, 40):
        (batch,) = data.evaluation("validation", images(side), batch_size=9)
        np.testing.assert_array_equal(batch["image"], squares(data, "validation", images(side)))
    with pytest.raises(DataError, match=r"size is 40, and 32 is needed"):
        opened(prepared, tmp_path)
    with pytest.raises(DataError, match=r"size is 40, and 32 is needed"):
        opened(prepared, tmp_path, only="train").training(0, seed=0, batch_size=2)


def test_the_digest_of_pixels_changes_with_them(prepared, tmp_path):
    """What is kept of evaluated images is used again by it."""

    def digest(side, **changed):
        prepared.update(changed)
        return opened(prepared, tmp_path, only=REPORTED).pixels_digest("validation", images(side))

    rescaled = digest(32)  # from 40 pixels
    as_prepared = digest(40)
    of_files = digest(40, prepared_dir=None)
    assert of_files == as_prepared
    different = [rescaled, as_prepared, digest(32), digest(40, decode="exact")]
    assert len(set(different)) == len(different)


@pytest.mark.parametrize("resize", [40, 32])
def test_a_mean_of_images_rescaled_twice_is_not_kept_as_that_of_the_images(
    prepared, tmp_path, resize
):
    prepared.resize = resize
    twice = opened(prepared, tmp_path, only=REPORTED).normalization(images(32))["mean"]
    prepared.prepared_dir = None
    once = opened(prepared, tmp_path)
    mean = once.normalization(images(32))["mean"]
    np.testing.assert_allclose(mean, squares(once, "train", images(32)).mean(axis=0), rtol=1e-6)
    assert not np.array_equal(mean, twice)


def test_whole_images_some_of_which_are_cut_short(fields, tmp_path):
    """A coarser image has its size; of those that nothing can be made of no row is used."""
    folder = tmp_path / "images" / "val" / "a"
    wanted = SimpleNamespace(side=44, pad=0, whole=True)
    rng = np.random.default_rng(0)
    for number, progressive, kept in ((1, True, 0.9), (2, False, 0.5), (3, False, 0.01)):
        noise = Image.fromarray(rng.integers(0, 256, (60, 90, 3), np.uint8))
        noise.save(folder / f"{number}.jpg", quality=95, progressive=progressive)
        content = (folder / f"{number}.jpg").read_bytes()
        (folder / f"{number}.jpg").write_bytes(content[: int(len(content) * kept)])
    said = []
    data = opened(fields, tmp_path, report=lambda *note: said.append(" ".join(map(str, note))))
    sizes = data.sizes("validation", wanted)
    assert sizes[1:4].tolist() == [[44, 66], [44, 44], [44, 44]]
    np.testing.assert_array_equal(opened(fields, tmp_path).sizes("validation", wanted), sizes)
    plan = [SimpleNamespace(shape=tuple(sizes.max(axis=0)), rows=np.arange(9))]
    (batch,) = data.evaluation("validation", wanted, batch_size=9, plan=plan)
    assert batch["mask"].tolist() == [1, 1, 0, 0, 1, 1, 1, 1, 1]
    used = batch["mask"] > 0
    np.testing.assert_array_equal(batch["valid"][used], sizes[used])
    assert batch["image"][1, :44, :66].any(axis=2).all() and not batch["image"][2:4].any()
    for number in (1, 2, 3):
        assert any(f"{number}.jpg" in note for note in said)
