"""Photographs in, batches out. The only package that imports TensorFlow.

data = open_data(config.data, cache_dir_of(config.data))
for batch in data.training(seed=0, batch_size=128): ...
for batch in data.evaluation("validation", images, batch_size=128): ...

A file a stage: names, folders, formats, tfds_directories (what there is), sources and datasets
(where examples are), order (which one comes when), decode (bytes to pixels), augment (crops and
colours), batches (the tf.data pipelines), pixel_statistics (mean and covariance), data (all of it,
opened); kernels has the inner loops, prepare writes datasets at a fixed size.
"""

import os

# TensorFlow only feeds images here: its start-up messages about devices and
# instruction sets say nothing to a user.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# Nor is its Keras needed, which takes a second to import.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import tensorflow as tf

from input_pipeline.batches import Reading
from input_pipeline.check import check_fields
from input_pipeline.data import Data, cache_dir_of, open_data, prepare_from, reading_of
from input_pipeline.datasets import REPORTED, Dataset, default_cache_dir, open_dataset
from input_pipeline.errors import DataError
from input_pipeline.names import shown
from input_pipeline.photographs import find_photographs, read_square
from input_pipeline.pixel_statistics import PixelStatistics, pixel_statistics
from input_pipeline.prepare import prepare_data
from input_pipeline.report import reporter

__all__ = [
    "REPORTED",
    "Data",
    "DataError",
    "Dataset",
    "PixelStatistics",
    "Reading",
    "cache_dir_of",
    "check_fields",
    "default_cache_dir",
    "find_photographs",
    "open_data",
    "open_dataset",
    "pixel_statistics",
    "prepare_data",
    "prepare_from",
    "read_square",
    "reading_of",
    "reporter",
    "shown",
]

# Accelerators belong to JAX; TensorFlow would take all their memory.
tf.config.set_visible_devices([], "GPU")
