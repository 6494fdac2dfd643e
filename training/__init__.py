"""Mesh, optimiser and schedules, train state and step, loop, checkpoints, writers."""

from training.errors import TrainingError
from training.loop import Inputs, Schedule, train
from training.task import (
    Task,
    check_has_checkpoint,
    evaluate_checkpoint,
    initialize_distributed,
    prepare,
)

__all__ = [
    "Inputs",
    "Schedule",
    "Task",
    "TrainingError",
    "check_has_checkpoint",
    "evaluate_checkpoint",
    "initialize_distributed",
    "prepare",
    "train",
]
