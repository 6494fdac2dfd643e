"""Datasets with configurations, versions and odd splits, as TFDS prepares them."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from configs.alexnet import get_config
from input_pipeline import REPORTED, DataError, decode, describe, open_data, open_dataset
from input_pipeline.datasets import tfds_directories

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SPLITS = {"train": 6, "validation": 3}


def prepare(root, name, *, config=None, version="1.0.0", splits=None, secret=(), grey=0):
    """Writes a dataset of uniform images: the first of split number s is `grey` + 10 s."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import registered

    splits = splits or SPLITS
    configs = [tfds.core.BuilderConfig(name=config, version=version)] if config else []

    def info(self):
        features = {
            "image": tfds.features.Image(shape=(8, 8, 3)),
            "label": tfds.features.ClassLabel(names=["cat", "dog"]),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def examples(number, split):
        for i in range(splits[split]):
            image = np.full((8, 8, 3), grey + 10 * number + i, np.uint8)
            yield i, {"image": image, "label": -1 if split in secret else i % 2}

    body = {
        "VERSION": tfds.core.Version(version),
        "BUILDER_CONFIGS": configs,
        "name": name,
        "_info": info,
        "_split_generators": lambda self, manager: {
            split: examples(number, split) for number, split in enumerate(splits)
        },
        "_generate_examples": None,
    }
    with registered.skip_registration():
        made = type("Made", (tfds.core.GeneratorBasedBuilder,), body)
        made(data_dir=root, config=config).download_and_prepare()
    return root


def opened(name, directory, tmp_path, **options):
    return open_dataset(name, str(directory), cache_dir=tmp_path / "cache", **options)


def shade(examples):
    """The grey level of the darkest image."""
    return min(int(decode.pixels(examples.read(i)[0])[0, 0, 0]) for i in range(examples.count))


@pytest.fixture(scope="module")
def resized(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    for grey, (config, version) in enumerate(
        [("8x8", "0.9.0"), ("8x8", "0.10.0"), ("16x16", "0.9.0")]
    ):
        prepare(root, "resized", config=config, version=version, grey=100 * grey)
    prepare(root, "alone", config="only")
    return root


@pytest.mark.parametrize(
    "name, inside, grey",
    [
        ("resized/8x8", "", 100),  # the newest version, by number
        ("resized/8x8/0.9.0", "", 0),
        ("resized/8x8:0.9.0", "", 0),
        ("resized/16x16", "", 200),
        ("resized/16x16", "resized", 200),
        ("resized/16x16", "resized/16x16", 200),
        ("resized/16x16", "resized/16x16/0.9.0", 200),
        ("resized", "resized/16x16", 200),
        ("alone", "", 0),
        ("alone/only", "", 0),
    ],
)
def test_a_configuration_and_a_version_are_named(resized, tmp_path, name, inside, grey):
    dataset = opened(name, resized / inside, tmp_path)
    assert {k: v.count for k, v in dataset.splits.items()} == SPLITS
    assert shade(dataset.splits["train"]) == grey
    assert dataset.name == name


@pytest.mark.parametrize(
    "name, inside, message",
    [
        ("resized", "", r"in the configurations 16x16, 8x8; name one: .*data.name=resized/16x16"),
        ("resized/32x32", "", r"in the configurations 16x16, 8x8; name one"),
        ("resized/8x8", "resized/16x16", r"in the configurations 16x16; name one"),
        ("resized/8x8:7.0.0", "", r"no version 7.0.0 of resized.*end in :0.9.0, :0.10.0"),
        ("resized/8x8", "resized/16x16/0.9.0", r"holds resized/16x16, not resized/8x8; for"),
        ("resized/16x16:1.0.0", "resized/16x16/0.9.0", r"is version 0.9.0; .*16x16:0.9.0"),
        ("other", "", r"no other as TFDS prepares it \(looked for other/<version>"),
    ],
)
def test_what_is_not_there_is_named(resized, tmp_path, name, inside, message):
    with pytest.raises(DataError, match=message):
        opened(name, resized / inside, tmp_path)


def test_a_configuration_of_a_dataset_without_any(tmp_path):
    prepare(tmp_path, "plain")
    with pytest.raises(DataError, match=r"plain has no configurations there; .*data.name=plain"):
        opened("plain/8x8", tmp_path, tmp_path)
    assert opened("plain:1.0.0", tmp_path, tmp_path).splits.keys() == {"train", "validation"}


def test_a_test_split_alone_is_evaluated(tmp_path):
    """As of ImageNet V2."""
    prepare(tmp_path, "v2", splits={"test": 5})
    dataset = opened("v2", tmp_path, tmp_path, only=REPORTED)
    assert (dataset.evaluation_split, dataset.examples("test").count) == ("test", 5)
    with pytest.raises(DataError, match=r"v2 has no split 'train': .*v2/1.0.0 has test; eval"):
        opened("v2", tmp_path, tmp_path).examples("train")
    with pytest.raises(DataError, match=r"v2 has no split 'train': .*v2/1.0.0 has test; eval"):
        opened("v2", tmp_path, tmp_path, only="train")


def test_splits_of_other_names_and_without_labels_are_said(tmp_path):
    splits = {"train": 20, "dev": 3, "testing": 2, "unlabelled_extra": 4}
    prepare(tmp_path, "odd", splits=splits, secret=("testing",))
    dataset = opened("odd", tmp_path, tmp_path)
    assert {k: v.count for k, v in dataset.splits.items()} == {"train": 20, "validation": 3}
    directory = tmp_path / "odd" / "1.0.0"
    assert set(dataset.notes) == {
        f"split testing of {directory} has no labels. It is not used",
        f"{directory}: not used: unlabelled_extra (4 examples)",
    }


def test_a_split_without_labels_is_evaluated_when_it_is_asked_for(tmp_path):
    """Every image once, label -1, under the name of its file."""
    prepare(tmp_path, "secret", splits={"train": 6, "validation": 3, "test": 5}, secret=("test",))
    fields = get_config().data
    fields.name, fields.dir, fields.resize, fields.crop = "secret", str(tmp_path), 8, 8
    data = open_data(fields, tmp_path / "cache", only="test")
    square = SimpleNamespace(side=8, pad=0, whole=False)
    whole = SimpleNamespace(side=8, pad=0, whole=True)
    assert data.sizes("test", whole).tolist() == [[8, 8]] * 5
    plan = [SimpleNamespace(shape=(8, 8), rows=rows) for rows in np.array_split(np.arange(5), 2)]
    for batches in (
        data.evaluation("test", square, batch_size=3),
        data.evaluation("test", whole, batch_size=3, plan=plan),
    ):
        found = list(batches)
        index, label, mask = (
            np.concatenate([b[name] for b in found]) for name in ("index", "label", "mask")
        )
        assert sorted(index[mask > 0].tolist()) == list(range(5))
        assert (label[mask > 0] == -1).all()
    assert len({data.examples("test").name(index) for index in range(5)}) == 5
    with pytest.raises(DataError, match="has no labels"):
        opened("secret", tmp_path, tmp_path).examples("test")


def test_files_of_the_evaluated_split_alone(tmp_path):
    """The rest was not copied."""
    prepare(tmp_path, "big", splits={"train": 6, "validation": 3, "test": 2})
    for split in ("train", "test"):
        for path in (tmp_path / "big" / "1.0.0").glob(f"*-{split}.*"):
            path.unlink()
    dataset = opened("big", tmp_path, tmp_path, only=REPORTED)
    assert {k: v.count for k, v in dataset.splits.items()} == {"validation": 3}
    assert "the files of split test are not in" in dataset.notes[0]
    with pytest.raises(DataError, match=r"big-train.*: missing; prepare the dataset again"):
        opened("big", tmp_path, tmp_path)


def test_files_beside_a_prepared_dataset_change_nothing(tmp_path):
    prepare(tmp_path / "a", "plain")
    before = opened("plain", tmp_path / "a", tmp_path)
    for folder in ("", "plain", "plain/1.0.0"):
        for name in (".DS_Store", "Thumbs.db", "._dataset_info.json"):
            (tmp_path / "a" / folder / name).write_bytes(b"\xff")
        (tmp_path / "a" / folder / "__MACOSX").mkdir()
    shutil.copytree(tmp_path / "a" / "plain" / "1.0.0", tmp_path / "a" / "plain" / "@eaDir" / "x")
    after = opened("plain", tmp_path / "a", tmp_path)
    assert after.fingerprint == before.fingerprint and after.notes == ()


def test_datasets_with_configurations_are_found_without_a_name(resized, tmp_path):
    names_in = tfds_directories.names_in
    assert names_in(resized) == ["alone", "resized"]
    assert names_in(resized / "resized") == names_in(resized / "resized" / "8x8") == ["resized"]
    root = tmp_path / "tfds"
    shutil.copytree(resized / "resized", root / "resized")
    assert names_in(root) == ["resized"]
    assert names_in(tmp_path) == []  # TFDS would not find it there
    data = get_config("").data
    data.dir = str(root)
    with pytest.raises(DataError, match=r"configurations 16x16, 8x8; name one: .*resized/16x16"):
        describe.open_any(data, tmp_path / "cache", named=False)
    shutil.rmtree(root / "resized" / "16x16")
    assert describe.open_any(data, tmp_path / "cache", named=False).name == "resized"
    prepare(root, "plain")
    with pytest.raises(DataError, match=r"holds plain, resized, as TFDS prepares them; name one"):
        describe.open_any(data, tmp_path / "cache", named=False)
