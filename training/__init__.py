"""Optimiser and schedules, train state and step, loop, checkpoints, writers, trained networks."""

from training.classes import known_classes
from training.errors import RunError, TrainingError, out_of_memory
from training.evaluating import Split, check_trained, evaluate_trained, write_report
from training.export import export, summary
from training.facts import facts_of_inputs, facts_of_launch
from training.from_config import (
    model_options,
    preprocessing_from_config,
    recipe_from_config,
    schedule_from_config,
    start_from_config,
    task_from_config,
)
from training.initial import normalization_for, open_initial, with_normalization
from training.loop import TrainingData, train
from training.network import model_fields
from training.prediction import class_names_of, predictions_file, predictor
from training.recipe import Recipe
from training.schedule import Schedule
from training.task import Task, make_task
from training.to_config import config_fields, data_fields
from training.trained import Trained, check_classifier
from training.windows import open_classifier, windows_of

__all__ = [
    "Recipe",
    "RunError",
    "Schedule",
    "Split",
    "Task",
    "Trained",
    "TrainingData",
    "TrainingError",
    "check_classifier",
    "check_trained",
    "class_names_of",
    "config_fields",
    "data_fields",
    "evaluate_trained",
    "export",
    "facts_of_inputs",
    "facts_of_launch",
    "known_classes",
    "make_task",
    "model_fields",
    "model_options",
    "normalization_for",
    "open_classifier",
    "open_initial",
    "out_of_memory",
    "predictions_file",
    "predictor",
    "preprocessing_from_config",
    "recipe_from_config",
    "schedule_from_config",
    "start_from_config",
    "summary",
    "task_from_config",
    "train",
    "windows_of",
    "with_normalization",
    "write_report",
]
