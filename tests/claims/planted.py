"""Runs of claims as they leave them, made without training."""

import json
import math

from claims import jobs, progress, settings
from claims.claim import Arm, Claim, Order, Step
from claims.measures import TEST_ERROR, epochs_to, evaluating

# A process that ends at once.
NAME = Step("name", module="platform", flags=())
EVALUATE = evaluating()


def job(*steps, source="alexnet:digits", overrides=None):
    return jobs.make(source, overrides or {}, steps)


CLAIM = Claim(
    "test-order", "1", "Said.", "alexnet:digits",
    (Arm("high rate", tune={"optimizer.learning_rate": (0.01, 0.02)}),
     Arm("low rate", {"optimizer.learning_rate": 0.001})),
    TEST_ERROR, (Order("high rate", "low rate"),), fraction=0.1, tuned_by=epochs_to(0.5),
)  # fmt: skip


def plant(place, job, error, reached=0.6):
    """A finished run: what main.py and the mark leave, with errors that are told."""
    directory = job.directory(place)
    directory.mkdir(parents=True)
    fields = settings.resolved(job.source, job.overrides)
    (directory / "config.json").write_text(
        json.dumps({"config": fields, "versions": {"jax": "1"}, "git_commit": "c" * 40})
    )
    points = [(0.5, 0.9), (1.0, reached)]
    train = [
        {"split": "train", "epoch": epoch, "step": n, "top1_error": e, "loss": 1.0}
        for n, (epoch, e) in enumerate(points)
    ]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in train))
    evaluation = {"protocol": "center_crop", "top1_error": error, "top5_error": 0.0}
    (directory / "claims-evaluate.txt").write_text(json.dumps(evaluation) + "\na warning\n")
    mark = {"done": ["train", "evaluate"], "diverged": math.isinf(error), "seconds": 60.0}
    (directory / progress.MARK).write_text(json.dumps(mark))


def planted(place):
    (_, first), (_, second) = jobs.tunings(CLAIM, CLAIM.arms[0])
    plant(place, first, 0.3, reached=0.6)
    plant(place, second, 0.2, reached=0.4)
    for seed in (1, 2):
        chosen = {"optimizer.learning_rate": 0.02}
        plant(place, jobs.job_of(CLAIM, CLAIM.arms[0], seed, chosen), 0.2 + seed / 100)
    for seed in range(3):
        plant(place, jobs.job_of(CLAIM, CLAIM.arms[1], seed), 0.5 + seed / 100)
