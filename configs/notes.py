"""Notes on overridden fields that have no effect.

`NOTES` is one table: the paths of the fields (`*` matches any rest), the reason in words, and the
condition under which they have no effect.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from configs.fields import UNITS, shown

# The nested fields of a config, as dicts.
Fields = Mapping[str, Any]


# Protocols in which a network slides over whole images: those that read `dense_average`. Listed
# here because configs imports no JAX; a test compares the list with the protocols themselves.
SLIDING = (
    *("dense", "multi_crop_and_dense", "multi_scale", "multi_scale_logits", "overfeat"),
    *("dense_boxes", "overfeat_boxes"),
)
# Those that merge boxes.
MERGING = ("dense_boxes", "dense_boxes_true_class", "overfeat_boxes")
# Those that take a box from each view as it is.
BOX_OF_VIEW = ("center_crop_true_class",)


class Note(NamedTuple):
    """A reason for which some fields have no effect.

    Attributes:
      paths: patterns of the fields' paths.
      reason: what the fields need, or what overrides them.
      without_effect: (config, mode) -> whether the reason applies.
    """

    paths: tuple[str, ...]
    reason: str
    without_effect: Callable[[Fields, str], bool]


_CHOICES = ("folds", "train_examples", "train_examples_per_class")


def _given(node: Fields, duration: str) -> bool:
    """Whether a duration or a tuple of moments is set in any unit."""
    return any(node.get(f"{duration}_{unit}") for unit in UNITS)


def _drops(optimizer: Fields) -> bool:
    nodes = (optimizer, *optimizer["groups"].values())
    return bool(optimizer["plateau_patience"]) or any(_given(node, "drop") for node in nodes)


def _decays(optimizer: Fields) -> bool:
    return any(node["weight_decay"] for node in (optimizer, *optimizer["groups"].values()))


def _name(model: Fields) -> str:
    """The network's name; empty where a command line names none."""
    return model["name"] or ""


def has_batch_norm(model: Fields) -> bool:
    """Whether a network has BatchNorm."""
    name = _name(model)
    if name.startswith("plain"):
        return bool(model.get("batch_norm", True))
    always = re.match(r"(preact_)?resnet|inception", name) is not None
    return always or model.get("batch_norm", False) or name.endswith("_bn")


def has_bottlenecks(model: Fields) -> bool:
    """Whether the blocks of an ImageNet ResNet are bottlenecks, which have 1x1 convolutions."""
    depth = re.search(r"\d+$", _name(model))
    return depth is not None and int(depth[0]) >= 50


def _left_out(model: Fields, *layers: str) -> bool:
    return set(layers) <= {name.strip() for name in model.get("without", "").split(",")}


NOTES = (
    Note(
        ("data.dir",),
        "data.name=digits is part of scikit-learn",
        lambda c, mode: c["data"]["name"] == "digits",
    ),
    Note(
        ("data.dir",),
        "data.prepared_dir is read in its place",
        lambda c, mode: bool(c["data"]["prepared_dir"]) and mode != "prepare_data",
    ),
    Note(
        ("data.validation_labels",),
        "data.prepared_dir is read, which has the labels",
        lambda c, mode: bool(c["data"]["prepared_dir"]) and mode != "prepare_data",
    ),
    Note(
        ("data.validation_labels",),
        "only with the images of ImageNet",
        lambda c, mode: not c["data"]["name"].startswith("imagenet20"),
    ),
    Note(
        ("data.classes", "data.train_examples", "data.train_examples_per_class"),
        "all of the training set is prepared; the choice is made when it is read",
        lambda c, mode: mode == "prepare_data",
    ),
    Note(
        ("data.fold",),
        "only with data.folds",
        lambda c, mode: not c["data"]["folds"],
    ),
    Note(
        ("data.choice_seed",),
        "only with data.folds, data.train_examples or data.train_examples_per_class",
        lambda c, mode: not any(c["data"][name] for name in _CHOICES),
    ),
    Note(
        ("data.sampling", "loss.class_weights"),
        "only in training",
        lambda c, mode: mode not in ("train", "compile"),
    ),
    Note(
        ("data.dir", "data.cache_dir", "data.prepared_dir", "data.threads", "data.sampling"),
        "no data are opened to compile",
        lambda c, mode: mode == "compile",
    ),
    Note(
        ("data.prepare.*",),
        "only with --mode=prepare_data or data.prepared_dir",
        lambda c, mode: not c["data"]["prepared_dir"] and mode != "prepare_data",
    ),
    Note(
        ("data.prepare.quality",),
        "only with data.prepare.format=jpeg",
        lambda c, mode: c["data"]["prepare"]["format"] != "jpeg",
    ),
    Note(
        ("data.mean_values",),
        "only with data.mean=values",
        lambda c, mode: c["data"]["mean"] != "values",
    ),
    Note(
        ("data.augment.area_range", "data.augment.aspect_range"),
        "only with data.augment.crop=area",
        lambda c, mode: c["data"]["augment"]["crop"] != "area",
    ),
    Note(
        ("data.augment.colour_noise_until_*",),
        "only with data.augment.colour_noise",
        lambda c, mode: c["data"]["augment"]["colour_noise"] == "none",
    ),
    Note(
        ("model.connected", "model.exchanges", "model.lrn_across_towers"),
        "only with more than one tower",
        lambda c, mode: c["model"].get("towers", 1) == 1,
    ),
    Note(
        ("model.exchanges",),
        "model.connected=False leaves only that of fc7",
        lambda c, mode: not c["model"].get("connected", True),
    ),
    Note(
        ("model.lrn", "model.lrn_constants.*", "model.lrn_across_towers"),
        "model.lcn takes its place",
        lambda c, mode: c["model"].get("lcn", False),
    ),
    Note(
        ("model.lrn_constants.*", "model.lrn_across_towers"),
        "only with model.lrn=True",
        lambda c, mode: not c["model"].get("lrn", True),
    ),
    Note(
        ("model.pool_before_norm",),
        "only with a normalisation (model.lrn, model.lcn, model.spatial_norm2)",
        lambda c, mode: (
            not any(c["model"].get(norm, norm == "lrn") for norm in ("lrn", "lcn", "spatial_norm2"))
        ),
    ),
    Note(
        ("model.init_std*",),
        "only with model.init=gaussian",
        lambda c, mode: c["model"].get("init") != "gaussian",
    ),
    Note(
        ("model.init_bias",),
        "not with BatchNorm, which has biases of its own",
        lambda c, mode: has_batch_norm(c["model"]),
    ),
    Note(
        ("model.inverted_dropout",),
        "only with model.dropout",
        lambda c, mode: not c["model"].get("dropout"),
    ),
    Note(
        ("model.hidden", "model.dropout", "model.inverted_dropout"),
        "fc6 and fc7 are left out (model.without)",
        lambda c, mode: _left_out(c["model"], "fc6", "fc7"),
    ),
    Note(
        ("model.dropout",),
        "model.hidden=() leaves no layers that have it",
        lambda c, mode: c["model"].get("hidden") == (),
    ),
    Note(
        ("model.hidden", "model.dropout"),
        "only with model.hidden_layers",
        lambda c, mode: c["model"].get("hidden_layers") == 0,
    ),
    Note(
        ("model.kernels", "model.window", "model.batch_norm"),
        "only with model.stages and model.convolutions",
        lambda c, mode: not c["model"].get("stages", 1) * c["model"].get("convolutions", 1),
    ),
    Note(
        ("model.lrn",),
        "not with BatchNorm in GoogLeNet",
        lambda c, mode: _name(c["model"]).startswith("googlenet") and has_batch_norm(c["model"]),
    ),
    Note(
        ("model.auxiliary_dropout",),
        "only with model.auxiliary=True",
        lambda c, mode: not c["model"].get("auxiliary", True),
    ),
    Note(
        ("model.stride_in",),
        "only in bottlenecks, of 50 layers and more",
        lambda c, mode: not has_bottlenecks(c["model"]),
    ),
    Note(
        ("optimizer.drop_factor",),
        "only with optimizer.drop_* or optimizer.plateau_patience",
        lambda c, mode: not _drops(c["optimizer"]),
    ),
    Note(
        ("optimizer.plateau_drops",),
        "only with optimizer.plateau_patience",
        lambda c, mode: not c["optimizer"]["plateau_patience"],
    ),
    Note(
        ("optimizer.warmup_factor",),
        "only with optimizer.warmup_steps, _epochs or _examples",
        lambda c, mode: not _given(c["optimizer"], "warmup"),
    ),
    Note(
        ("optimizer.decay_biases",),
        "only with optimizer.weight_decay",
        lambda c, mode: not _decays(c["optimizer"]),
    ),
    Note(
        ("optimizer.average_decay",),
        "only with optimizer.average=exponential",
        lambda c, mode: c["optimizer"]["average"] != "exponential",
    ),
    Note(
        ("optimizer.average_from_*",),
        "only with optimizer.average",
        lambda c, mode: c["optimizer"]["average"] == "none",
    ),
    Note(
        ("batch_norm.*",),
        "this network has no BatchNorm",
        lambda c, mode: not has_batch_norm(c["model"]),
    ),
    Note(
        ("loss.auxiliary_weight",),
        "only with auxiliary classifiers (model.auxiliary)",
        lambda c, mode: not c["model"].get("auxiliary", False),
    ),
    Note(
        ("init_head", "init_preprocessing"),
        "only with init_from",
        lambda c, mode: not c["init_from"] and mode != "predict",
    ),
    Note(
        ("evaluation.save_scores",),
        "only with --mode=evaluate",
        lambda c, mode: mode != "evaluate",
    ),
    Note(
        ("evaluation.dropout_*",),
        "--mode=predict computes without dropout",
        lambda c, mode: mode == "predict",
    ),
    Note(
        ("evaluation.scales",),
        "only with --mode=evaluate or predict",
        lambda c, mode: mode not in ("evaluate", "predict"),
    ),
    Note(
        ("evaluation.save_scores",),
        "a network of boxes has no scores of classes; its guesses are written without being asked",
        lambda c, mode: c["evaluation"]["protocol"] in BOX_OF_VIEW,
    ),
    Note(
        ("evaluation.dropout_seed",),
        "only with evaluation.dropout_masks",
        lambda c, mode: not c["evaluation"]["dropout_masks"],
    ),
    Note(
        ("evaluation.dropout_masks",),
        "this network has no dropout",
        lambda c, mode: not any(c["model"].get(name) for name in ("dropout", "input_dropout")),
    ),
    Note(
        ("data.boxes.extent", "data.boxes.least_visible"),
        "only with data.boxes.count",
        lambda c, mode: not c["data"]["boxes"]["count"],
    ),
    Note(
        ("evaluation.excluded",),
        "only with --mode=evaluate_guesses, or --mode=evaluate of boxes",
        lambda c, mode: (
            mode not in ("evaluate", "evaluate_guesses")
            or (mode == "evaluate" and c["loss"]["boxes"] == "none")
        ),
    ),
    Note(
        ("evaluation.classifier", "evaluation.merge.*"),
        f"only with protocols that merge boxes ({', '.join(MERGING)})",
        lambda c, mode: c["evaluation"]["protocol"] not in MERGING,
    ),
    Note(
        ("evaluation.merge.classes",),
        "evaluation.protocol=dense_boxes_true_class takes the true one",
        lambda c, mode: c["evaluation"]["protocol"] == "dense_boxes_true_class",
    ),
    Note(
        ("evaluation.dense_average",),
        "only where a network slides over images (evaluation.protocol=dense and the like)",
        lambda c, mode: c["evaluation"]["protocol"] not in SLIDING,
    ),
    Note(
        ("evaluation.validation_protocol",),
        "only with --mode=train",
        lambda c, mode: mode != "train",
    ),
)


def remarks(config: Fields, written: Fields, mode: str, overridden: Mapping[str, Any]) -> list[str]:
    """Everything about a command line that its author may not expect, a line each.

    Args:
      config: nested, with the overrides.
      written: the config of the file, without the overrides.
      mode: of main.py.
      overridden: path -> value.
    """
    return [
        *not_scaled(config, written, overridden),
        *without_effect(config, mode, overridden),
    ]


def not_scaled(config: Fields, written: Fields, overridden: Mapping[str, Any]) -> Iterator[str]:
    """A line if the batch size was overridden and the learning rate did not scale with it.

    Args:
      config: nested, with the overrides.
      written: the config of the file, without the overrides.
      overridden: path -> value.
    """
    size, rate = config["batch_size"], config["optimizer"]["learning_rate"]
    if (
        "batch_size" in overridden
        and "optimizer.learning_rate" not in overridden
        and size != written["batch_size"]
        and rate == written["optimizer"]["learning_rate"] != 0
    ):
        yield (
            f"--config.batch_size={size} leaves optimizer.learning_rate={rate:g} as it is: this "
            "config sets it by assignment (common.set_rate scales it)"
        )


def reason(path: str, config: Fields, mode: str) -> str | None:
    """Why a field has no effect; None if no note applies to it.

    Args:
      path: of the field, such as `data.fold`.
      config: nested, with the overrides.
      mode: of main.py.
    """
    for note in NOTES:
        matches = any(fnmatchcase(path, pattern) for pattern in note.paths)
        if matches and note.without_effect(config, mode):
            return note.reason
    return None


def without_effect(config: Fields, mode: str, overridden: Mapping[str, Any]) -> Iterator[str]:
    """A line for each field that was overridden and has no effect.

    Args:
      config: nested, with the overrides.
      mode: of main.py.
      overridden: path -> value.
    """
    for path, value in overridden.items():
        why = reason(path, config, mode)
        if why is not None:
            yield f"--config.{path}={shown(value)} has no effect: {why}"
