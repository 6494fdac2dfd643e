"""What is read from compiled programs, beside hand-written ones and formulas."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from devices.programs import Program, collectives


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


# In the forms of XLA's TPU and GPU compilers, shortened.
PROGRAM = """HloModule jit_step, is_scheduled=true

%fused (p0: f32[4,8], p1: s32[]) -> f32[8] {
  %p0 = f32[4,8]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  ROOT %cut = f32[8]{0} dynamic-slice(%p0, %p1), dynamic_slice_sizes={1,8}
}

%written (q0: f32[4,8], q1: f32[1,8], q2: s32[]) -> f32[4,8] {
  %q0 = f32[4,8]{1,0} parameter(0)
  %q1 = f32[1,8]{1,0} parameter(1)
  %q2 = s32[] parameter(2)
  ROOT %put = f32[4,8]{1,0} dynamic-update-slice(%q0, %q1, %q2, %q2)
}

%inside (r: f32[8]) -> f32[8] {
  %r = f32[8]{0} parameter(0)
  ROOT %sum.1 = f32[8]{0} all-reduce(%r), replica_groups={{0,1}}, to_apply=%add
}

%body (s: (s32[], f32[8])) -> (s32[], f32[8]) {
  %s = (s32[], f32[8]{0}) parameter(0)
  %x = f32[8]{0} get-tuple-element(%s), index=1
  %k = f32[8]{0} fusion(%x), kind=kLoop, calls=%plain, backend_config={"estimated_cycles":"100"}
  ROOT %out = (s32[], f32[8]{0}) tuple(%x, %k)
}

%condition (t: (s32[], f32[8])) -> pred[] {
  %t = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %limit = s32[]{:T(128)} constant(7)
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

%outer (u: (s32[], f32[8])) -> (s32[], f32[8]) {
  %u = (s32[], f32[8]{0}) parameter(0)
  ROOT %w = (s32[], f32[8]{0}) while(%u), condition=%condition, body=%body
}

%few (v: f32[8]) -> f32[8] {
  ROOT %v = f32[8]{0} parameter(0)
}

%more (y: f32[8]) -> f32[8] {
  %y = f32[8]{0} parameter(0)
  ROOT %z = f32[8]{0} negate(%y), backend_config={"estimated_cycles":"9"}
}

ENTRY %main (a: f32[4,8], b: s32[], c: f32[8]) -> f32[8] {
  %a = f32[4,8]{1,0} parameter(0)
  %b = s32[] parameter(1)
  %c = f32[8]{0:T(128)S(1)} parameter(2)
  %one = f32[8]{0} fusion(%a, %b), kind=kLoop, calls=%fused, metadata={op_name="jit(step)/jvp(conv1)/add"}
  %start = (f32[8]{0}, f32[16]{0}) all-gather-start(%one), replica_groups=[2,2]<=[4], dimensions={0}
  %two = f32[4,8]{1,0} fusion(%a, %one, %b), kind=kLoop, calls=%written
  %done = f32[16]{0} all-gather-done(%start)
  %init = (s32[], f32[8]{0}) tuple(%b, %one)
  %loops = (s32[], f32[8]{0}) while(%init), condition=%c2, body=%outer, metadata={op_name="jit(step)/input/scan"}, backend_config={"known_trip_count":{"n":"3"}}
  %three = f32[8]{0} fusion(%one), kind=kCustom, calls=%inside
  %begun = ((f32[8]{0}), f32[8]{0}, u32[]{:S(2)}) async-start(%three), calls=%inside
  %ended = f32[8]{0} async-done(%begun), calls=%inside
  %chosen = f32[8]{0} conditional(%b, %one, %one), branch_computations={%few, %more}
  %mine = f32[8]{0:T(128)S(1)} custom-call(%c), custom_call_target="tpu_custom_call", backend_config={"x":1}
  %yours = f32[8]{0} custom-call(%one), custom_call_target="tpu_custom_call", backend_config={"cost_estimate":{"flops":"640","transcendentals":"0","bytes_accessed":"99"}}
  %name = f32[16]{0} custom-call(%one, %one), custom_call_target="ConcatBitcast"
  ROOT %pairs = f32[8]{0} collective-permute(%one), source_target_pairs={{0,1},{1,0}}
}
"""  # noqa: E501


def test_everything_that_runs_is_counted_as_often_as_it_runs():
    program = Program(PROGRAM, 4)
    found = {operation.name: operation for operation in program.run()}
    # What is cut from an array moves, and what is written into one; not the array.
    assert found["one"].bytes == 2 * 8 * 4 + 4 and found["one"].path.endswith("conv1)/add")
    assert found["two"].bytes == 2 * 8 * 4 + 4
    # Seven times, by the condition, in a loop that runs three times.
    assert found["k"].times == 21 and found["k"].cycles == 100 and found["less"].times == 21
    assert program.loops_of_unknown_length == 0
    # Where its instructions have no path of their own, the loop's is theirs.
    assert found["k"].path == "jit(step)/input/scan" and found["z"].path == ""
    # The larger branch of the two.
    assert found["z"].cycles == 9
    # A kernel by hand: what its author says, else its arrays, also those in the chip's memory.
    assert found["mine"].hand_written and found["mine"].bytes == 2 * 8 * 4
    assert found["yours"].flops == 640 and found["yours"].bytes == 99
    # Names for memory are nothing that runs.
    assert not {"a", "done.1", "init", "x", "begun", "ended", "name"} & found.keys()
    assert Program(PROGRAM.replace("direction=LT", "direction=GT"), 4).run()


def test_exchanges_beside_other_work_fused_and_in_pairs():
    operations = Program(PROGRAM, 4).run()
    exchanges = {o.name: o for o in operations if o.collective is not None}
    assert list(exchanges) == ["done", "sum.1", "pairs"]
    gather = exchanges["done"]
    assert gather.collective.bytes == 16 * 4 and gather.collective.sent == 32
    assert gather.collective.groups == both_ways([0, 1], [2, 3])
    # It began after the first operation, and the second ran beside it.
    assert operations[gather.begun].name == "two"
    assert exchanges["pairs"].collective.sent == 8 * 4
    names = [o.name for o in operations]
    assert names.count("sum.1") == 2  # fused into a kernel, and begun apart


def test_loops_of_unknown_length_count_once():
    program = Program(PROGRAM.replace("constant(7)", "parameter(3)"), 4)
    assert {o.name: o.times for o in program.run()}["k"] == 3
    assert program.loops_of_unknown_length == 1


def test_products_of_libraries_and_kernels():
    """FLOP of cuDNN's three calls for one convolution, and of products, by the formula."""
    maps, kernels, gradient = (
        "f16[8,9,9,6]{3,2,1,0}",
        "f16[10,3,3,6]{3,2,1,0}",
        "f16[8,7,7,10]{3,2,1,0}",
    )
    labels = 'dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$conv'
    flops = 2 * (8 * 7 * 7) * 10 * (3 * 3 * 6)
    text = f"""
      %x = {maps} parameter(0)
      %k = {kernels} parameter(1)
      %g = {gradient} parameter(2)
      %f = ({gradient}, u8[0]{{0}}) custom-call(%x, %k), {labels}BiasActivationForward"
      %i = ({maps}, u8[0]{{0}}) custom-call(%g, %k), {labels}BackwardInput"
      %w = ({kernels}, u8[0]{{0}}) custom-call(%x, %g), {labels}BackwardFilter"
      %a = f32[4,5]{{1,0}} parameter(3)
      %b = f32[5,6]{{1,0}} parameter(4)
      %d = f32[4,6]{{1,0}} dot(%a, %b), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
      %m = (f32[4,6]{{1,0}}, s8[0]{{0}}) custom-call(%a, %b), custom_call_target="__cublas$gemm", backend_config={{"dot_dimension_numbers":{{"lhs_contracting_dimensions":["1"]}}}}
    """  # noqa: E501
    found = {operation.name: operation for operation in Program(text, 1).run()}
    assert [found[name].flops for name in "fiw"] == [flops] * 3
    assert found["f"].bytes == 2 * (8 * 81 * 6 + 10 * 54 + 8 * 49 * 10)
    assert found["d"].flops == found["m"].flops == 2 * 4 * 6 * 5


@pytest.mark.quick
def test_a_compiled_loop_of_exchanges():
    """Of a real program: a sum over four devices in a loop of five, among pairs."""
    mesh = jax.make_mesh((2, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)

    def work(x):
        def body(x, _):
            return jnp.sin(lax.psum(x, "b")), None

        return lax.scan(body, x, None, length=5)[0]

    work = jax.shard_map(work, mesh=mesh, in_specs=P("a"), out_specs=P("a"), check_vma=False)
    text = jax.jit(work).lower(jax.ShapeDtypeStruct((6, 8), jnp.float32)).compile().as_text()
    (total,) = collectives(text, 4)
    assert total.operation == "all-reduce" and total.times == 5
    assert total.bytes == total.sent == 3 * 8 * 4
    assert total.groups == both_ways([0, 1], [2, 3])
