"""The registry is complete, and every command in it is one that main.py takes."""

import json
import re
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from claims import costs, jobs, listing, registry, settings
from claims.claim import Near, Order, Same
from claims.errors import ClaimError
from configs import fields
from configs.papers import PUBLISHED
from input_pipeline.from_config import choices
from tests.conftest import ROOT

CLAIMS = {claim.id: claim for claim in registry.all_claims()}


@pytest.mark.quick
def test_ids_are_unique_and_begin_with_their_file():
    papers = registry.all_papers()
    ids = [claim.id for paper in papers for claim in paper.claims]
    assert len(ids) == len(set(ids))
    for paper in papers:
        start = paper.name.replace("_", "-")
        assert all(claim.id.startswith(f"{start}-") for claim in paper.claims)
        assert re.search(r"\d{4}$|lectures$", paper.title), paper.title


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_claims_are_whole(claim):
    assert claim.section and claim.statement.rstrip().endswith(".")
    names = [arm.name for arm in claim.arms]
    assert len(names) == len(set(names))
    for expected in claim.expected:
        match expected:
            case Order(lower, higher):
                assert {lower, higher} <= set(names)
            case Same(one, other):
                assert {one, other} <= set(names)
            case Near(arm):
                assert claim.arm(arm).paper is not None
    assert claim.expected or claim.waits or "does not say" in claim.statement
    assert claim.here is not None or claim.checked
    assert not (claim.waits and claim.here is not None)
    assert 0 < claim.fraction <= 1
    for path in re.findall(r"\b(?:tests|docs)/[\w/.]*\w", claim.checked):
        assert (ROOT / path).exists(), path


def test_every_row_of_the_published_tables_has_a_claim():
    rows = [claim for claim in CLAIMS.values() if claim.published]
    found = {tuple((f"{claim.source}:").split(":")[:2]) for claim in rows}
    assert found == PUBLISHED.keys() and len(rows) == len(PUBLISHED)


def test_every_ablation_of_the_readme_has_a_claim():
    readme = (ROOT / "README.md").read_text()
    table = readme.split("| without | override | cost then |")[1].split("\n\n")[0]
    overrides = re.findall(r"`--config\.([\w.]+)=([\w]+)`", table)
    configs = re.findall(r"`--config=configs/(\w+)\.py:(\w+)`", table)
    assert len(overrides) > 8 and configs
    arms = [
        (claim.source_of(arm), {k: settings.text(v) for k, v in arm.overrides.items()})
        for claim in CLAIMS.values()
        for arm in claim.arms
    ]
    for path, value in overrides:
        value = "0.0" if value == "0" else value
        assert any(made.get(path) == value for source, made in arms if "alexnet" in source), path
    for name, variant in configs:
        assert any(source == f"{name}:{variant}" for source, _ in arms)


def all_jobs():
    """Every job of seed 0, in full and here."""
    for claim in CLAIMS.values():
        for arm in claim.arms if not claim.waits else ():
            for full in (True, False):
                if full or claim.here is not None:
                    yield from jobs.every([jobs.job_of(claim, arm, 0, full=full)])


def test_every_override_is_a_field_and_in_its_range():
    for job in all_jobs():
        written = settings.fields_of(job.source, {})
        network = job.overrides.get("model.name", written["model.name"])
        for path, value in job.overrides.items():
            assert path in written, (job.source, path)
            read = fields.read(settings.text(value), fields.kind_of(path, network))
            assert fields.fault(path, read, network) is None, (job.source, path)


def test_every_choice_of_crops_and_normalisation_is_one_that_the_pipeline_takes():
    seen = set()
    for job in all_jobs():
        data = nested(settings.fields_of(job.source, job.overrides))["data"]
        if (text := json.dumps(data, sort_keys=True)) not in seen:
            seen.add(text)
            choices(ConfigDict(data))
    assert len(seen) > 30


@pytest.mark.slow
def test_every_command_is_one_that_main_takes(monkeypatch):
    monkeypatch.chdir(ROOT)
    for job in all_jobs():
        exact = settings.resolved(job.source, job.overrides)
        for step in job.steps:
            told = [flag.removeprefix("--config.").split("=") for flag in step.flags if step.mode]
            if told:
                settings.resolved(job.source, {**job.overrides, **dict(told)})
        exact.pop("model.image_size", None)  # follows from data.crop
        light = settings.fields_of(job.source, job.overrides)
        assert settings.changed(exact, nested(light)) == []


def nested(flat):
    made = {}
    for path, value in flat.items():
        *groups, name = path.split(".")
        node = made
        for group in groups:
            node = node.setdefault(group, {})
        node[name] = list(value) if isinstance(value, tuple) else value
    return made


def test_costs_are_known_for_every_network():
    needed = costs.networks(list(CLAIMS.values()))
    assert needed.keys() == costs.multiply_adds().keys(), "python -m claims.costs"


@pytest.mark.parametrize("claim", ["alexnet-relu", "lenet5-error"])
def test_costs_are_what_jax_counts(claim):
    for key, network in costs.networks([CLAIMS[claim]]).items():
        assert costs.multiply_adds()[key] == costs.count(*network)


@pytest.mark.slow
def test_all_costs_are_what_jax_counts():
    for key, network in costs.networks(list(CLAIMS.values())).items():
        assert costs.multiply_adds()[key] == costs.count(*network), key


def test_cost_of_a_claim_by_hand():
    """AlexNet: 90 epochs of ImageNet, 724,406,816 multiply-adds, three seeds."""
    by_hand = 3 * 6 * 724_406_816 * 1_281_167 * 90
    assert costs.of_claim(CLAIMS["alexnet-error"], full=True) == pytest.approx(by_hand, rel=1e-12)
    # Three rates of each neuron with seed 0; two more seeds of what was chosen.
    four_layer = 6 * 12_298_240 * 45_000 * 40
    assert costs.of_claim(CLAIMS["alexnet-relu"]) == pytest.approx(10 * four_layer, rel=1e-12)


def test_an_epoch_of_some_classes_has_their_share_of_the_examples():
    half = {"data.classes": (0, 1, 2, 3, 4)}
    of = settings.fields_of("cifar10:resnet20", half)
    assert settings.examples_of(of) == 22_500 and settings.epochs(of) == 64_000 * 128 / 22_500
    few = settings.fields_of("cifar10:resnet20", {**half, "data.train_examples": 1000})
    assert settings.examples_of(few) == 1000


def test_an_unknown_id_is_answered_with_the_nearest():
    with pytest.raises(ClaimError, match="did you mean alexnet-overlap"):
        registry.find("alexnet-overlaps")
    with pytest.raises(ClaimError, match="python -m claims list"):
        registry.find("zzzzzz")
    with pytest.raises(ClaimError, match="there are lenet5, alexnet"):
        registry.chosen_papers("alexnets")


def test_a_listing_names_every_claim_without_jax():
    script = (
        "import sys; from claims.__main__ import main; code = main(['list']);"
        "assert not {'jax', 'tensorflow', 'matplotlib'} & set(sys.modules); sys.exit(code)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert all(re.search(rf"^{id} ", shown.stdout, re.MULTILINE) for id in CLAIMS)


def test_everything_about_a_claim():
    said = listing.whole(CLAIMS["alexnet-overlap"])
    assert "--config.data.name=cifar10" in said and "paper: 41.06%" in said
    assert "--config=configs/alexnet.py --config.model.pool_window=2 --config.seed=0 --con" in said
    assert "waits for" in listing.whole(CLAIMS["alexnet-six-conv"])
