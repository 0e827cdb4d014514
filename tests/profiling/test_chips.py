"""Chips, grids, and what collectives take on them, by hand."""

import math

import pytest

from avt_jax.errors import UserError
from avt_jax.profiling.chips import CHIPS, GIB, HOP_SEC, Topology
from avt_jax.profiling.collectives import Collective


def test_the_chips_are_consistent():
    for name, chip in CHIPS.items():
        assert chip.name == name
        # Matrix units of 128 x 128 or 256 x 256 do a power of two of operations a cycle.
        power = math.log2(chip.peak_flops / chip.clock_hz)
        assert power == pytest.approx(round(power), abs=0.01)
        assert 15 * GIB < chip.hbm_bytes < 96 * GIB
        assert 150 < chip.peak_flops / chip.hbm_bandwidth < 600


@pytest.mark.parametrize(
    "name,chips", [("v5e:1x1", 1), ("v5e:4x4", 16), ("v6e:16x16", 256), ("v5p:2x2x2", 8)]
)
def test_topologies(name, chips):
    found = Topology.of(name)
    assert found.num_chips == chips and found.chip is CHIPS[name.split(":")[0]]


@pytest.mark.parametrize(
    "name,message",
    [
        ("v5e", "is no topology"),
        ("v5e:4x", "is no topology"),
        ("v5e:0x4", "is no topology"),
        ("v5:4x4", "'v5' is not known"),
        ("v5e:2x2x2", "has 2 sizes, not 3"),
        ("v5p:4x4", "has 3 sizes, not 2"),
    ],
)
def test_no_such_topology(name, message):
    with pytest.raises(UserError, match=message) as error:
        Topology.of(name)
    assert "such as v5e:4x4" in str(error.value)


def test_which_axes_a_group_lies_along():
    assert Topology.of("v5e:4x8").axes_of(32) == (8, 4)
    assert Topology.of("v5e:4x8").axes_of(8) == (8,)
    assert Topology.of("v5e:4x8").axes_of(4) == (4,)
    assert Topology.of("v5p:2x2x1").axes_of(4) == (2, 2)


def seconds(kind, size, group, topology, times=1):
    return Collective(kind, size, group, times, "").seconds(Topology.of(topology))


def test_large_collectives_take_what_the_links_need():
    size = 1_600_000_000
    # 4 x 4 chips of a v5e are no ring: one link of 45 GB/s along each of two axes.
    gather = size * 15 / 16 / (2 * 45e9)
    assert seconds("all-gather", size, 16, "v5e:4x4") == pytest.approx(gather)
    assert seconds("reduce-scatter", size, 16, "v5e:4x4") == pytest.approx(gather)
    assert seconds("all-reduce", size, 16, "v5e:4x4") == pytest.approx(2 * gather)
    # 16 x 16 are: two links along each axis.
    assert seconds("all-gather", size, 256, "v5e:16x16") == pytest.approx(
        size * 255 / 256 / (4 * 45e9)
    )
    # Half of what 16 chips hold crosses the middle, in two directions, over 4 links each.
    assert seconds("all-to-all", size, 16, "v5e:4x4") == pytest.approx(16 * size / 4 / (4 * 45e9))
    assert seconds("collective-permute", size, 16, "v5e:4x4") == pytest.approx(size / 45e9)


def test_small_collectives_take_what_the_way_does():
    assert seconds("all-reduce", 4, 16, "v5e:4x4", times=10) == pytest.approx(10 * 2 * 6 * HOP_SEC)
    assert seconds("all-gather", 4, 256, "v5e:16x16") == pytest.approx(16 * HOP_SEC)
    assert seconds("collective-permute", 4, 16, "v5e:4x4") == pytest.approx(HOP_SEC)
    assert seconds("all-reduce", 4, 1, "v5e:4x4") == 0
