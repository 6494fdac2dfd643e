"""Optimiser and schedules, train state and step, loop, checkpoints, writers."""

from training.classes import known_classes
from training.errors import RunError, TrainingError
from training.export import export, summary
from training.facts import facts_of_inputs, facts_of_launch
from training.initial import Initial, initial_weights, normalization_for
from training.loop import Inputs, Schedule, schedule_from_config, train
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
    "evaluate_network",
    "export",
    "facts_of_inputs",
    "facts_of_launch",
    "initial_weights",
    "known_classes",
    "model_fields",
    "model_options",
    "normalization_for",
    "prepare",
    "recipe_from_config",
    "schedule_from_config",
    "summary",
    "train",
]
