"""What a claim is made of: arms that are run, a measure, and what is expected of it."""

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

# Path of a config's field -> value.
Fields = Mapping[str, Any]

NONE: Fields = types.MappingProxyType({})


class Value(NamedTuple):
    """A measured number.

    Attributes:
      number: in the measure's unit; infinite for a run that diverged.
      at_least: whether it is a lower bound, since the run ended before what it waited for.
    """

    number: float
    at_least: bool = False


@dataclasses.dataclass(frozen=True)
class Step:
    """A process of a run.

    Attributes:
      name: unique within a run; names the file of its output.
      mode: of main.py; "" for a module.
      module: run by `python -m`, if there is no mode.
      flags: further arguments. `{run}` stands for the run's directory, `{data_dir}` for the
        dataset's, and `{members}`, alone, for the directories of all runs that the run builds on.
      enough: of the run so far (`measures.Finished`), whether the process may end; None for at
        its own end.
      codes: exit codes, besides 0, of a process that has done its work.
    """

    name: str
    mode: str = ""
    module: str = ""
    flags: tuple[str, ...] = ()
    enough: Callable[[Any], bool] | None = dataclasses.field(
        default=None, compare=False, repr=False
    )
    codes: tuple[int, ...] = dataclasses.field(default=(), repr=False)


TRAIN = Step("train", "train")
SUMMARY = Step("summary", "summary")


@dataclasses.dataclass(frozen=True)
class Measure:
    """A number of a run.

    Attributes:
      name: in words, as the heading of a column.
      unit: "%", "epochs", or "" for none.
      read: a finished run (`measures.Finished`) -> the number; raises LookupError where the run
        did not write it.
      steps: the processes after which it can be read.
    """

    name: str
    unit: str
    read: Callable[[Any], Value]
    steps: tuple[Step, ...] = (TRAIN,)


@dataclasses.dataclass(frozen=True)
class Arm:
    """One side of a comparison: a run for each seed.

    Attributes:
      name: unique within the claim.
      overrides: fields in which this arm differs from the claim's others.
      source: `CONFIG[:VARIANT]`, in place of the claim's.
      paper: the measure in the paper; None where it has none.
      measure: in place of the claim's.
      tune: field -> values to choose from, by the claim's `tuned_by` with seed 0.
      starts_from: name of the arm whose run of the same seed it starts from (`init_from`).
      members: how many runs of different seeds are averaged; `measure` reads the average.
      here: overrides of this arm that only the run here has.
    """

    name: str
    overrides: Fields = dataclasses.field(default_factory=dict)
    source: str = ""
    paper: float | None = None
    measure: Measure | None = None
    tune: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    starts_from: str = ""
    members: int = 1
    here: Fields = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Order:
    """One arm's measure lies below another's.

    Attributes:
      lower, higher: names of arms.
      paper: their distance in the paper, a difference or a ratio; None where it gives none.
      ratio: whether the distance is higher / lower instead of higher - lower.
      least: the distance has to be greater than it; None for 0 (of ratios 1).
    """

    lower: str
    higher: str
    paper: float | None = None
    ratio: bool = False
    least: float | None = None


@dataclasses.dataclass(frozen=True)
class Near:
    """An arm's measure has the paper's value, at the paper's length.

    Attributes:
      arm: its name; the value is its `paper`.
      within: tolerance in the measure's unit.
    """

    arm: str
    within: float


@dataclasses.dataclass(frozen=True)
class Same:
    """Two arms differ by no more than `within`, in the measure's unit."""

    one: str
    other: str
    within: float


Expectation = Order | Near | Same


@dataclasses.dataclass(frozen=True)
class Claim:
    """What a paper claims, and how it is tested.

    Attributes:
      id: unique; begins with the name of the paper's file.
      section: of the paper, with table or figure.
      statement: what is claimed, in one or two sentences.
      source: `CONFIG[:VARIANT]` of the arms.
      arms: what is run.
      measure: what is read from each run.
      expected: what the claim says of the arms' measures.
      common: overrides of all arms, in the paper's experiment and here.
      here: overrides of what is run here alone, such as a smaller dataset; None where nothing
        is, and the claim waits for the paper's data.
      fraction: length of the runs here, as a share of the config's; moments at which the rate
        changes move with it.
      tuned_by: chooses between the values of `Arm.tune`; the lowest wins.
      seeds: runs of each arm.
      checked: what was checked in place of the claim, where `here` is None.
      note: in what the runs differ from the paper, besides the length.
      waits: what has to be there before it can be run at all, besides its data; "" for nothing.
      published: whether it is a row of `configs.papers.PUBLISHED`.
    """

    id: str
    section: str
    statement: str
    source: str
    arms: tuple[Arm, ...]
    measure: Measure
    expected: tuple[Expectation, ...]
    common: Fields = dataclasses.field(default_factory=dict)
    here: Fields | None = dataclasses.field(default_factory=dict)
    fraction: float = 1.0
    tuned_by: Measure | None = None
    seeds: int = 3
    checked: str = ""
    note: str = ""
    waits: str = ""
    published: bool = False

    def arm(self, name: str) -> Arm:
        """The arm of this name."""
        return next(arm for arm in self.arms if arm.name == name)

    def measure_of(self, arm: Arm) -> Measure:
        """What is read from the runs of an arm."""
        return arm.measure or self.measure

    def source_of(self, arm: Arm) -> str:
        """The config of an arm."""
        return arm.source or self.source

    @property
    def trains(self) -> bool:
        """Whether any run trains a network."""
        steps = [step for arm in self.arms for step in self.measure_of(arm).steps]
        return any(step.mode == "train" for step in steps)


@dataclasses.dataclass(frozen=True)
class Paper:
    """A file of the registry.

    Attributes:
      name: of the file, without its suffix.
      title: authors, title and year.
      claims: in the paper's order.
    """

    name: str
    title: str
    claims: tuple[Claim, ...]
