"""A trained network, opened: what its images are like."""

import dataclasses

import numpy as np
import pytest

from evaluation.preprocessing import Preprocessing
from input_pipeline.normalization import Normalizer, normalization, of_any_shape
from training import Trained, TrainingError, normalization_for
from training.trained import usual_preprocessing
from vision_models.weights import Weights

pytestmark = pytest.mark.quick


def trained(mean):
    images = {"mean": mean, "deviation": np.ones(3, np.float32)}
    return Trained("lenet5", {}, {}, {}, images, "runs/x")


def test_a_mean_of_colours_fits_images_of_any_size():
    mean = np.broadcast_to(np.array([1, 2, 3], np.float32), (40, 40, 3))
    for kept in (mean, mean[0, 0]):
        found = normalization_for(trained(kept), 56)["mean"]
        assert found.shape == (56, 56, 3)
        assert np.unique(found.reshape(-1, 3), axis=0).tolist() == [[1, 2, 3]]


def test_a_mean_image_fits_its_own_size():
    mean = np.random.default_rng(0).uniform(0, 255, (40, 40, 3)).astype(np.float32)
    np.testing.assert_array_equal(normalization_for(trained(mean), 40)["mean"], mean)
    with pytest.raises(TrainingError, match="a mean image of 40 pixels, images here have 56"):
        normalization_for(trained(mean), 56)


@pytest.mark.parametrize("pad", [0, 4])
def test_the_mean_of_whole_images_is_without_padding(pad):
    """As the input pipeline has it for such images, of a mean image and of a mean colour."""
    whole = np.random.default_rng(0).uniform(0, 255, (32, 32, 3)).astype(np.float32)
    for kind in ("image", "channel", "values"):
        normalizer = Normalizer(kind, (3.0, 2.0, 1.0), (2.0, 2.0, 2.0))
        kept = normalization(normalizer, 32, pad, whole)
        made = dataclasses.replace(
            trained(kept["mean"]), normalization=kept, preprocessing=Preprocessing(32, 32, pad)
        )
        expected, found = of_any_shape(normalizer, whole), normalization_for(made, None)
        for name in ("mean", "deviation"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)


def test_images_of_weights_that_do_not_say_it():
    """Photographs are cropped as is usual, small images are taken as they are."""

    def of(name, mean=None, **options):
        images = None if mean is None else {"mean": mean, "deviation": np.ones(3)}
        return usual_preprocessing(Weights(name, options, {}, {}, images, "w"))

    assert of("vgg_d") == Preprocessing(256, 224)
    assert of("resnet20") == Preprocessing(32, 32)
    assert of("vgg_d", image_size=112) == Preprocessing(128, 112)
    image = np.zeros((256, 256, 3))
    assert of("alexnet", image) == Preprocessing(256, 224, aligned_mean=True)
