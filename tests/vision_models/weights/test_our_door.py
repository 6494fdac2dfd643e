"""Files of our own format, whoever has written or changed them, are checked like others."""

import json

import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import vision_models
from vision_models import weights
from vision_models.functional import variables
from vision_models.weights import WeightsError

NORMALIZATION = {"mean": np.full(3, 7, np.float32), "deviation": np.full(3, 100, np.float32)}


@pytest.fixture(scope="module")
def lenet():
    return variables(vision_models.create("lenet_caffe", rngs=nnx.Rngs(0)))


@pytest.fixture
def path(lenet, tmp_path):
    names = [f"digit \N{LATIN SMALL LETTER E WITH ACUTE} {n}" for n in range(10)]
    weights.save(tmp_path / "w.safetensors", "lenet_caffe", {}, *lenet, NORMALIZATION, names)
    return tmp_path / "w.safetensors"


def metadata_of(path):
    with safe_open(path, "numpy") as file:
        return file.metadata()


def changed(path, **tensors):
    """The file with tensors replaced, or left out (None), by a program that keeps the metadata."""
    metadata = {k: v for k, v in metadata_of(path).items() if k != "sha256"}
    found = load_file(path) | {n.replace("__", "/"): t for n, t in tensors.items()}
    save_file({n: t for n, t in found.items() if t is not None}, path, metadata)


@pytest.mark.quick
def test_names_of_classes_travel_with_the_weights(path, tmp_path):
    loaded = weights.load(path, "lenet_caffe")
    assert loaded.class_names == weights.class_names(path)
    assert loaded.class_names[3] == "digit \N{LATIN SMALL LETTER E WITH ACUTE} 3"
    assert weights.load(path, "lenet_caffe", new_head=True).class_names is None
    (tmp_path / "other").write_bytes(b"")
    assert weights.class_names(tmp_path / "other") is None
    assert weights.class_names(tmp_path / "nothing") is None


@pytest.mark.quick
def test_other_libraries_read_what_is_written(path, lenet):
    found = load_file(path)
    np.testing.assert_array_equal(found["conv1/kernel"], lenet[0]["conv1"]["kernel"])
    metadata = metadata_of(path)
    assert metadata["model"] == "lenet_caffe"
    assert len(json.loads(metadata["class_names"])) == 10


@pytest.mark.quick
def test_every_flipped_bit_is_noticed(path):
    content = path.read_bytes()
    length = 8 + int.from_bytes(content[:8], "little")
    rng = np.random.default_rng(0)
    name = content.index(b'"sha256"') + 1  # of the checksum itself
    places = [name, name + 5, *rng.integers(0, length, 30), *rng.integers(length, len(content), 20)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(WeightsError):
            weights.load(path, "lenet_caffe")
    path.write_bytes(content)
    weights.load(path, "lenet_caffe")


@pytest.mark.quick
def test_a_changed_number_is_said_to_be_damage_and_files_without_a_checksum_are_read(path):
    metadata, tensors = metadata_of(path), load_file(path)
    tensors["ip2/bias"] = tensors["ip2/bias"] + np.float32(1)
    save_file(tensors, path, metadata)
    with pytest.raises(WeightsError, match=r"damaged, or changed since it was saved"):
        weights.load(path, "lenet_caffe")
    del metadata["sha256"]
    save_file(tensors, path, metadata)
    loaded = weights.load(path, "lenet_caffe")
    np.testing.assert_array_equal(loaded.params["ip2"]["bias"], tensors["ip2/bias"])


@pytest.mark.quick
@pytest.mark.parametrize("kind", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_floating_points_are_cast(kind, path):
    """By a program that leaves the metadata, checksum included, as they were."""
    metadata = metadata_of(path)
    tensors = {name: value.astype(kind) for name, value in load_file(path).items()}
    save_file(tensors, path, metadata)
    loaded = weights.load(path, "lenet_caffe")
    for value in (loaded.params["ip1"]["kernel"], loaded.normalization["mean"]):
        assert value.dtype == np.float32
    expected = tensors["ip1/kernel"].astype(np.float32)
    np.testing.assert_array_equal(loaded.params["ip1"]["kernel"], expected)


@pytest.mark.quick
def test_what_is_no_weight_is_refused_by_name(path):
    content = path.read_bytes()
    mean, deviation = "normalization__mean", "normalization__deviation"
    nan = np.full(10, np.nan, np.float32)
    for tensors, message in [
        ({"ip2__bias": np.ones(10, np.int8)}, r"ip2/bias is int8"),
        ({"ip2__bias": nan}, r"ip2/bias holds numbers that are not finite \(10 numbers"),
        ({"ip2__bias": np.full(10, 1e300)}, r"ip2/bias holds numbers that are not finite"),
        ({"ip2__bias": np.ones(3, np.float32)}, r"ip2/bias is 3 there, 10 here"),
        ({"ip2__extra": np.ones(3, np.float32)}, r"not of this network ip2/extra"),
        ({mean: np.ones(7, np.float32)}, r"normalization/mean is \(7,\), not \[3\] or"),
        ({mean: np.ones((4, 5, 3), np.float32)}, r"normalization/mean is \(4, 5, 3\)"),
        ({mean: np.full(3, np.inf, np.float32)}, r"normalization/mean holds numbers that are not"),
        ({mean: None}, r"normalization/ has to be mean and deviation.*mean"),
        ({deviation: None}, r"normalization/ has to be mean and deviation.*deviation"),
        ({"normalization__std": np.ones(3, np.float32)}, r"missing or not of them: std"),
        ({deviation: np.ones(1, np.float32)}, r"normalization/deviation is \(1,\), not \[3\]"),
        ({deviation: np.zeros(3, np.float32)}, r"normalization/deviation is .* above 0"),
        ({deviation: np.full(3, np.nan, np.float32)}, r"normalization/deviation holds numbers"),
        ({deviation: np.ones(3, np.int32)}, r"normalization/deviation is int32"),
    ]:
        path.write_bytes(content)
        changed(path, **tensors)
        with pytest.raises(WeightsError, match=message):
            weights.load(path, "lenet_caffe")


def test_variances_below_zero(tmp_path):
    """They would make logits that are no numbers."""
    params, statistics = variables(vision_models.create("resnet20", rngs=nnx.Rngs(0)))
    weights.save(tmp_path / "w.safetensors", "resnet20", {}, params, statistics)
    changed(tmp_path / "w.safetensors", norm1__variance=-np.ones(16, np.float32))
    with pytest.raises(WeightsError, match=r"norm1/variance holds variances below zero"):
        weights.load(tmp_path / "w.safetensors", "resnet20")
