"""What is known of datasets, against the datasets themselves."""

import pytest

import input_pipeline
from configs import datasets
from configs.common import ConfigError, any_config
from input_pipeline.datasets.division import VALIDATION_EXAMPLES
from tests.configs.test_configs import ALL, get_config


def config_with(**data):
    config = any_config()
    for name, value in data.items():
        config.data[name] = value
    return config


@pytest.mark.quick
@pytest.mark.parametrize("changes", [{}, {"validation_examples": 97}, {"folds": 5}])
def test_the_digits(changes, tmp_path):
    config = config_with(name="digits", **changes)
    opened = input_pipeline.open_data(config.data, tmp_path)
    assert datasets.size(config) == (len(opened.class_names), opened.examples("train").count)


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_datasets_of_tfds(name, shared_data, tmp_path):
    config = config_with(name=name, dir=str(shared_data("tfds", name)))
    opened = input_pipeline.open_data(config.data, tmp_path)
    assert datasets.size(config) == (len(opened.class_names), opened.examples("train").count)


def test_what_is_held_out_is_said_once():
    held = {name: known.held_out for name, known in datasets.DATASETS.items() if known.held_out}
    for name, count in held.items():
        assert count == VALIDATION_EXAMPLES.get(name, datasets.DATASETS[name].train // 10)


@pytest.mark.parametrize("name, variant", ALL)
def test_every_configs_dataset_is_known(name, variant):
    config = get_config(name, variant)
    if config.data.name == "folder":  # of images of one's own
        with pytest.raises(ConfigError, match=r"data\.name=folder has is not known"):
            datasets.size(config)
        return
    classes, examples = datasets.size(config)
    assert classes >= 10 and examples > 1000


def test_choices_and_own_data():
    assert datasets.size(config_with(name="imagenet2012", train_examples=500)) == (1000, 500)
    few = config_with(name="cifar10", train_examples_per_class=7)
    assert datasets.size(few) == (10, 70)
    half = config_with(name="cifar10", classes=(5, 6, 7))
    with pytest.raises(ConfigError, match=r"has with data\.classes is not known"):
        datasets.size(half)
    half.data.train_examples = 90
    assert datasets.size(half) == (3, 90)
    own = config_with(name="folder")
    with pytest.raises(ConfigError, match=r"config\.model\.num_classes=N"):
        datasets.size(own)
    own.model.num_classes = 3
    with pytest.raises(ConfigError, match=r"config\.data\.train_examples=N"):
        datasets.size(own)
    own.data.train_examples = 90
    assert datasets.size(own) == (3, 90)
