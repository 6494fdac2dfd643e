"""What the config files share: the common fields, durations in any unit, variants."""

from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

import files
from configs.fields import AUGMENT, COUNT, UNITS


class ConfigError(ValueError):
    """A config that cannot be used as it is; the message names the field and the way out."""

    exit_code = 2


# Fields that hold the path of a file or directory.
PATHS = (
    "init_from",
    "data.dir",
    "data.cache_dir",
    "data.prepared_dir",
    "data.validation_labels",
    "evaluation.classifier",
    "evaluation.excluded",
)


def expanded(name: str, path: str) -> str:
    """The path that a user means by the value of a flag or field, see `files.expanded`.

    Raises:
      ConfigError: there is no such home, or it is a URL; the message begins with `name`.
    """
    try:
        return files.expanded(path)
    except ValueError as error:
        raise ConfigError(f"{name}={path}: {error}") from error


def expand_paths(config: Any) -> None:
    """Puts home directories into the fields of a config that hold paths.

    Raises:
      ConfigError: see `expanded`.
    """
    for field in PATHS:
        *groups, name = field.split(".")
        node = config
        for group in groups:
            node = node[group]
        # Several directories have commas between them.
        texts = (node[name] or "").split(",") if field == "data.dir" else [node[name] or ""]
        if texts != [""]:
            node[name] = ",".join(expanded(f"--config.{field}", text) for text in texts)


def base_config(*, batch_size: int, learning_rate: float) -> ConfigDict:
    """The fields that every config has, with what a paper's config then sets.

    Args:
      batch_size: of all devices together.
      learning_rate: at that batch size; overriding the batch size scales it in proportion.

    Returns:
      A config whose `data` is ImageNet at 256 pixels, cropped to 224 at random places and
      mirrored at random, whose optimiser is plain momentum, and whose `model` has no name.
    """
    config = ConfigDict()
    config.seed = 0
    config.batch_size = batch_size
    config.gradient_accumulation = 1  # parts of a batch, computed one after another
    config.compute_dtype = "float32"  # or bfloat16; parameters are always float32
    config.nonfinite = "stop"  # at a loss or gradient that is not finite; or skip that update

    config.data = data = ConfigDict()
    data.name = "imagenet2012"
    data.dir = config_dict.placeholder(str)
    data.cache_dir = config_dict.placeholder(str)  # mean image, indices; else ~/.cache
    data.classes = ()  # those of the dataset that are used, in the order of their new labels
    data.validation_examples = config_dict.placeholder(int)  # where there is no such split
    data.validation_labels = config_dict.placeholder(str)  # their file; else searched for
    data.train_examples = config_dict.placeholder(int)  # equally many of each class; None: all
    data.train_examples_per_class = config_dict.placeholder(int)  # None: all
    data.folds = config_dict.placeholder(int)  # number of folds of train for cross-validation
    data.fold = 0  # the fold that is the validation split, from 0 on
    data.choice_seed = 0  # draws the examples that are used, and divides them into folds
    data.sampling = "uniform"  # every example once an epoch; or balanced: classes equally often
    data.prepared_dir = config_dict.placeholder(str)  # what --mode=prepare_data wrote
    data.prepare = ConfigDict()
    data.prepare.format = "raw"  # pixels; or jpeg
    data.prepare.quality = 95  # of JPEGs, 1 to 100
    data.decode = "fast"  # DCT scaling of JPEGs 4 and more times too large; or exact
    data.unreadable = "leave_out"  # images damaged beyond repair; or fail
    data.threads = config_dict.placeholder(int)  # decoding threads; None: one a core
    data.boxes = ConfigDict()
    data.boxes.count = 0  # boxes that an example has at most, its own class's first; 0: none
    data.boxes.extent = "whole"  # of those that a crop cuts; or the part that is visible
    data.boxes.least_visible = 0.0  # share of a box below which a crop does without it
    data.resize = 256  # pixels of the shorter side
    data.pad = 0  # pixels of zeros around the central square, within reach of crops
    data.crop = 224
    # What is subtracted: "image", the training set's mean image, cropped and flipped as the
    # image is; "image_center", always the central crop of it; "channel", the mean of each
    # colour; "values", mean_values; "none".
    data.mean = "channel"
    data.mean_values = (0.0, 0.0, 0.0)
    data.deviation = (1.0, 1.0, 1.0)  # RGB; images are divided by it after the mean
    data.augment = ConfigDict({name: default for name, (_, default) in AUGMENT.items()})
    add_duration(data.augment, "colour_noise_until")  # None: to the end

    config.model = model = ConfigDict()
    model.name = config_dict.placeholder(str)
    model.num_classes = config_dict.placeholder(int)  # as many as the dataset has
    model.image_size = data.get_ref("crop")

    config.optimizer = optimizer = ConfigDict()
    set_rate(config, learning_rate, batch_size=batch_size)
    optimizer.momentum = 0.9
    optimizer.weight_decay = 0.0
    optimizer.decay_biases = False  # and scales of normalisations
    # The rate is multiplied by drop_factor when validation error has not improved for
    # plateau_patience evaluations (0: never), at most plateau_drops times, and at the
    # moments of drop_*.
    optimizer.drop_factor = 0.1
    optimizer.plateau_patience = 0
    optimizer.plateau_drops = 3
    add_duration(optimizer, "drop", several=True)
    add_duration(optimizer, "warmup")  # the rate is multiplied by warmup_factor until then
    optimizer.warmup_factor = 0.1
    optimizer.max_gradient_norm = 0.0  # gradients, as one vector, are scaled to it; 0: off
    optimizer.max_filter_rms = 0.0  # convolution filters above it are scaled to it; 0: off
    # Evaluated and exported in place of the parameters: "polyak", their mean over all
    # updates from average_from_* on; "exponential", which forgets; or "none".
    optimizer.average = "none"
    optimizer.average_decay = 0.9999  # of exponential
    add_duration(optimizer, "average_from")
    optimizer.frozen = ""  # parameters with one of these in their name, as "conv1,conv2"
    optimizer.train_last = config_dict.placeholder(int)  # layers, norms counted; others frozen
    # Parameters whose rate or decay differs; see parameter_group.
    optimizer.groups = ConfigDict()
    config.batch_norm = batch_norm = ConfigDict()
    # Number of examples normalised together, as on GPUs that hold that many each ("ghost batch
    # normalisation"); 0: the batch (each of its parts, with gradient_accumulation).
    batch_norm.group = 0
    # Number of examples over which statistics are recomputed after training ("precise BN"), at
    # most those trained on; 0: keep the running statistics.
    batch_norm.recompute_examples = 0

    config.loss = loss = ConfigDict()  # besides the cross-entropy
    # Boxes are learned in place of classes: "scr", one for an image, or "pcr", one for each class
    # (four times as many outputs); see data.boxes.
    loss.boxes = "none"
    loss.auxiliary_weight = 0.0  # of the cross-entropy of auxiliary classifiers
    # Weight of an example by its class: "balanced", in inverse proportion to the number of the
    # class's examples, 1 on average; or "none".
    loss.class_weights = "none"
    loss.label_smoothing = 0.0  # share of a label that is spread over all classes
    loss.rubbish_penalty = config_dict.placeholder(float)  # LeNet-5's j, see metrics

    add_duration(config, "total")
    add_duration(config, "log_every", steps=100)
    add_duration(config, "evaluate_every", epochs=1.0)
    add_duration(config, "checkpoint_every", epochs=1.0)
    config.checkpoint_keep = 3  # newest ones; the best by validation error stays as well

    config.profile_steps = ()  # first and last step of a trace for TensorBoard's profiler

    # Weights to start from, or to evaluate: a .pth, .safetensors or .caffemodel file, the
    # workdir of a run, or the name of a trained network such as lenet5-mnist.
    config.init_from = config_dict.placeholder(str)
    config.init_preprocessing = config_dict.placeholder(str)  # None: what the weights expect
    config.init_head = "file"  # or new: freshly drawn classifiers

    config.mesh = ConfigDict()
    config.mesh.data = config_dict.placeholder(int)  # as many as the devices allow
    config.mesh.tower = config_dict.placeholder(int)  # 2 where there are two towers

    config.evaluation = evaluation = ConfigDict()
    evaluation.protocol = "center_crop"  # of a test; see evaluation/protocols
    evaluation.scales = ()  # pixels of the shorter side; the protocol's own
    # What a network that slides over an image averages there: scores or probabilities.
    evaluation.dense_average = "scores"
    # Networks that dropout samples, whose probabilities are averaged; 0: the mean network.
    evaluation.dropout_masks = 0
    evaluation.dropout_seed = 0  # draws their masks
    # Evaluates the validation split during training: a protocol for central squares.
    evaluation.validation_protocol = "center_crop"
    evaluation.split = config_dict.placeholder(str)  # the labelled test split
    evaluation.checkpoint = "latest"  # or best, or a step
    evaluation.batch_size = config.get_oneway_ref("batch_size")
    # Of the protocols that merge boxes: which classes are guessed, a run, a file or a name.
    evaluation.classifier = config_dict.placeholder(str)
    evaluation.merge = merge = ConfigDict()  # of boxes, see evaluation/localization/merging.py
    merge.classes = 5  # whose boxes are taken at each scale
    merge.threshold = 0.4  # boxes that are farther apart stay apart
    merge.distance = 1.0  # weight of the distance between centres
    # The kit's list of images that the localization error leaves out, a number a line.
    evaluation.excluded = config_dict.placeholder(str)
    evaluation.save_scores = False  # of every example, to scores/ in the workdir
    return config


def any_config() -> ConfigDict:
    """The fields that every config has, for commands that need no network."""
    return base_config(batch_size=1, learning_rate=1.0)


def config_of(fields: Mapping[str, Any]) -> ConfigDict:
    """The fields that every config has, with other values for some of them.

    Args:
      fields: nested dicts, such as the config that a run saved; lists stand for tuples.
    """
    config = base_config(batch_size=128, learning_rate=1.0)
    with config.unlocked(), config.ignore_type():
        config.update(_with_tuples(fields))
    return config


def _with_tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _with_tuples(inner) for name, inner in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def set_rate(config: ConfigDict, learning_rate: float, *, batch_size: int) -> None:
    """Sets batch size and learning rate of a config together.

    Overriding the batch size then scales the rate in proportion. Plain assignment to
    `optimizer.learning_rate` cuts that link: variants that have a rate of their own call this.

    Args:
      config: changed in place.
      learning_rate: at that batch size.
      batch_size: of all devices together.
    """
    config.batch_size = batch_size
    rate = config.get_ref("batch_size").to_float() * (learning_rate / batch_size)
    config.optimizer.learning_rate = rate


def alexnet_lrn() -> ConfigDict:
    """Constants of the response normalisation of AlexNet's section 3.3."""
    return ConfigDict({"size": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75, "average": False})


def add_duration(config: ConfigDict, name: str, *, several: bool = False, **value: Any) -> None:
    """Adds a duration that can be given in any unit.

    `add_duration(config, "total", epochs=90)` makes the fields `total_steps`,
    `total_epochs` (90) and `total_examples`, two of them empty.

    Args:
      config: where the fields are added.
      name: what they are called before the unit.
      several: the fields hold tuples of moments instead of one.
      **value: at most one of steps, epochs, examples.
    """
    for unit in UNITS:
        kind = tuple if several else float if unit == "epochs" else int
        config[f"{name}_{unit}"] = config_dict.placeholder(kind)
    for unit, amount in value.items():
        config[f"{name}_{unit}"] = amount


def parameter_group(
    match: str,
    *,
    multiplier: float = 1.0,
    drop_epochs: tuple[float, ...] | None = None,
    freeze_epochs: float | None = None,
    weight_decay: float | None = None,
) -> ConfigDict:
    """Parameters whose rate or decay differs from the others'.

    Args:
      match: part of the parameters' paths, such as `bias` or `conv1/kernel`. Where
        several groups match a path, the longest `match` counts.
      multiplier: of `optimizer.learning_rate`.
      drop_epochs: when this group's rate falls; () never. None: whenever the
        others' does, on a plateau too. (Other units: `drop_steps`, `drop_examples`.)
      freeze_epochs: the rate is 0 from then on; None never.
      weight_decay: None for `optimizer.weight_decay`. Only kernels decay, unless
        `optimizer.decay_biases`.
    """
    group = ConfigDict({"match": match, "multiplier": multiplier})
    add_duration(group, "drop", several=True, epochs=drop_epochs)
    add_duration(group, "freeze", epochs=freeze_epochs)
    group.weight_decay = config_dict.placeholder(float)
    group.weight_decay = weight_decay
    return group


def keep_overridden_unit(config: ConfigDict, overridden: Iterable[str]) -> None:
    """Lets a duration overridden in one unit replace the config's value in another.

    Args:
      config: changed in place.
      overridden: the paths of the fields that were overridden, such as `total_steps`.

    Raises:
      ConfigError: one duration was overridden in two units.
    """
    chosen: dict[str, str] = {}
    for path in overridden:
        *parents, field = path.split(".")
        name, _, unit = field.rpartition("_")
        node = config
        for parent in parents:
            node = node[parent]
        if unit not in UNITS or any(f"{name}_{other}" not in node for other in UNITS):
            continue
        stem = ".".join([*parents, name])
        if chosen.setdefault(stem, unit) != unit:
            raise ConfigError(
                f"--config.{stem}_{chosen[stem]} and --config.{stem}_{unit} say the same thing in "
                "two units; give one"
            )
        for other in UNITS:
            if other != unit:
                node[f"{name}_{other}"] = None


def to_steps(config: Any, name: str, *, batch_size: int, examples_per_epoch: int) -> Any:
    """A duration of the config in steps.

    Args:
      config: has the fields of `add_duration`.
      name: path of the duration, such as `total` or `optimizer.drop`.
      batch_size: examples per step.
      examples_per_epoch: size of the training set.

    Returns:
      int, rounded to the nearest and at least 1 for a positive duration; a tuple of
      ints where the config has a tuple; None where no unit is given.

    Raises:
      ConfigError: given in two units, negative, not finite, or 2^31 steps and more.
    """
    *parents, leaf = name.split(".")
    node = config
    for parent in parents:
        node = node[parent]
    given = {unit: node[f"{leaf}_{unit}"] for unit in UNITS}
    given = {unit: value for unit, value in given.items() if value is not None}
    if not given:
        return None
    if len(given) > 1:
        raise ConfigError(f"{name} is given in {' and '.join(given)}; give one")
    ((unit, value),) = given.items()
    examples = {"steps": batch_size, "epochs": examples_per_epoch, "examples": 1}[unit]

    def steps(amount: float) -> int:
        exact = amount * examples / batch_size
        if not 0 <= exact <= COUNT:
            raise ConfigError(
                f"{name}_{unit}={amount}: a number of 0 or more, and at most {COUNT} steps (of "
                f"{batch_size} examples; the training set has {examples_per_epoch})"
            )
        return max(round(exact), 1) if exact > 0 else 0

    return tuple(steps(v) for v in value) if isinstance(value, tuple | list) else steps(value)


def choose_variant(variant: str, variants: Mapping[str, Any]) -> Any:
    """The entry of `variants` called `variant`.

    Raises:
      ConfigError: there is none; the message lists those there are.
    """
    if variant not in variants:
        named = ", ".join(f":{name}" for name in variants if name)
        raise ConfigError(f"no variant :{variant}; there are {named}, or none for the paper's own")
    return variants[variant]
