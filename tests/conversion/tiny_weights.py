"""Converted weights of the golden files' models."""

import dataclasses

from avt_jax import conversion
from avt_jax.conversion.store import Converted
from avt_jax.models.encoders.ast import ASTConfig
from avt_jax.models.encoders.uniformer import UniFormerConfig

AST_TINY = ASTConfig(dim=64, depth=3, num_heads=4, stride=10)
UNIFORMER_TINY = UniFormerConfig(depth=(1, 2, 2, 1), dim=(16, 32, 64, 64), head_dim=16)


def converted(kind, config, state_dict, mel_bins=128):
    _, variables, left_out = conversion.convert(kind, state_dict, config)
    grid = conversion.KINDS[kind].grid(config, state_dict, mel_bins)
    source = {"file": "weights.pth", "sha256": ""}
    return Converted(kind, dataclasses.asdict(config), grid, variables, source, left_out)
