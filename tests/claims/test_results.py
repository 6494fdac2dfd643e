"""What a claim's runs gave, written and read again."""

import dataclasses
import json
import threading

import pytest

from claims import results, running, settings
from claims.errors import ClaimError
from claims.jobs import Place
from claims.measures import (
    epochs_to,
)
from tests.claims.planted import CLAIM, planted


def test_a_claim_whose_runs_are_done_runs_nothing(place, tmp_path):
    planted(place)
    said = []
    assert running.run(CLAIM, place, said.append, where=tmp_path)
    assert said == [f"{CLAIM.id}: confirmed (high rate below low rate: 30)",
                    str(tmp_path / "test-order.json")]  # fmt: skip
    result = json.loads((tmp_path / "test-order.json").read_text())
    high = result["arms"]["high rate"]
    assert high["chosen"] == {"optimizer.learning_rate": 0.02}
    assert high["values"] == {"0": 20, "1": 21, "2": 22} and high["mean"] == 21
    assert high["spread"] == 1 and result["seconds"] == 420
    assert high["curves"]["0"] == {"train": [[0.5, 90], [1.0, 40]]}
    assert result["length"] == "1 epochs, 0.1 of the whole length"
    assert result["versions"] == {"jax": "1"} and result["git_commits"] == [12 * "c"]
    tried = {one["settings"]["optimizer.learning_rate"]: one["value"] for one in high["tried"]}
    assert tried == {0.01: "at least 1", 0.02: pytest.approx(0.9)}
    assert "--config.total_epochs=1.0" in high["commands"][0]
    full = high["full_commands"]
    assert "total_epochs" not in full[0] and "learning_rate" not in full[0]
    assert full[-1] == "# optimizer.learning_rate: one of 0.01, 0.02"
    written = (tmp_path / "test-order.json").stat().st_mtime_ns
    assert running.run(CLAIM, place, said.append, where=tmp_path)
    assert (tmp_path / "test-order.json").stat().st_mtime_ns == written
    assert results.out_of_date(CLAIM, result) == ""
    paper = (dataclasses.replace(CLAIM.arms[0], paper=3.0), CLAIM.arms[1])
    for change in ({"fraction": 0.2}, {"arms": paper}, {"tuned_by": epochs_to(0.4)}):
        other = dataclasses.replace(CLAIM, **change)
        assert "another version of this claim" in results.out_of_date(other, result)


def test_a_result_of_more_runs_is_kept(place, tmp_path):
    """As on a fresh clone, which has results but no runs."""
    planted(place)
    assert running.run(CLAIM, place, lambda line: None, where=tmp_path)
    written = (tmp_path / "test-order.json").read_text()
    said, stop = [], threading.Event()
    stop.set()
    elsewhere = Place(tmp_path / "elsewhere", None)
    assert not running.run(CLAIM, elsewhere, said.append, stop=stop, where=tmp_path)
    assert said[-1].endswith("kept, for it is of 7 runs and this one of 0")
    assert (tmp_path / "test-order.json").read_text() == written


def test_a_changed_recipe_is_told_from_a_later_field(monkeypatch):
    """A result is out of date when its config says something else, not when all configs grow."""
    before, read, usual = results.digest(CLAIM), settings.fields_of, settings.usual()

    def grown(changes):
        monkeypatch.setattr(settings, "fields_of", lambda *asked: {**read(*asked), **changes})
        return results.digest(CLAIM)

    monkeypatch.setattr(settings, "usual", lambda: {**usual, "later": 1})
    assert grown({"later": 1}) == before == grown({"data.threads": 7})
    others = ({"later": 2}, {"optimizer.momentum": 0.5}, {"evaluation.protocol": "ten_view"})
    assert before not in map(grown, others)
    result = {"digest": grown({}), "defaults": {"later": 1, "gone": 3}}
    assert results.out_of_date(CLAIM, result) == ""
    monkeypatch.setattr(settings, "usual", lambda: {**usual, "later": 2})
    assert "another version" in results.out_of_date(CLAIM, {**result, "digest": grown({})})


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"claim": "test-order", "arms": []}', '{"claim": "test-order", "arms": {}}'],
)
def test_a_damaged_result_is_said(tmp_path, text):
    results.path_of(CLAIM, full=False, results=tmp_path).write_text(text)
    with pytest.raises(ClaimError, match="damaged"):
        results.read(CLAIM, results=tmp_path)
