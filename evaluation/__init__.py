"""Metrics and test-time protocols."""

from evaluation.evaluate import Evaluator, evaluate
from evaluation.protocols import PROTOCOLS, views

__all__ = ["PROTOCOLS", "Evaluator", "evaluate", "views"]
