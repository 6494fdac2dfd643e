"""Photographs in, batches out. The only package that imports TensorFlow.

data = open_data(config.data, default_cache_dir())
for batch in data.training(0, seed=0, batch_size=128): ...
for batch in data.evaluation("validation", images, batch_size=128): ...

A file a stage: datasets, layouts, folders and sources (where examples are), order (which one comes
when), decode (bytes to pixels), augment (crops and colours), batches (the tf.data pipelines),
pixel_statistics and normalization (what is subtracted); kernels has the inner loops, prepare
writes datasets at a fixed size, annotations and boxes have the objects in images, describe and
samples say what a directory holds. from_config reads a config's fields, data puts all together.
"""

import os

# TensorFlow only feeds images here: its start-up messages about devices and
# instruction sets say nothing to a user.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# Nor is its Keras needed, which takes a second to import.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import tensorflow as tf

from input_pipeline.annotations import boxes_of
from input_pipeline.boxes import Boxes, as_read, extents
from input_pipeline.data import Data, open_data, prepare_data
from input_pipeline.datasets import REPORTED, Dataset, default_cache_dir, open_dataset
from input_pipeline.describe import described, open_any
from input_pipeline.errors import DataError
from input_pipeline.from_config import cache_dir_of
from input_pipeline.names import shown
from input_pipeline.photographs import (
    Images,
    find_photographs,
    pixels_of,
    read_photograph,
    readable,
)
from input_pipeline.report import reporter
from input_pipeline.samples import verify, write_sheet
from input_pipeline.sizes import image_sizes, orientation_marks, rescaled_sizes
from input_pipeline.sources import labels_of

__all__ = [
    "REPORTED",
    "Boxes",
    "Data",
    "DataError",
    "Dataset",
    "Images",
    "as_read",
    "boxes_of",
    "cache_dir_of",
    "default_cache_dir",
    "described",
    "extents",
    "find_photographs",
    "image_sizes",
    "labels_of",
    "open_any",
    "open_data",
    "open_dataset",
    "orientation_marks",
    "pixels_of",
    "prepare_data",
    "read_photograph",
    "readable",
    "reporter",
    "rescaled_sizes",
    "shown",
    "verify",
    "write_sheet",
]

# Accelerators belong to JAX; TensorFlow would take all their memory.
tf.config.set_visible_devices([], "GPU")
