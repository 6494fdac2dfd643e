"""The page and the tables are made from the results, and say when they are old."""

import pytest

from claims import registry, report, results
from claims.errors import ClaimError
from tests.conftest import ROOT
from tests.visualization.test_report import Page, check


def test_the_committed_page_and_tables_are_those_of_the_results(tmp_path):
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    (tmp_path / "results.md").write_text(text, encoding="utf-8")
    page, tables = report.write(tmp_path, print)
    stale = "out of date: python -m claims report"
    assert page.read_text() == (ROOT / "docs" / "report.html").read_text(), stale
    assert tables.read_text() == text, stale
    made = Page(page)
    check(made)
    for claim in registry.all_claims():
        assert (claim.id in made.text and claim.id in text) or claim.here is not None
    shown = [claim for claim in registry.all_claims() if results.read(claim)]
    assert shown
    for claim in shown:
        (caption,) = [c for c in made.tables if c.startswith(f"{claim.id}: ")]
        assert len(made.tables[caption]) == 1 + len(claim.arms)
        assert f"`{claim.id}`" in text


def test_results_of_another_version_and_of_no_claim_are_said(tmp_path):
    claim = registry.find("resnet-cost")
    result = results.read(claim) | {"digest": "0" * 12}
    results.write(claim, result, tmp_path / "results")
    (tmp_path / "results" / "resnet-lost.json").write_text("{}")
    (tmp_path / "results" / "._resnet-cost.json").write_bytes(b"\0\5\26\7")
    said = []
    (page,) = report.write(tmp_path / "out", said.append, tmp_path / "results")
    assert any("resnet-cost: made by another version" in line for line in said)
    assert any("resnet-lost.json: of no claim" in line for line in said)
    assert not any("._" in line for line in said)
    assert "made by another version of this claim" in page.read_text()


def test_tables_need_their_marks():
    with pytest.raises(ClaimError, match="without the lines"):
        report.with_tables("nothing", [])
