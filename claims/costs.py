"""What claims cost, in FLOP: 6 x multiply-adds x images, of every arm and seed."""

import functools
import json
from pathlib import Path

from claims import jobs, settings
from claims.claim import Arm, Claim, Fields
from claims.errors import ClaimError
from claims.jobs import Job

# Network, as `network_key` writes it -> multiply-adds of an image, forward. JAX counts them
# (`python -m claims.costs`), and listings read them.
COSTS = Path(__file__).with_name("costs.json")
# FLOP/s that two CPU cores reach, and the seconds of an image where small networks stay far below
# it, on small images: of 7,031 steps of alexnet-cifar10 and 36,875 of lenet5-mnist (their cards).
TWO_CORES = 1e11
SECONDS = {"alexnet": 0.0035, "zfnet": 0.0035, "lenet5": 0.0007}


@functools.cache
def multiply_adds() -> dict[str, int]:
    """Multiply-adds of all networks of the registry."""
    try:
        found: dict[str, int] = json.loads(COSTS.read_text())
    except (OSError, ValueError) as error:
        raise ClaimError(f"{COSTS}: cannot be read ({error}); python -m claims.costs") from error
    return found


def network_key(source: str, overrides: Fields) -> str:
    """What of a config decides multiply-adds: the arguments of its network and its images."""
    these = {
        path: value
        for path, value in sorted(overrides.items())
        if path.startswith("model.") or path == "data.crop"
    }
    return " ".join(settings.arguments(source, these))


def networks(claims: list[Claim]) -> dict[str, tuple[str, Fields]]:
    """The networks of claims by their keys, as (source, overrides)."""
    found: dict[str, tuple[str, Fields]] = {}
    for claim in claims:
        for arm in claim.arms if not claim.waits else ():
            for full in (True, False):
                if (full or claim.here is not None) and _trains(claim, arm):
                    overrides = jobs.overrides_of(claim, arm, full=full)
                    source = claim.source_of(arm)
                    found[network_key(source, overrides)] = (source, overrides)
    return found


def of_claim(claim: Claim, *, full: bool = False) -> float:
    """FLOP of all arms and seeds of a claim; 0 where it cannot be run.

    Args:
      claim: the claim.
      full: at the paper's data and length; else as it is run here.
    """
    return sum(_flop(job) for job in _trainings(claim, full=full))


def hours(claim: Claim, *, full: bool = False) -> float:
    """What `of_claim` takes on two CPU cores, roughly."""
    return sum(_seconds(job) for job in _trainings(claim, full=full)) / 3600


def _trainings(claim: Claim, *, full: bool) -> list[Job]:
    """All runs of a claim that train a network, each once."""
    if claim.waits or (claim.here is None and not full):
        return []
    planned: list[Job] = []
    for arm in claim.arms:
        if not _trains(claim, arm):
            continue
        if arm.tune:  # seed 0 runs with every choice, the others with what is chosen
            planned += [job for _, job in jobs.tunings(claim, arm, full=full)]
        first = 1 if arm.tune else 0
        planned += [jobs.job_of(claim, arm, n, full=full) for n in range(first, claim.seeds)]
    return [job for job in jobs.every(planned) if job.trains]


def _trains(claim: Claim, arm: Arm) -> bool:
    return any(step.mode == "train" for step in claim.measure_of(arm).steps)


def _images(job: Job) -> float:
    fields = job.fields()
    return settings.epochs(fields) * settings.examples_of(fields)


def _flop(job: Job) -> float:
    key = network_key(job.source, job.overrides)
    return 6.0 * multiply_adds().get(key, 0) * _images(job)


def _seconds(job: Job) -> float:
    large = job.fields()["data.name"].startswith("imagenet")
    an_image = 0.0 if large else SECONDS.get(job.source.partition(":")[0], 0.0)
    return max(_flop(job) / TWO_CORES, an_image * _images(job))


def count(source: str, overrides: Fields) -> int:
    """Multiply-adds of a config's network, counted by JAX."""
    from absl import flags
    from flax import nnx

    import training
    import vision_models
    from configs import command_line

    config, *rest = settings.arguments(source, overrides)
    path = config.removeprefix("--config=")
    parsed = command_line.parse(
        ["claims", f"--config={settings.ROOT / path}", *rest], flags.FlagValues()
    )
    assert parsed is not None, "there is a --config"
    model = parsed.config.model.to_dict()
    fields = training.model_fields(model, parsed.overrides, parsed.written.model.name)
    if parsed.renamed:
        command_line.set_model(parsed.config, fields)
    name, options = training.model_options(parsed.config.model)
    made = nnx.eval_shape(lambda: vision_models.create(name, rngs=nnx.Rngs(0), **options))
    return vision_models.multiply_adds(made)


if __name__ == "__main__":  # counts networks that are new, which takes a second each
    from claims.registry import all_claims

    known = multiply_adds() if COSTS.exists() else {}
    counted = {
        name: known[name] if name in known else count(*network)
        for name, network in sorted(networks(all_claims()).items())
    }
    COSTS.write_text(json.dumps(counted, indent=1) + "\n")
