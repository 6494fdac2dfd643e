"""What each field of a config takes: the one table of kinds and ranges.

The values of a command line and of a config file are checked against it before anything is
opened. Conditions that involve several fields, the data or the network (a crop that fits into its
image, a batch that the mesh divides) are checked where these are known.

The keys of `FIELDS` are paths such as `data.crop`, in which `*` is the name of any parameter
group. `_OF_NETWORKS` has the exceptions: options that mean something else in some networks.
"""

import ast
import contextlib
import dataclasses
import difflib
from collections.abc import Callable
from typing import Any

UNITS = ("steps", "epochs", "examples")

# Steps, and durations counted in steps, are int32 on the device.
COUNT = 2**31 - 1
# Upper bounds, for values that would otherwise fill the memory and fail after minutes. A batch:
# twice the largest that ImageNet has been trained with (some 2^16). Pixels of a shorter side: an
# image of 4096 takes 200 MB in float32. Maps and units: twice the widest layer of these papers; a
# 3x3 convolution from and to so many maps has 600 million weights.
BATCH, PIXELS, UNITS_OF_A_LAYER, CLASSES = 2**17, 4096, 8192, 2**17
# Factors and rates beyond it leave float32 within a few steps.
FACTOR = 1000.0


@dataclasses.dataclass(frozen=True)
class Kind:
    """The values that a field accepts.

    Attributes:
      type: int, float, bool, str or tuple; float accepts whole numbers too.
      says: the range in words, as the end of an error message.
      fits: value of that type -> whether it is in the range.
      optional: whether None is accepted.
    """

    type: type
    says: str
    fits: Callable[[Any], bool] = lambda value: True
    optional: bool = False

    def takes(self, value: Any) -> bool:
        """Whether `value` has the type and is in the range."""
        if value is None:
            return self.optional
        if self.type is tuple:
            return isinstance(value, tuple | list) and self.fits(value)
        if isinstance(value, bool) != (self.type is bool):
            return False
        return isinstance(value, int | float if self.type is float else self.type) and self.fits(
            value
        )


def number(low: float, high: float, *, above: bool = False, below: bool = False) -> Kind:
    """A finite number from `low` to `high`.

    Args:
      low, high: bounds of the range, themselves in it.
      above: `low` itself is excluded.
      below: `high` itself is excluded.
    """

    def fits(value: float) -> bool:
        return (low < value if above else low <= value) and (
            value < high if below else value <= high
        )

    lowest = f"{'above ' if above else ''}{low:.12g}"
    highest = f"{'below ' if below else ''}{high:.12g}"
    return Kind(float, f"{lowest} to {highest}", fits)


def whole(low: int, high: int) -> Kind:
    """An integer from `low` to `high`, both included."""
    return Kind(int, f"{low} to {high}, whole", lambda value: low <= value <= high)


def choice(*names: str) -> Kind:
    """A string, one of `names`."""
    return Kind(str, f"choose one of {', '.join(n or repr(n) for n in names)}", names.__contains__)


def listing(*names: str) -> Kind:
    """A comma-separated string of any of `names`; empty for none."""
    return Kind(
        str,
        f"empty, or some of {', '.join(names)}, with commas",
        lambda value: {name.strip() for name in value.split(",")} - {""} <= set(names),
    )


def several(kind: Kind, *lengths: int) -> Kind:
    """A tuple of values of one kind.

    Args:
      kind: of each value.
      lengths: the lengths that are accepted; without any, 0 to 1000.
    """
    said = " or ".join(map(str, lengths)) if lengths else "up to 1000"

    def fits(values: Any) -> bool:
        known = len(values) in lengths if lengths else len(values) <= 1000
        return known and all(kind.takes(value) for value in values)

    return Kind(tuple, f"{said} values, for each {kind.says}", fits)


def optional(kind: Kind) -> Kind:
    """`kind` with None accepted too."""
    return dataclasses.replace(kind, optional=True)


SWITCH = Kind(bool, "true or false")
TEXT = Kind(str, "a text")
NAME = Kind(str, "a text of 1 to 200 characters", lambda value: 0 < len(value) <= 200)
NEURON = choice(
    "identity", "relu", "tanh", "scaled_tanh", "abs_tanh", "sigmoid", "leaky_relu", "elu"
)
POOL = choice("max", "average", "padded_average", "sum", "l2")
DEVIATION = number(0, FACTOR)
DROPOUT = number(0, 1, below=True)


def duration(name: str, *, several_moments: bool = False) -> dict[str, Kind]:
    """The three fields of `common.add_duration`: name_steps, name_epochs and name_examples.

    Args:
      name: path of the duration, without its unit.
      several_moments: each field is a tuple of moments instead of one length.
    """
    kinds = {
        "steps": whole(0, COUNT),
        "epochs": number(0, COUNT),
        "examples": whole(0, COUNT * BATCH),
    }
    return {
        f"{name}_{unit}": optional(several(kind) if several_moments else kind)
        for unit, kind in kinds.items()
    }


# The fields `data.augment.*`: what each accepts, and its default.
# `input_pipeline/augment.py` reads each by its name.
AUGMENT: dict[str, tuple[Kind, Any]] = {
    # Where a crop comes from: a random place in the central "square" or in the whole rescaled
    # "image"; a rectangle of random "area" and aspect ratio; or always the "center".
    "crop": (choice("square", "image", "area", "center"), "square"),
    # Pixels of the shorter side, drawn for each image, such as (256, 512); empty: data.resize.
    "scale_range": (several(whole(1, PIXELS), 0, 2), ()),
    "area_range": (several(number(0, 1, above=True), 2), (0.08, 1.0)),  # share of the image
    # Width over height.
    "aspect_range": (several(number(0, 100, above=True), 2), (3 / 4, 4 / 3)),
    "flip": (SWITCH, True),
    "rotation": (number(0, 180), 0.0),  # degrees either way
    "stretch": (number(1, 2), 1.0),  # largest factor, of either axis
    "shear": (number(0, 1), 0.0),  # tangent of the angle, either way
    # Share by which the middle of an edge moves, out or in.
    "lens": (number(0, 0.5), 0.0),
    # Grey levels either way; each of R, G and B is shifted in half of the images.
    "colour_cast": (whole(0, 255), 0),
    "colour_noise": (choice("paper", "original", "gaussian", "none"), "none"),
}

FIELDS: dict[str, Kind] = {
    "seed": whole(0, 2**32 - 1),
    "batch_size": whole(1, BATCH),
    "gradient_accumulation": whole(1, BATCH),
    "compute_dtype": choice("float32", "bfloat16"),
    "nonfinite": choice("stop", "skip"),
    # data
    "data.name": NAME,
    "data.dir": optional(TEXT),
    "data.cache_dir": optional(TEXT),
    "data.classes": several(whole(0, CLASSES - 1)),
    "data.validation_examples": optional(whole(1, COUNT)),
    "data.validation_labels": optional(TEXT),
    "data.train_examples": optional(whole(1, COUNT)),
    "data.train_examples_per_class": optional(whole(1, COUNT)),
    "data.folds": optional(whole(2, COUNT)),
    "data.fold": whole(0, COUNT),
    "data.choice_seed": whole(0, 2**32 - 1),
    "data.sampling": choice("uniform", "balanced"),
    "data.prepared_dir": optional(TEXT),
    "data.prepare.format": choice("raw", "jpeg"),
    "data.prepare.quality": whole(1, 100),
    "data.decode": choice("fast", "exact"),
    "data.unreadable": choice("leave_out", "fail"),
    "data.threads": optional(whole(1, 1024)),
    "data.boxes.count": whole(0, 1000),
    "data.boxes.extent": choice("whole", "visible"),
    "data.boxes.least_visible": number(0, 1),
    "data.resize": whole(1, PIXELS),
    "data.pad": whole(0, PIXELS),
    "data.crop": whole(1, PIXELS),
    "data.mean": choice("image", "image_center", "channel", "values", "none"),
    "data.mean_values": several(number(0, 255), 3),
    # In units of pixels, 0 to 255. A larger one makes images all but 0, a smaller one overflows.
    "data.deviation": several(number(1e-3, FACTOR), 3),
    **{f"data.augment.{name}": kind for name, (kind, _) in AUGMENT.items()},
    **duration("data.augment.colour_noise_until"),
    # model: the options of all networks, also those that a variant's name sets.
    "model.name": NAME,
    "model.num_classes": optional(whole(1, CLASSES)),
    "model.image_size": whole(1, PIXELS),
    "model.neuron": NEURON,
    "model.init": choice("gaussian", "xavier", "he", "lecun"),
    "model.init_std": DEVIATION,
    "model.init_std_conv1": DEVIATION,
    "model.init_std_conv3to5": DEVIATION,
    "model.init_std_local": DEVIATION,
    "model.init_bias": number(-FACTOR, FACTOR),
    "model.dropout": DROPOUT,
    "model.input_dropout": DROPOUT,
    "model.auxiliary_dropout": DROPOUT,
    "model.inverted_dropout": SWITCH,
    "model.pool": POOL,
    "model.pools": several(POOL, 3),
    "model.pool_window": whole(1, 64),
    "model.pool1_padded": SWITCH,
    "model.pool_before_norm": SWITCH,
    "model.kernels": several(whole(1, UNITS_OF_A_LAYER), 5),
    "model.hidden": several(whole(1, UNITS_OF_A_LAYER), 2),
    "model.pyramid": several(whole(1, 64)),
    "model.conv6": whole(0, UNITS_OF_A_LAYER),
    "model.local3": whole(1, UNITS_OF_A_LAYER),
    "model.shared": SWITCH,
    "model.towers": whole(1, 64),
    "model.connected": SWITCH,
    "model.exchanges": listing("pool2", "pool5", "fc6", "fc7"),
    "model.without": listing("conv3", "conv4", "conv5", "fc6", "fc7"),
    "model.lrn": SWITCH,
    "model.lrn_across_towers": SWITCH,
    "model.lrn_constants.size": whole(1, UNITS_OF_A_LAYER),
    "model.lrn_constants.k": number(0, FACTOR, above=True),  # the divisor is k^beta at least
    "model.lrn_constants.alpha": number(0, FACTOR),
    "model.lrn_constants.beta": number(0, 10),
    "model.lrn_constants.average": SWITCH,
    "model.lcn": SWITCH,
    "model.norm": SWITCH,
    "model.norm1_before_neuron": SWITCH,
    "model.spatial_norm2": SWITCH,
    "model.batch_norm": SWITCH,
    "model.auxiliary": SWITCH,
    "model.count_padding": SWITCH,
    "model.head": choice("rbf", "linear"),
    "model.shortcut": choice("projection", "pad", "none"),
    "model.stride_in": choice("1x1", "3x3"),
    "model.preactivation": SWITCH,
    "model.bottleneck": SWITCH,
    "model.depth": whole(1, 2000),
    "model.configuration": choice("a", "b", "b_5x5", "c", "d", "e"),
    "model.base": choice("a", "b", "c"),
    "model.reduction": choice("pool", "stride", "convolution_and_pool", "convolution"),
    "model.convolutions": whole(0, 64),
    "model.stages": whole(0, 8),  # each doubles the number of maps
    "model.hidden_layers": whole(0, 64),
    "model.window": whole(1, 63),
    # training
    # Large, because warmup_factor may scale it down; its square is still finite in float32.
    "optimizer.learning_rate": number(0, 1e18),
    "optimizer.momentum": number(0, 1),
    "optimizer.weight_decay": number(0, FACTOR),
    "optimizer.decay_biases": SWITCH,
    "optimizer.drop_factor": number(0, 1),
    "optimizer.plateau_patience": whole(0, COUNT),
    "optimizer.plateau_drops": whole(0, COUNT),
    **duration("optimizer.drop", several_moments=True),
    **duration("optimizer.warmup"),
    "optimizer.warmup_factor": number(0, FACTOR),
    "optimizer.max_gradient_norm": number(0, FACTOR),
    "optimizer.max_filter_rms": number(0, FACTOR),
    "optimizer.average": choice("none", "polyak", "exponential"),
    "optimizer.average_decay": number(0, 1, above=True, below=True),
    **duration("optimizer.average_from"),
    "optimizer.frozen": TEXT,
    "optimizer.train_last": optional(whole(1, COUNT)),
    "optimizer.groups.*.match": NAME,
    "optimizer.groups.*.multiplier": number(0, FACTOR),
    **duration("optimizer.groups.*.drop", several_moments=True),
    **duration("optimizer.groups.*.freeze"),
    "optimizer.groups.*.weight_decay": optional(number(0, FACTOR)),
    "batch_norm.group": whole(0, BATCH),
    "batch_norm.recompute_examples": whole(0, COUNT),
    "loss.auxiliary_weight": number(0, FACTOR),
    "loss.boxes": choice("none", "scr", "pcr"),
    "loss.class_weights": choice("none", "balanced"),
    "loss.label_smoothing": number(0, 1),
    "loss.rubbish_penalty": optional(number(0, FACTOR)),
    **duration("total"),
    **duration("log_every"),
    **duration("evaluate_every"),
    **duration("checkpoint_every"),
    "checkpoint_keep": whole(1, 1000),
    "profile_steps": several(whole(1, COUNT), 0, 2),
    "init_from": optional(TEXT),
    "init_preprocessing": optional(
        choice("config", "torchvision", "caffe", "unit", "mnist", "none")
    ),
    "init_head": choice("file", "new"),
    "mesh.data": optional(whole(1, COUNT)),
    "mesh.tower": optional(whole(1, COUNT)),
    "evaluation.protocol": NAME,
    "evaluation.scales": several(whole(1, PIXELS)),
    "evaluation.dense_average": choice("scores", "probabilities"),
    "evaluation.dropout_masks": whole(0, 100_000),
    "evaluation.dropout_seed": whole(0, 2**32 - 1),
    "evaluation.validation_protocol": NAME,
    "evaluation.split": optional(TEXT),
    "evaluation.checkpoint": NAME,
    "evaluation.batch_size": whole(1, BATCH),
    "evaluation.classifier": optional(TEXT),
    "evaluation.merge.classes": whole(1, 100),
    "evaluation.merge.threshold": number(0, FACTOR),
    "evaluation.merge.distance": number(0, FACTOR),
    "evaluation.excluded": optional(TEXT),
    "evaluation.save_scores": SWITCH,
}

# Prefix of a network's name -> options that accept other values there.
_OF_NETWORKS: dict[str, dict[str, Kind]] = {
    "vgg": {"model.hidden": several(whole(1, UNITS_OF_A_LAYER), 0, 2)},
    "overfeat": {"model.kernels": several(whole(1, UNITS_OF_A_LAYER), 5, 6)},
    "nin_cifar10": {"model.pools": several(POOL, 2)},
    "conv": {  # convnet, conv_relu_pool_fc
        "model.kernels": whole(1, UNITS_OF_A_LAYER),
        "model.hidden": whole(1, UNITS_OF_A_LAYER),
        "model.pool": choice("max", "average", "padded_average", "sum", "l2", ""),
    },
}


def entry(path: str) -> str:
    """The key of `FIELDS` under which a path belongs, whether or not it is there."""
    parts = path.split(".")
    if parts[:2] == ["optimizer", "groups"] and len(parts) == 4:
        parts[2] = "*"
    return ".".join(parts)


def kind_of(path: str, network: str = "") -> Kind | None:
    """The values that a field accepts; None if there is no such field.

    Args:
      path: such as `data.crop` or `optimizer.groups.biases.multiplier`.
      network: name of the config's network.
    """
    for start, options in _OF_NETWORKS.items():
        if network.startswith(start) and path in options:
            return options[path]
    return FIELDS.get(entry(path))


def read(text: str, kind: Kind) -> Any:
    """Parses a value from the command line; returns the text itself where it does not parse."""
    if kind.type is str:
        return text
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    if kind.type is tuple:
        return tuple(value) if isinstance(value, tuple | list) else (value,)
    whole_number = isinstance(value, int) and not isinstance(value, bool)
    with contextlib.suppress(OverflowError):  # too large for a float is out of any range
        return float(value) if kind.type is float and whole_number else value
    return text


def fault(path: str, value: Any, network: str = "") -> str | None:
    """What is wrong with the value of a field, such as `data.crop=0: 1 to 4096, whole`.

    Args:
      path: of the field, such as `data.crop`.
      value: to be checked.
      network: name of the config's network.

    Returns:
      One line, or None if the value is accepted.
    """
    kind = kind_of(path, network)
    if kind is None:
        near = difflib.get_close_matches(path, FIELDS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return f"{path}: no field that anything reads{hint}"
    return None if kind.takes(value) else f"{path}={shown(value)}: {kind.says}"


def shown(value: Any) -> str:
    """A value as one line of an error message, shortened beyond 80 characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:60]} ... ({len(text)} characters)"
