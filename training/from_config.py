"""A config's fields as dataclasses. They are read here, once, and nowhere after.

Each function takes `to_steps`, the path of a duration in the config, such as `optimizer.drop`,
to steps, where the config has durations.
"""

from collections.abc import Callable
from typing import Any

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
    """Name and options of the network of a config's fields `model`."""
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


def task_from_config(config: Any, num_classes: int) -> Task:
    """The network and the mesh of a config; allocates nothing.

    Args:
      config: `model`, `mesh`, `data` and `compute_dtype` are read.
      num_classes: of the dataset.

    Raises:
      TrainingError: options that the network does not take, or too few classes.
      DeviceError: devices that the mesh does not fit.
    """
    name, options = model_options(config.model)
    chosen = options["num_classes"]
    if chosen is not None and chosen < num_classes:
        raise TrainingError(
            f"model.num_classes={chosen}, but the dataset has {num_classes} classes"
        )
    options["num_classes"] = chosen or num_classes
    return make_task(
        name,
        options,
        preprocessing_from_config(config),
        data=config.mesh.data,
        tower=config.mesh.tower,
        dtype=config.compute_dtype,
    )


def recipe_from_config(config: Any, task: Task, to_steps: ToSteps) -> Recipe:
    """What an update does.

    Args:
      config: `seed`, `batch_size`, `gradient_accumulation`, `nonfinite`, `batch_norm`, `loss`
        and `optimizer` are read.
      task: what is trained.
      to_steps: see above.

    Raises:
      TrainingError: fields that contradict one another, the mesh or the network.
    """
    optimizer, names = config.optimizer, parameter_names(task.network.per_tower)
    rates = _rates(optimizer, to_steps)
    rates_by_parameter(rates, names)  # groups that match nothing
    micro_batches = config.gradient_accumulation
    check_batch_size(config.batch_size, task.mesh, micro_batches)
    group = config.batch_norm.group
    if micro_batches == 1 and group >= config.batch_size:
        group = 0  # all there is, without a name for it that other meshes must divide
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
        rubbish_penalty=config.loss.rubbish_penalty,
        max_filter_rms=optimizer.max_filter_rms,
        statistics_group=group,
        frozen=frozen_names(
            names, task.network.layers, optimizer.frozen.split(","), optimizer.train_last
        ),
        average=_average(optimizer, to_steps),
        skip_nonfinite=config.nonfinite == "skip",
    )


def schedule_from_config(config: Any, task: Task, to_steps: ToSteps) -> Schedule:
    """When things happen.

    Args:
      config: `total_*`, `log_every_*`, `evaluate_every_*`, `checkpoint_every_*`,
        `checkpoint_keep`, `profile_steps`, `batch_norm.recompute_examples`, `batch_size` and
        `optimizer` are read.
      task: what is trained.
      to_steps: see above.

    Raises:
      TrainingError: nothing to train, or fields that contradict one another.
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
        # A run of a few steps does not end in hours of this.
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
    """The common rate first, then those of the groups."""
    drops = to_steps("optimizer.drop") or ()
    warmup = {
        "warmup": to_steps("optimizer.warmup") or 0,
        "warmup_factor": optimizer.warmup_factor,
    }
    rates = [Rate("", optimizer.learning_rate, drops, optimizer.drop_factor, **warmup)]
    for name in optimizer.groups:
        group = optimizer.groups[name]
        own = to_steps(f"optimizer.groups.{name}.drop")
        rates.append(
            Rate(
                group.match,
                optimizer.learning_rate * group.multiplier,
                drops if own is None else own,
                optimizer.drop_factor,
                plateau=own is None,
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
