"""Test-time protocols, the scores that they give, and metrics computed from these."""

from evaluation.errors import EvaluationError
from evaluation.evaluate import evaluate
from evaluation.guesses import guesses
from evaluation.masks import Masks
from evaluation.objective import CLASSES, Objective
from evaluation.protocols import (
    PROTOCOLS,
    Images,
    Protocol,
    check_objective,
    check_protocol,
    protocol_called,
    training_protocol,
)
from evaluation.scores import Scores
from evaluation.steps import check_network, make_steps

__all__ = [
    "CLASSES",
    "PROTOCOLS",
    "EvaluationError",
    "Images",
    "Masks",
    "Objective",
    "Protocol",
    "Scores",
    "check_network",
    "check_objective",
    "check_protocol",
    "evaluate",
    "guesses",
    "make_steps",
    "protocol_called",
    "training_protocol",
]
