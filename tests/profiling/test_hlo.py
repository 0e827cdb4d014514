"""Reading compiled programs: small ones, written as the compilers write them, counted by hand."""

from pathlib import Path

import pytest

from avt_jax.profiling import collectives, hlo
from avt_jax.profiling.chips import CHIPS
from avt_jax.profiling.step_cost import estimate, moved_bytes

CHIP = CHIPS["v5e"]


HERE = Path(__file__).parent / "hlo"

# A loop of 5 rounds (its counter goes from 2 to 12 by twos) around one of 3, a conditional, a copy
# without an estimate, one that runs beside, and a product outside of everything.
LOOPS = (HERE / "loops.txt").read_text()


def test_loops_conditionals_and_missing_estimates():
    program = hlo.parse(LOOPS)
    assert program.entry == "main" and program.num_partitions == 4
    times = {one.instruction.name: one.times for one in program.executed}
    assert times["add.3"] == 5 and times["fusion.1"] == 15 and times["last"] == 1
    assert "copy.6" in times and "copy.5" not in times
    assert not program.unknown_loops
    cost = estimate(program, CHIP)
    assert sum(amount.cycles for amount in cost.amounts.values()) == 5 * 10 + 15 * 100 + 70 + 7
    # The last copy has no estimate: what it reads and writes, at the memory's bandwidth.
    without = 2 * 8 * 8 * 4 / CHIP.hbm_bandwidth
    counters = cost.compute_sec - 1627 / CHIP.clock_hz - without
    assert 0 <= counters < 1e-9  # a few bytes each


def test_origins():
    cost = estimate(hlo.parse(LOOPS), CHIP)
    found = {
        (origin.part, origin.stage, origin.kind): amount.cycles
        for origin, amount in cost.amounts.items()
        if amount.cycles
    }
    assert found == {
        ("video encoder", "recomputed", "depthwise convolution"): 1500,
        ("fusion", "forward", "element by element"): 50,
        ("other", "update", "copy, reshape"): 70,
        ("other", "update", "optimiser"): 7,
    }
    assert cost.by(lambda origin: origin.stage)["recomputed"].count == 15


def test_a_loop_of_unknown_length_counts_once():
    text = LOOPS.replace("%twelve = s32[]{:T(128)} constant(12)", "%twelve = s32[] partition-id()")
    program = hlo.parse(text)
    assert {one.instruction.name: one.times for one in program.executed}["fusion.1"] == 3
    assert program.unknown_loops == ["while"]


def test_where_lines_of_callers_are_numbered_from_zero():
    frames = LOOPS.replace("1 {file_location_id=1 parent_frame_id=1}", "1 {file_location_id=1}")
    frames = frames.replace("parent_frame_id=2", "parent_frame_id=1")
    expected = {
        1: ("/x/avt_jax/models/layers/__init__.py", "call", 0),
        2: ("/x/avt_jax/models/kernels/depthwise_conv.py", "depthwise_conv3d", 1),
    }
    assert hlo.parse(frames).frames == hlo.parse(LOOPS).frames == expected


@pytest.mark.parametrize(
    "type,size,in_hbm",
    [
        ("f32[2,3]{1,0}", 24, 24),
        ("(bf16[4]{0:T(256)}, pred[], s32[])", 13, 13),
        ("bf16[7,64,512]{2,1,0:T(8,128)(2,1)S(1)}", 458752, 0),
        ("(f8e4m3fn[5]{0}, u4[3]{0})", 7, 7),
        ("token[]", 0, 0),
    ],
)
def test_bytes_of_a_type(type, size, in_hbm):
    assert hlo.array_bytes(type) == size
    assert hlo.array_bytes(type, hbm_only=True) == in_hbm


SLICES = (HERE / "slices.txt").read_text()


def test_of_an_array_read_or_written_in_part_the_part_counts():
    program = hlo.parse(SLICES)
    sizes = {one.instruction.name: moved_bytes(program, one) for one in program.executed}
    row, number = 64 * 4, 4
    assert sizes["row.2"] == 2 * row + number
    assert sizes["out"] == 2 * row + number


COLLECTIVES = (HERE / "collectives.txt").read_text()


def test_collectives_by_hand():
    found = collectives.find(hlo.parse(COLLECTIVES))
    listed = {(one.kind, one.bytes, one.group, one.times) for one in found}
    assert listed == {
        ("all-gather", 64 * 4, 4, 1),
        ("all-gather", 32 * 4, 4, 1),  # it stands where it starts and where it ends
        ("all-reduce", 4 * 4 + 64 * 4, 16, 1),
        ("collective-permute", 4 * 4, 16, 1),
        ("all-to-all", 64 * 4, 4, 1),
        ("reduce-scatter", 16 * 8 * 4, 16, 1),
        ("all-reduce", 4 * 4, 4, 7),
    }
    totals = collectives.totals(found)
    assert totals["all-reduce"] == collectives.Total(1 + 7, 272 + 7 * 16)
    assert sum(total.count for total in totals.values()) == 13


def test_text_without_a_program():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.parse("HloModule empty")


def test_a_pallas_call_counts_by_what_it_says_of_itself():
    stated = '"cost_estimate": {"flops": 1970000000000, "bytes_accessed": 100}'
    # Its description breaks the line, and what comes after it must not be lost.
    says = 'frontend_attributes={kernel_metadata={\n"xprof_metadata":"{}"\n}}, '
    config = says + f'backend_config={{"custom_call_config": {{{stated}}}}}'
    text = f"""HloModule m
ENTRY %main (x: f32[1000]) -> f32[1000] {{
  %x = f32[1000]{{0}} parameter(0)
  %call = f32[1000]{{0}} custom-call(%x), custom_call_target="tpu_custom_call", {config}
  ROOT %done = f32[1000]{{0}} copy(%call), {{"estimated_cycles":"1500000"}}
}}
"""
    copy_sec = 0.001  # 1.5 million cycles
    cost = estimate(hlo.parse(text), CHIP)
    assert cost.pallas.count == 1 and cost.pallas.bytes == 100
    # 1.97 TFLOP of 197 a second.
    assert cost.compute_sec - copy_sec == pytest.approx(0.01)
    unsaid = estimate(hlo.parse(text.replace(stated, "")), CHIP)
    assert unsaid.compute_sec - copy_sec == pytest.approx(8000 / CHIP.hbm_bandwidth)
    counted = estimate(hlo.parse(text.replace(stated, "")), CHIP, pallas_flops=197e9)
    assert counted.compute_sec - copy_sec == pytest.approx(counted.pallas.seconds)
    assert counted.pallas.seconds == pytest.approx(0.001)
    both = estimate(hlo.parse(text), CHIP, pallas_flops=1.97e12)
    assert both.compute_sec - copy_sec == pytest.approx(0.01)
