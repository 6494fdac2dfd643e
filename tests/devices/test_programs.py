"""What is read from compiled programs, beside hand-written ones and formulas."""

import pytest

from devices.programs import collectives


def test_both_notations_of_groups_and_the_bytes_of_each_operation():
    program = """
      %a = f32[8,4]{1,0} all-gather(%x), channel_id=1, replica_groups={{0,1},{2,3}}, dimensions={0}
      %b = (bf16[6]{0}, f32[]) all-reduce(%y, %z), channel_id=2, replica_groups=[2,2]<=[2,2]T(1,0)
      %c = f32[2]{0} reduce-scatter(%v), channel_id=3, replica_groups=[1,4]<=[4], dimensions={0}
      %d = f32[5]{0} all-reduce(%w), replica_groups={{0,1}}, metadata={op_name="reduce_scatter"}
    """
    gather, both, scatter, stands_for_one = collectives(program, 4)
    assert gather.groups == both_ways([0, 1], [2, 3]) and gather.sent == 8 * 4 * 4 / 2
    assert both.groups == both_ways([0, 2], [1, 3]) and both.elements == (6, 1)
    assert both.sent == 6 * 2 + 4  # twice half of it
    assert scatter.groups == both_ways([0, 1, 2, 3]) and scatter.sent == 2 * 4 * 3
    assert stands_for_one.scatters and stands_for_one.sent == 5 * 4 / 2
    (everyone,) = collectives("%e = f32[3] all-reduce(%w), replica_groups={}, x", 4)
    assert everyone.groups == both_ways([0, 1, 2, 3])
    (turned,) = collectives("%e = f32[3] all-reduce(%w), replica_groups=[4,2]<=[2,2,2]T(0,2,1)", 8)
    assert turned.groups == both_ways([0, 2], [1, 3], [4, 6], [5, 7])
    assert collectives("%f = f32[3] all-reduce-done(%e)", 4) == []
    for unknown in (
        "%e = f32[5] ragged-all-to-all(%w), replica_groups={{0,1}}",
        "%e = f32[5] all-reduce(%w), replica_groups=what, x",
    ):
        with pytest.raises(ValueError, match="unknown form"):
            collectives(unknown, 2)


def both_ways(*groups):
    return frozenset(map(frozenset, groups))
