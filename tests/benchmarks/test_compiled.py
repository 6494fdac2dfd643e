"""Rows of what accelerators' compilers say. The compilers are tested in tests/training."""

import json

import pytest

from benchmarks import compiled, report, workload


@pytest.mark.quick
def test_every_network_of_the_benchmarks_is_compiled_for_both_kinds_once():
    cases = compiled.cases()
    names = [case.name for case in cases]
    assert len(set(names)) == len(names)
    for kind in ("v5e:1", "h100:1"):
        assert {c.network for c in cases if c.accelerator == kind} == set(workload.BATCHES)
    both = {(c.accelerator, c.batch, c.data, c.tower) for c in cases if c.data * c.tower > 1}
    for accelerator, batch, data, tower in both:  # each beside the batch split of as many devices
        assert (accelerator, batch, data * tower, 1) in both


def test_a_row_is_beside_the_one_of_an_earlier_run(tmp_path):
    case = compiled.Case("alexnet", "v5e:1x2", 128, 1, 2)
    found = {
        "platform": "tpu",
        "device": "TPU v5e",
        "estimated_cycles": 5_000_000,
        "estimate": {
            "step_seconds": 0.004,
            "exchange_seconds": 0.002,
            "exchange_seconds_waited_for": 0.001,
            "images_per_second": 32000.0,
        },
        "bytes_per_device": {"temporaries": 2**20, "total": 3 * 2**20},
        "collectives": [{"sent": 30.0}, {"sent": 5.0}],
    }
    first = compiled.row(case, found, None)
    assert first["name"] == "compiled_v5e_1x2_towers_128/alexnet"
    assert (first["ours"], first["ratio"], first["sent_bytes"]) == (5.0, None, 35.0)
    earlier = tmp_path / "before.txt"
    earlier.write_text("a table\n" + json.dumps(first | {"ours": 10.0}) + "\n")
    before = compiled.rows_of(earlier)
    assert compiled.row(case, found, before[case.name])["ratio"] == 2.0
    earlier.write_text('{"broken')
    with pytest.raises(SystemExit, match="not the output of this benchmark"):
        compiled.rows_of(earlier)
    with pytest.raises(SystemExit, match=r"no\.txt"):
        compiled.rows_of(tmp_path / "no.txt")


def test_a_table_of_an_output_that_was_kept(tmp_path):
    kept = tmp_path / "kept.txt"
    rows = [
        {"name": "a/net", "batch": 1024, "ours": 2.5, "ms": {"towers": 3.25}},
        {"name": "b/net", "batch": 128, "ours": 1234.5, "peer": None},
    ]
    kept.write_text("a table\n" + "\n".join(map(json.dumps, rows)) + "\n")
    assert report.markdown(report.read(kept), ["name", "batch", "ours", "ms.towers"]) == (
        "| name | batch | ours | ms.towers |\n|---|---|---|---|\n"
        "| a/net | 1,024 | 2.5 | 3.25 |\n| b/net | 128 | 1,234 | - |"
    )
