"""docs/cost.md says what the code says, so that the page cannot go stale unnoticed."""

import importlib
import re
import sys
from pathlib import Path

import pytest
from pictures import has_blank_edge, read_png

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
RERUN = "the page is stale: python benchmarks/cost_table.py"


def rows(first_column):
    """The page's table with this first heading: one {heading: cell} for each row."""
    found, header = [], None
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
        if not line.startswith("|"):
            header = None
        elif header is None:
            header = cells
        elif header[0] == first_column and not cells[0].startswith("---"):
            found.append(dict(zip(header, cells, strict=True)))
    assert found, first_column
    return found


@pytest.fixture(scope="module", name="counts")
def counts_fixture():
    """benchmarks/cost_counts.py, what the page is made from."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield importlib.import_module("cost_counts")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module", name="gflop")
def gflop_fixture(counts):
    """{model: {part: GFLOP}}, analytic."""
    others = ("AVT-B, merged attention", "AVT-B, whole objective")
    found = {name: counts.analytic_gflop(name) for name in counts.SYSTEMS if name not in others}
    # Built from AVT-B's parts: to build the structure of UniFormer-B takes seconds.
    merged = counts.fusion_products("merged", 392, 400) / 1e9
    return found | dict(
        zip(others, (found["AVT-B"] | {"fusion": merged}, found["AVT-B"]), strict=False)
    )


def test_whole_models(counts, gflop):
    printed = {row["model"]: row["GFLOP analytic"] for row in rows("model")}
    by_part = {
        row.pop("XLA (analytic), parameters"): row for row in rows("XLA (analytic), parameters")
    }
    assert list(printed) == list(by_part) == list(counts.SYSTEMS)
    for name in counts.SYSTEMS:
        assert printed[name] == f"{sum(gflop[name].values()):.1f}", RERUN
        for part in ("video encoder", "audio encoder", "fusion"):
            expected = f"({gflop[name][part]:.1f})" if part in gflop[name] else "-"
            assert expected in by_part[name][part], f"{name}, {part}: {RERUN}"


def test_avt_needs_fewer_flops_than_mbt(gflop):
    stated = float(re.search(r"AVT-B needs ([\d.]+) x fewer FLOPs than MBT-B", PAGE)[1])
    row = {row["model"]: row for row in rows("model")}["AVT-B"]
    assert stated == float(row["MBT-B / this"]) >= 1.3
    mbt, avt = (sum(gflop[name].values()) for name in ("MBT-B", "AVT-B"))
    assert mbt / avt == pytest.approx(stated, rel=0.05)


def test_mbt_is_within_a_percent_of_the_original(counts):
    printed = {row["model"]: float(row["GFLOP XLA"]) for row in rows("model")}
    for name, original in counts.ORIGINAL_GFLOP.items():
        assert printed[name] == pytest.approx(original, rel=0.01), name


def test_bottleneck_tokens_and_blocks(counts):
    grid = rows("K")
    assert len(grid) == len(counts.DEPTHS) * len(counts.LENGTHS)
    for row in grid:
        k, length = int(row["K"]), int(row["L"])
        products = counts.fusion_products("bottleneck", 392, 400, k=k, length=length) / 1e9
        assert row["fusion analytic"] == f"{products:.1f}", RERUN


def test_xla_still_counts_the_fusion_so(counts):
    (row,) = (row for row in rows("K") if row["K"] == "1" and row["L"] == "4")
    measured = counts.fusion_flops("bottleneck", 392, 400, k=1) / 1e9
    assert float(row["fusion XLA"]) == pytest.approx(measured, rel=0.005), RERUN


def test_attention_grows_as_the_page_says(counts):
    for n, m in ((40, 40), (160, 40)):
        for kind in ("bottleneck", "merged"):
            curve = counts.pairs_flops(kind, n, m, k=1)
            assert 1 < counts.attention_flops(kind, n, m, k=1) / curve < 1.05


def test_the_picture_is_there():
    (picture,) = re.findall(r"!\[.*\]\((.*)\)", PAGE)
    image_hwc = read_png(ROOT / "docs" / picture)
    assert min(image_hwc.shape[:2]) > 300 and has_blank_edge(image_hwc, width_px=1)
    assert 0.02 < (image_hwc.min(-1) < 0.9).mean() < 0.5, "lines and words on white"
