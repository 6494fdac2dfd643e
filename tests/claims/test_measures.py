"""Measures on planted curves, and decisions on planted values."""

import json
import math

import pytest

from claims import claim as claims
from claims import measures, outcome
from claims.claim import Arm, Claim, Near, Order, Same, Value
from claims.measures import Finished
from claims.outcome import CONFIRMED, REFUTED, UNDECIDED, decide
from claims.papers import lectures

pytestmark = pytest.mark.quick


def planted(tmp_path, train=(), validation=(), **outputs):
    lines = [
        {"step": n, "epoch": epoch, "split": split, "top1_error": error, "loss": 2 * error}
        for split, points in (("train", train), ("validation", validation))
        for n, (epoch, error) in enumerate(points)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"cut')
    for name, output in outputs.items():
        (tmp_path / f"claims-{name}.txt").write_text(output)
    return Finished(tmp_path)


FALLING = [(1, 0.9), (2, 0.5), (3, 0.2), (4, 0.3)]


@pytest.mark.parametrize(
    "level, expected",
    [
        (0.25, Value(2 + 0.25 / 0.3)),
        (0.5, Value(2.0)),
        (0.95, Value(1.0)),
        (0.1, Value(4.0, at_least=True)),
    ],
)
def test_epochs_to_an_error(tmp_path, level, expected):
    run = planted(tmp_path, FALLING)
    assert measures.epochs_to(level).read(run) == pytest.approx(expected)
    (step,) = measures.epochs_to(level, ends=True).steps
    assert step.enough(run) is not expected.at_least


def test_epochs_to_a_loss_and_the_last_values(tmp_path):
    run = planted(tmp_path, FALLING, [(2, 0.6), (4, 0.45)])
    assert measures.epochs_to_loss(1.0).read(run) == Value(2.0)
    assert measures.TRAINING_ERROR.read(run).number == pytest.approx(30)
    assert measures.VALIDATION_ERROR.read(run).number == pytest.approx(45)


def evaluated(tmp_path, **found):
    """A run with what its evaluations printed: of a step's name, error and loss."""
    said = {
        name.replace("__", "-"): json.dumps(
            {"protocol": "x", "top1_error": error, "top5_error": error / 4, "loss": 2 * error}
        )
        for name, error in found.items()
    }
    return planted(
        tmp_path, **{name: f"[]\n{text}\nW0000 warning\n" for name, text in said.items()}
    )


def test_errors_are_those_of_their_own_evaluation(tmp_path):
    """Whatever else a run that is shared has been evaluated by, and in any order."""
    run = evaluated(
        tmp_path, evaluate=0.4, evaluate__ten_view=0.3, evaluate__dense__256__384=0.2,
        evaluate__center_crop__30_masks=0.25,
    )  # fmt: skip
    assert measures.TEST_ERROR.read(run) == Value(40)
    assert measures.test_error(top5=True).read(run) == Value(10)
    assert measures.test_error("ten_view").read(run) == Value(30)
    dense = measures.test_error("dense", scales=(256, 384))
    assert dense.read(run) == Value(20)
    assert dense.steps[-1].flags == (
        "--config.evaluation.protocol=dense", "--config.evaluation.scales=(256,384,)",
    )  # fmt: skip
    masks = measures.test_error("center_crop", masks=30)
    assert masks.read(run) == Value(25)
    assert "--config.evaluation.dropout_masks=30" in masks.steps[-1].flags
    for absent in (measures.test_error("dense"), measures.test_error("center_crop", masks=31)):
        with pytest.raises(
            LookupError, match=f"claims-{absent.steps[-1].name}.txt has no top1_error"
        ):
            absent.read(run)


def test_overfitting_is_of_one_network_on_two_splits(tmp_path):
    run = evaluated(tmp_path, evaluate__center_crop=0.45, evaluate__center_crop__train=0.25)
    gap = measures.overfitting("top1_error")
    assert gap.read(run).number == pytest.approx(20) and gap.unit == "%"
    assert measures.overfitting("loss").read(run).number == pytest.approx(0.4)
    assert measures.evaluated_training_error().read(run) == Value(25)
    assert "--config.evaluation.split=train" in gap.steps[1].flags


def test_what_tools_print(tmp_path):
    run = planted(
        tmp_path,
        summary="fc  Dense\n\nparameters        269,722\nmultiply-adds     40,551,040\n",
        responses="run conv1 0.5\nrun conv2 1.5e+00\n/tmp/run/pictures/responses.png\n",
        gradients="step 1 conv1 5\nstep 9 conv1 0.001\nstep 9 fc 0.1\nx.png\n",
        ensemble='x\n{"mean": {"top1_error": 0.25}}\nW0000 a warning\n',
    )
    assert measures.PARAMETERS.read(run) == Value(269_722)
    assert measures.MULTIPLY_ADDS.read(run) == Value(40_551_040)
    assert measures.RESPONSE_DEVIATION.read(run) == Value(1.0)
    assert measures.first_gradient_share().read(run).number == pytest.approx(-2)
    assert measures.ENSEMBLE_ERROR.read(run) == Value(25)


def claim_of(*expected, measure=measures.TEST_ERROR):
    arms = (Arm("a", paper=10.0), Arm("b"))
    return Claim("x-y", "1", "Said.", "alexnet", arms, measure, expected)


def decided(expected, a, b=(), *, whole=True, **options):
    values = {
        name: {n: v if isinstance(v, Value) else Value(v) for n, v in enumerate(numbers)}
        for name, numbers in (("a", a), ("b", b))
    }
    return decide(expected, values, claim_of(expected, **options), whole=whole)


@pytest.mark.parametrize(
    "a, b, verdict",
    [
        ((1, 1.1, 0.9), (3, 3.1, 2.9), CONFIRMED),
        ((3, 3.1, 2.9), (1, 1.1, 0.9), REFUTED),
        ((1, 2, 3), (2, 3, 4), UNDECIDED),  # the sign holds; within twice the spread
        ((1, 1, 1), (3, 3, 0.5), UNDECIDED),  # the sign does not hold
        ((1, 1), (3, 3), UNDECIDED),  # two seeds
        ((1, 1, 1), (Value(4, at_least=True),) * 3, CONFIRMED),
        ((Value(4, at_least=True),) * 3, (1, 1, 1), REFUTED),
        ((Value(4, at_least=True),) * 3, (9, 9, 9), UNDECIDED),  # a may be above 9 too
        ((Value(4, at_least=True),) * 3, (Value(4, at_least=True),) * 3, UNDECIDED),
        ((1, 1.1, 0.9), (math.inf,) * 3, CONFIRMED),  # b diverged
        ((1, 1.1, 0.9), (math.inf, 3, 3.1), CONFIRMED),
        ((1, 1.5, 2), (math.inf, 1.51, 2.01), UNDECIDED),  # those that did not: within the spread
        ((1, math.inf, 2), (math.inf, 1.5, 2), UNDECIDED),
        ((math.inf, math.inf, 2.5), (1, 1, 1), REFUTED),
        ((math.inf,) * 3, (math.inf,) * 3, UNDECIDED),
    ],
)
def test_an_order(a, b, verdict):
    found = decided(Order("a", "b"), a, b)
    assert found.verdict == verdict
    assert found.distance is None or math.isfinite(found.distance)


def test_divergence_is_counted():
    said = decided(Order("a", "b"), (1, 1.1, 0.9), (math.inf, 3, 3.1)).said
    assert said == "2.05, b diverged in 1 of 3 seeds"
    for expected in (Near("a", within=1), Same("a", "b", within=1)):
        found = decided(expected, (10, math.inf, 10), (10, 10, 10))
        assert found.verdict == UNDECIDED and "1 " in found.said and found.distance is None
    assert decided(Same("a", "b", within=1), (math.inf,) * 3, (1, 1, 1)).verdict == REFUTED
    assert decided(Same("a", "b", within=1), (math.inf,) * 4, (1, 1, 1)).verdict == REFUTED


def test_bounds_are_said_and_decide_nothing_alike():
    ten = (Value(10, at_least=True),) * 3
    assert decided(Order("a", "b"), (1, 1, 1), ten).said == "at least 9"
    assert decided(Order("a", "b"), ten, (1, 1, 1)).said == "at most -9"
    assert decided(Same("a", "b", within=1), ten, ten).verdict == UNDECIDED
    assert decided(Near("a", within=1), ten).verdict == UNDECIDED


@pytest.mark.parametrize(
    "last, failed",
    [
        ("====== 43 passed in 9.5s ======", 0),
        ("= 2 failed, 41 passed, 1 warning in 9s =", 2),
        ("== 40 passed, 3 errors in 2s ==", 3),
        ("/usr/bin/python: No module named pytest", None),
    ],
)
def test_gradient_checks_count_what_did_not_pass(tmp_path, last, failed):
    run = planted(tmp_path, gradient_checks=f"FAILED a::b - 3 failed\n{last}\n")
    if failed is None:
        with pytest.raises(LookupError, match="No module named pytest"):
            lectures.FAILED.read(run)
    else:
        assert lectures.FAILED.read(run) == Value(failed)


def test_a_ratio_has_to_be_above_its_least():
    six = decided(Order("a", "b", ratio=True, least=2), (1, 1.1, 0.9), (6, 6.5, 5.5))
    assert six.verdict == CONFIRMED and six.distance == pytest.approx(6, rel=0.05)
    small = decided(Order("a", "b", ratio=True, least=2), (1, 1.01, 0.99), (1.5, 1.51, 1.49))
    assert small.verdict == REFUTED


@pytest.mark.parametrize(
    "a, whole, verdict",
    [
        ((10.1, 10.2, 10.0), True, CONFIRMED),
        ((10.1, 10.2, 10.0), False, UNDECIDED),
        ((15, 15.1, 14.9), True, REFUTED),
        ((8, 12, 11.5), True, UNDECIDED),
        ((5, 10, 15.1), True, UNDECIDED),  # the mean is near, the seeds are not
        ((10.1,), True, UNDECIDED),
    ],
)
def test_near_the_papers_value(a, whole, verdict):
    assert decided(Near("a", within=0.3), a, whole=whole).verdict == verdict


@pytest.mark.parametrize(
    "b, verdict",
    [((10.2, 10.1, 10.3), CONFIRMED), ((14, 14.1, 13.9), REFUTED), ((9, 11, 12), UNDECIDED)],
)
def test_the_same(b, verdict):
    assert decided(Same("a", "b", within=1), (10, 10.1, 10.2), b).verdict == verdict


def test_what_is_not_trained_needs_one_run():
    found = decided(Order("a", "b"), (1,), (2,), measure=measures.PARAMETERS)
    assert found.verdict == CONFIRMED


def test_a_claim_is_confirmed_by_all_of_its_expectations():
    verdicts = [outcome.Outcome(v, "") for v in (CONFIRMED, UNDECIDED, REFUTED)]
    assert outcome.overall(verdicts) == REFUTED
    assert outcome.overall(verdicts[:2]) == UNDECIDED
    assert outcome.overall(verdicts[:1]) == CONFIRMED


def test_values_are_of_the_claim_itself():
    assert claims.Claim("x", "1", "s", "alexnet", (), measures.PARAMETERS, ()).trains is False
