"""Labels of records, found by jumping over everything else."""

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.record_labels import label_in


def record(**features):
    kinds = {bytes: tf.train.BytesList, int: tf.train.Int64List, float: tf.train.FloatList}
    names = {bytes: "bytes_list", int: "int64_list", float: "float_list"}
    made = {
        key: tf.train.Feature(**{names[type(values[0])]: kinds[type(values[0])](value=values)})
        for key, values in features.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


def reader(content, read):
    def piece(start, length):
        read.append(length)
        return content[start : start + length]

    return piece


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 470, 500, 512, 513, 16_383, 16_384, 300_000])
@pytest.mark.parametrize("label", [0, 7, 999, 2**31 - 1])
def test_labels_behind_and_before_images_of_any_size(size, label):
    image = np.random.default_rng(size).bytes(size)
    for before in ({}, {"a": [b"n01440764_1.JPEG"]}, {"labels": [3, 4], "z": [0.5] * (size + 1)}):
        for entries in (
            before | {"image": [image], "label": [label]},
            {"label": [label], "image": [image]} | before,
        ):
            content, read = record(**entries), []
            assert label_in(reader(content, read), "label") == label
            assert len(read) <= 8 and sum(read) < 8 * 600  # of 300,000


def test_a_secret_label_and_one_that_is_not_there():
    assert label_in(reader(record(image=[b"x"], label=[-1]), []), "label") == -1
    with pytest.raises(ValueError, match="no feature 'label'"):
        label_in(reader(record(image=[b"x" * 9]), []), "label")
