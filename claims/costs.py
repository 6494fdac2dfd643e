"""What claims cost, in FLOP: 6 x multiply-adds x images, of every arm and seed."""

import functools
import json
from pathlib import Path

from claims import jobs, settings
from claims.claim import Arm, Claim, Fields
from claims.errors import ClaimError

# Network, as `network_key` writes it -> multiply-adds of an image, forward. JAX counts them
# (`python -m claims.costs`), and listings read them.
COSTS = Path(__file__).with_name("costs.json")
# FLOP/s that two CPU cores reach, for hours in listings.
TWO_CORES = 1e11


def hours(flop: float) -> float:
    """Hours on two CPU cores."""
    return flop / TWO_CORES / 3600


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
    if claim.waits or (claim.here is None and not full):
        return 0.0
    runs: dict[str, float] = {}
    for arm in claim.arms:
        if not _trains(claim, arm):
            continue
        jobs_of_arm = [job for _, job in jobs.tunings(claim, arm, full=full)] if arm.tune else []
        jobs_of_arm += [jobs.job_of(claim, arm, seed, full=full) for seed in range(claim.seeds)]
        if arm.tune:  # the seeds after the first run with what was chosen
            jobs_of_arm = jobs_of_arm[: -claim.seeds] + jobs_of_arm[-claim.seeds + 1 :]
        for job in jobs.every(jobs_of_arm):
            if job.trains:
                runs[job.name] = _of_run(job.source, job.overrides)
    return sum(runs.values())


def _trains(claim: Claim, arm: Arm) -> bool:
    return any(step.mode == "train" for step in claim.measure_of(arm).steps)


def _of_run(source: str, overrides: Fields) -> float:
    fields = settings.fields_of(source, overrides)
    images = settings.epochs(fields) * settings.examples_of(fields)
    return 6.0 * multiply_adds().get(network_key(source, overrides), 0) * images


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


if __name__ == "__main__":
    from claims.registry import all_claims

    counted = {key: count(*network) for key, network in sorted(networks(all_claims()).items())}
    COSTS.write_text(json.dumps(counted, indent=1) + "\n")
