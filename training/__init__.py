"""Mesh, optimiser and schedules, train state and step, loop, checkpoints, writers."""

from training.errors import TrainingError
from training.loop import Inputs, Schedule, train
from training.mesh import process_share
from training.optimizer import rates_from_config
from training.task import (
    Task,
    evaluate_checkpoint,
    initialize_distributed,
    prepare,
)

__all__ = [
    "Inputs",
    "Schedule",
    "Task",
    "TrainingError",
    "evaluate_checkpoint",
    "initialize_distributed",
    "prepare",
    "process_share",
    "rates_from_config",
    "train",
]
