"""A config's fields as dataclasses; no module after this one reads the config.

`to_steps` is a function from a duration's path in the config, such as `optimizer.drop`, to steps.
"""

from collections.abc import Callable, Sequence
from typing import Any

from evaluation import CLASSES, Objective
from evaluation.localization import regression
from evaluation.preprocessing import Preprocessing
from training.classes import Start
from training.errors import TrainingError
from training.optimizer import Average, Momentum, Plateau, Rate, rates_by_parameter
from training.recipe import Recipe, check_batch_size, check_group, frozen_names
from training.schedule import Schedule
from training.task import Task, make_task
from vision_models.functional import parameter_names

ToSteps = Callable[[str], Any]


def model_options(model: Any) -> tuple[str, dict[str, Any]]:
    """Name and options of the network that a config's fields `model` describe."""
    options = {name: _plain(model[name]) for name in model}
    return options.pop("name"), options


def _plain(value: Any) -> Any:
    return {k: value[k] for k in value} if hasattr(value, "keys") else value


def start_from_config(config: Any) -> Start:
    """What a network starts from: `init_from`, `init_preprocessing` and `init_head`."""
    return Start(config.init_from, config.init_preprocessing, config.init_head == "new")


def preprocessing_from_config(config: Any) -> Preprocessing:
    """How images are cropped, from the fields `data`."""
    data = config.data
    return Preprocessing(data.resize, data.crop, data.pad, aligned_mean=data.mean == "image")


def task_from_config(config: Any, num_classes: int, devices: list[Any] | None = None) -> Task:
    """The network and the mesh of a config; allocates nothing.

    Args:
      config: `model`, `mesh`, `data` and `compute_dtype` are read.
      num_classes: the dataset's.
      devices: see `make_task`.

    Raises:
      TrainingError: the network does not take the options, or has too few classes.
      DeviceError: the mesh does not fit the devices.
    """
    name, options = model_options(config.model)
    objective = objective_from_config(config)
    logits = options["num_classes"]
    if logits is not None and logits < num_classes:
        raise TrainingError(
            f"model.num_classes={logits}, but the dataset has {num_classes} classes"
        )
    options["num_classes"] = objective.outputs(logits or num_classes)
    return make_task(
        name,
        options,
        preprocessing_from_config(config),
        data=config.mesh.data,
        tower=config.mesh.tower,
        dtype=config.compute_dtype,
        devices=devices,
        objective=objective,
    )


def objective_from_config(config: Any) -> Objective:
    """What the network of a config learns: classes, or boxes.

    Args:
      config: `loss` and `data` are read.

    Raises:
      TrainingError: fields contradict one another.
    """
    name, loss = config.loss.boxes, config.loss
    if name == "none":
        return CLASSES
    if not config.data.boxes.count:
        raise TrainingError(
            f"loss.boxes={name} needs the boxes of each example: --config.data.boxes.count=32, or "
            "fewer"
        )
    for field, none in (("label_smoothing", 0.0), ("rubbish_penalty", None)):
        if loss[field] != none:
            raise TrainingError(f"loss.{field} is of classes; loss.boxes={name} learns boxes")
    of = preprocessing_from_config(config)
    square = of.resize + 2 * of.pad
    crop = ((square - of.crop) // 2 / square, of.crop / square)
    return regression.objective(name, crop)


def recipe_from_config(
    config: Any,
    task: Task,
    to_steps: ToSteps,
    class_counts: Callable[[], Sequence[int]] = tuple,
) -> Recipe:
    """The recipe of a config: everything that an update depends on.

    Args:
      config: `seed`, `batch_size`, `gradient_accumulation`, `nonfinite`, `batch_norm`, `loss`,
        `optimizer` and `data.boxes` are read.
      task: what is trained.
      to_steps: see above.
      class_counts: gives the number of training examples of each class; called where
        `loss.class_weights` asks for it.

    Raises:
      TrainingError: fields contradict one another, the mesh or the network.
    """
    optimizer, names = config.optimizer, parameter_names(task.network.per_tower)
    rates = _rates(optimizer, to_steps)
    rates_by_parameter(rates, names)  # raises on a group that matches nothing
    micro_batches = config.gradient_accumulation
    check_batch_size(config.batch_size, task.mesh, micro_batches)
    group = config.batch_norm.group
    if micro_batches == 1 and group >= config.batch_size:
        group = 0  # the whole batch as well, without a condition on the mesh
    check_group(group, config.batch_size, task.mesh, micro_batches)
    return Recipe(
        rates=rates,
        batch_size=config.batch_size,
        momentum=_momentum(optimizer),
        plateau=Plateau(optimizer.drop_factor, optimizer.plateau_patience, optimizer.plateau_drops),
        micro_batches=micro_batches,
        seed=config.seed,
        dtype=task.dtype,
        aligned_mean=task.preprocessing.aligned_mean,
        auxiliary_weight=config.loss.auxiliary_weight,
        label_smoothing=config.loss.label_smoothing,
        rubbish_penalty=config.loss.rubbish_penalty,
        max_gradient_norm=optimizer.max_gradient_norm,
        max_filter_rms=optimizer.max_filter_rms,
        statistics_group=group,
        frozen=frozen_names(
            names, task.network.layers, optimizer.frozen.split(","), optimizer.train_last
        ),
        average=_average(optimizer, to_steps),
        objective=task.objective,
        boxes=config.data.boxes.count,
        skip_nonfinite=config.nonfinite == "skip",
        class_weights=None
        if config.loss.class_weights == "none"
        else balancing_weights(class_counts(), task.options["num_classes"]),
    )


def balancing_weights(counts: Sequence[int], num_classes: int) -> tuple[float, ...]:
    """Weights that give every class that has examples the same part in the loss.

    In inverse proportion to the examples of the class, and 1 on average over all examples.

    Args:
      counts: training examples of each class.
      num_classes: outputs of the network; those without examples get 0.
    """
    present = [count for count in counts if count]
    each = sum(present) / max(len(present), 1)
    found = [float(each / count) if count else 0.0 for count in counts]
    return tuple(found + [0.0] * (num_classes - len(found)))


def schedule_from_config(config: Any, task: Task, to_steps: ToSteps) -> Schedule:
    """The schedule of a config: when things happen in a run.

    Args:
      config: `total_*`, `log_every_*`, `evaluate_every_*`, `checkpoint_every_*`,
        `checkpoint_keep`, `profile_steps`, `batch_norm.recompute_examples`, `batch_size` and
        `optimizer` are read.
      task: what is trained.
      to_steps: see above.

    Raises:
      TrainingError: nothing is to be trained, or fields contradict one another.
    """
    optimizer, recompute = config.optimizer, config.batch_norm.recompute_examples
    total = to_steps("total")
    if not total:
        raise TrainingError("nothing to train: set --config.total_epochs or --config.total_steps")
    schedule = Schedule(
        total=total,
        log_every=to_steps("log_every"),
        evaluate_every=to_steps("evaluate_every"),
        checkpoint_every=to_steps("checkpoint_every"),
        checkpoint_keep=config.checkpoint_keep,
        profile=tuple(config.profile_steps),
        # A run of a few steps must not end with hours of recomputation.
        recompute=min(-(-recompute // config.batch_size), total),
    )
    if optimizer.plateau_patience and not schedule.evaluate_every:
        raise TrainingError(
            f"optimizer.plateau_patience={optimizer.plateau_patience} needs evaluations: set "
            "evaluate_every_epochs, or plateau_patience=0 and the moments of drop_epochs"
        )
    if recompute and not task.network.has_statistics:
        raise TrainingError(
            f"batch_norm.recompute_examples={recompute}: this network has no BatchNorm; choose 0"
        )
    start = to_steps("optimizer.average_from") or 0
    if optimizer.average != "none" and start >= schedule.total:
        raise TrainingError(
            f"optimizer.average_from: step {start} is not before the end, step {schedule.total}"
        )
    profile = schedule.profile
    if profile and profile[0] > profile[1]:
        raise TrainingError(
            f"profile_steps={profile}: give the first and the last step, such as (10,20)"
        )
    return schedule


def _rates(optimizer: Any, to_steps: ToSteps) -> tuple[Rate, ...]:
    """The common rate, then the rates of the groups."""
    drops = to_steps("optimizer.drop") or ()
    warmup = {
        "warmup": to_steps("optimizer.warmup") or 0,
        "warmup_factor": optimizer.warmup_factor,
    }
    rates = [Rate("", optimizer.learning_rate, drops, optimizer.drop_factor, **warmup)]
    for name in optimizer.groups:
        group = optimizer.groups[name]
        group_drops = to_steps(f"optimizer.groups.{name}.drop")
        rates.append(
            Rate(
                group.match,
                optimizer.learning_rate * group.multiplier,
                drops if group_drops is None else group_drops,
                optimizer.drop_factor,
                plateau=group_drops is None,
                freeze=to_steps(f"optimizer.groups.{name}.freeze"),
                **warmup,
            )
        )
    return tuple(rates)


def _momentum(optimizer: Any) -> Momentum:
    groups = [optimizer.groups[name] for name in optimizer.groups]
    return Momentum(
        optimizer.momentum,
        optimizer.weight_decay,
        optimizer.decay_biases,
        tuple((g.match, g.weight_decay) for g in groups if g.weight_decay is not None),
    )


def _average(optimizer: Any, to_steps: ToSteps) -> Average | None:
    if optimizer.average == "none":
        return None
    start = to_steps("optimizer.average_from") or 0
    return Average(optimizer.average, optimizer.average_decay, start)
