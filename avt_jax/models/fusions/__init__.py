"""Fusions by name. A new fusion is a module here and a line below."""

from __future__ import annotations

from avt_jax.models.fusions import bottleneck, cross_attention, merged
from avt_jax.models.fusions.interface import FusionModule

FUSIONS: dict[str, FusionModule] = {
    "bottleneck": bottleneck,
    "merged": merged,
    "cross_attention": cross_attention,
}
