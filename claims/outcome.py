"""Whether what came out confirms a claim: the rule is the same for all."""

import dataclasses
import math
import statistics as stats
from collections.abc import Mapping, Sequence

from claims.claim import Claim, Expectation, Near, Order, Same, Value

CONFIRMED, REFUTED, UNDECIDED = "confirmed", "not confirmed", "not decided"
# Seeds without which nothing that was trained is decided.
SEEDS = 3
# A distance counts when it is greater than so many times the seeds' standard deviation.
TIMES = 2.0

RULES = (
    "An order of two arms is decided when its sign holds in each of three seeds and the mean "
    "distance is more than twice the spread (the larger of the arms' standard deviations over "
    "seeds) beyond what is asked for; that two arms are the same, when the distance with twice "
    "the spread is within the tolerance, or without it outside; that an arm has the paper's value, "
    "when distance and spread are within the tolerance at the paper's length. A run that diverged "
    "is worse than any other: it counts for the sign, not for the distance. The spread is over "
    "seeds alone: all are tested on the same images."
)
VERSION = 2  # of the rules: results of another are out of date

# Seed -> value.
Values = Mapping[int, Value]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of one expectation.

    Attributes:
      verdict: confirmed, not confirmed or not decided.
      said: why, or the numbers, in words.
      distance: of the two arms, or from the paper's value; None where it is not known.
      spread: the larger of the arms' standard deviations over seeds (of logarithms for ratios).
    """

    verdict: str
    said: str
    distance: float | None = None
    spread: float | None = None


def decide(
    expected: Expectation, values: Mapping[str, Values], claim: Claim, *, whole: bool
) -> Outcome:
    """Decides one expectation, by `RULES`.

    A run that diverged lies above all numbers: it counts for the sign, not for the distance.

    Args:
      expected: one of the claim's.
      values: arm -> its values by seed.
      claim: says the paper's values, and whether anything is trained.
      whole: whether the runs have the paper's length and data.
    """
    needed = SEEDS if claim.trains else 1
    if isinstance(expected, Near):
        return _near(expected, values[expected.arm], claim, needed, whole=whole)
    if isinstance(expected, Same):
        return _same(expected, values, needed)
    return _order(expected, values, needed)


def overall(outcomes: Sequence[Outcome]) -> str:
    """The verdict on a claim: confirmed if all of its expectations are."""
    verdicts = {outcome.verdict for outcome in outcomes}
    return next((v for v in (REFUTED, UNDECIDED) if v in verdicts), CONFIRMED)


def spread(values: Values) -> float:
    """The standard deviation over seeds of what is finite; 0 for fewer than two."""
    numbers = [v.number for v in values.values() if math.isfinite(v.number)]
    return stats.stdev(numbers) if len(numbers) > 1 else 0.0


def mean(values: Values) -> float | None:
    """The mean over seeds; None without any, infinite if a run diverged."""
    return stats.fmean(v.number for v in values.values()) if values else None


def in_words(number: float, sign: str = "") -> str:
    """A number of four digits or less, or a whole one; with a plus where `sign` is one."""
    return f"{number:{sign},.0f}" if abs(number) >= 1e4 else f"{number:{sign}.4g}"


def _diverged(values: Values) -> int:
    return sum(math.isinf(value.number) for value in values.values())


def _few(seeds: int, needed: int) -> Outcome | None:
    return (
        Outcome(UNDECIDED, f"{seeds} of {needed} seeds have been run") if seeds < needed else None
    )


def _order(expected: Order, values: Mapping[str, Values], needed: int) -> Outcome:
    low, high = values[expected.lower], values[expected.higher]
    seeds = sorted(low.keys() & high.keys())
    if few := _few(len(seeds), needed):
        return few
    if expected.ratio:
        low, high = _logarithms(low), _logarithms(high)
    pairs = [(low[seed], high[seed]) for seed in seeds]
    if any(a.at_least and b.at_least for a, b in pairs):
        return Outcome(UNDECIDED, "neither came so far in this length")
    if any(math.isinf(a.number) and math.isinf(b.number) for a, b in pairs):
        return Outcome(UNDECIDED, "both diverged with the same seed")
    gaps = [b.number - a.number for a, b in pairs]
    finite = [gap for gap in gaps if math.isfinite(gap)]
    gap = stats.fmean(finite) if finite else None
    deviation = max(spread(low), spread(high))
    least = expected.least
    if least is None:
        least = 1.0 if expected.ratio else 0.0
    bound = math.log(least) if expected.ratio else least
    shown = None if gap is None else math.exp(gap) if expected.ratio else gap
    begin = "at least " * any(b.at_least for _, b in pairs)
    begin = "at most " if any(a.at_least for a, _ in pairs) else begin
    said = _with_diverged(shown, gaps, expected, begin)
    if not any(a.at_least for a, _ in pairs) and all(g > bound for g in gaps):
        verdict = CONFIRMED
    elif not any(b.at_least for _, b in pairs) and all(g < bound for g in gaps):
        verdict = REFUTED
    else:
        return Outcome(UNDECIDED, f"{said}; the seeds disagree", shown, deviation)
    if gap is not None and abs(gap - bound) <= TIMES * deviation:
        return Outcome(UNDECIDED, f"{said}, within twice the spread", shown, deviation)
    return Outcome(verdict, said, shown, deviation)


def _with_diverged(shown: float | None, gaps: Sequence[float], expected: Order, begin: str) -> str:
    """The distance in words, with how many runs of which arm diverged."""
    said = [] if shown is None else [f"{begin}{in_words(shown)}"]
    for name, infinite in ((expected.lower, -math.inf), (expected.higher, math.inf)):
        if count := gaps.count(infinite):
            said.append(f"{name} diverged in {count} of {len(gaps)} seeds")
    return ", ".join(said)


def _logarithms(values: Values) -> dict[int, Value]:
    """Logarithms; a number of 0 counts as a very small one."""
    return {
        seed: Value(math.log(max(v.number, 1e-12)) if v.number < math.inf else v.number, v.at_least)
        for seed, v in values.items()
    }


def _near(expected: Near, values: Values, claim: Claim, needed: int, *, whole: bool) -> Outcome:
    paper = claim.arm(expected.arm).paper
    assert paper is not None, f"{claim.id}: Near needs the paper's value"
    if few := _few(len(values), needed):
        return few
    if any(value.at_least for value in values.values()):
        return Outcome(UNDECIDED, "a run ended before what it waited for")
    if lost := _diverged(values):
        return Outcome(UNDECIDED, f"{lost} of {len(values)} runs diverged")
    average, deviation = mean(values), spread(values)
    assert average is not None
    distance = average - paper
    said = f"{in_words(distance, '+')} from the paper's {in_words(paper)}"
    if not whole:
        return Outcome(UNDECIDED, f"a shorter length than the paper's; {said}", distance, deviation)
    if max(abs(distance), deviation) <= expected.within:
        return Outcome(CONFIRMED, said, distance, deviation)
    if abs(distance) > expected.within + TIMES * deviation:
        return Outcome(REFUTED, said, distance, deviation)
    return Outcome(UNDECIDED, f"{said}, within twice the spread", distance, deviation)


def _same(expected: Same, values: Mapping[str, Values], needed: int) -> Outcome:
    one, other = values[expected.one], values[expected.other]
    seeds = sorted(one.keys() & other.keys())
    if few := _few(len(seeds), needed):
        return few
    one, other = ({seed: values[seed] for seed in seeds} for values in (one, other))
    if any(value.at_least for values in (one, other) for value in values.values()):
        return Outcome(UNDECIDED, "a run ended before what it waited for")
    lost = _diverged(one), _diverged(other)
    if any(lost):
        verdict = REFUTED if sorted(lost) == [0, len(seeds)] else UNDECIDED
        return Outcome(verdict, f"{lost[0]} and {lost[1]} of {len(seeds)} runs diverged")
    deviation = max(spread(one), spread(other))
    gap = stats.fmean(other[s].number - one[s].number for s in seeds)
    said = f"{in_words(gap, '+')}, tolerance {in_words(expected.within)}"
    if abs(gap) + TIMES * deviation <= expected.within:
        return Outcome(CONFIRMED, said, gap, deviation)
    if abs(gap) - TIMES * deviation > expected.within:
        return Outcome(REFUTED, said, gap, deviation)
    return Outcome(UNDECIDED, f"{said}, within twice the spread", gap, deviation)
