"""Mesh, optimiser and schedules, train state and step, loop, checkpoints, writers."""

from training.classes import known_classes
from training.distributed import (
    agree_on_inputs,
    ending_with_the_others,
    finish,
    join_processes,
    launch_from,
    leave,
    tell_of_failure,
)
from training.errors import RunError, TrainingError
from training.export import export, summary
from training.initial import Initial, initial_weights, normalization_for
from training.loop import Inputs, Schedule, schedule_from_config, train
from training.mesh import check_platform, process_share
from training.network import model_fields
from training.recipe import Recipe, recipe_from_config
from training.task import (
    Task,
    evaluate_network,
    model_options,
    prepare,
)

__all__ = [
    "Initial",
    "Inputs",
    "Recipe",
    "RunError",
    "Schedule",
    "Task",
    "TrainingError",
    "agree_on_inputs",
    "check_platform",
    "ending_with_the_others",
    "evaluate_network",
    "export",
    "finish",
    "initial_weights",
    "join_processes",
    "known_classes",
    "launch_from",
    "leave",
    "model_fields",
    "model_options",
    "normalization_for",
    "prepare",
    "process_share",
    "recipe_from_config",
    "schedule_from_config",
    "summary",
    "tell_of_failure",
    "train",
]
