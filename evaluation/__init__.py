"""Test-time protocols, scores, and metrics of them."""

from evaluation.errors import EvaluationError
from evaluation.evaluate import evaluate, make_step
from evaluation.guesses import guesses
from evaluation.protocols import PROTOCOLS, Protocol, check_protocol, protocol_called
from evaluation.scores import Scores

__all__ = [
    "PROTOCOLS",
    "EvaluationError",
    "Protocol",
    "Scores",
    "check_protocol",
    "evaluate",
    "guesses",
    "make_step",
    "protocol_called",
]
