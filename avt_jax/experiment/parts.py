"""A config as checked dataclasses, and back: every block with its defaults, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from avt_jax.audio.activity import ActivityConfig
from avt_jax.audio.masking import MaskingConfig
from avt_jax.conversion.initial import InitConfig
from avt_jax.data.loading.config import DataConfig
from avt_jax.errors import UserError, nearest
from avt_jax.losses.objective import ObjectiveConfig, saved_weights
from avt_jax.models import build
from avt_jax.settings import Block
from avt_jax.training.loop import TrainConfig
from avt_jax.training.mesh import MeshConfig
from avt_jax.training.mixing import MixingConfig
from avt_jax.training.optimizer import OptimizerConfig

# The blocks but `model`, whose fields depend on the model that it names.
BLOCKS: dict[str, type[Block]] = {
    "data": DataConfig,
    "init": InitConfig,
    "losses": ObjectiveConfig,
    "masking": MaskingConfig,
    "activity": ActivityConfig,
    "mixing": MixingConfig,
    "optimizer": OptimizerConfig,
    "train": TrainConfig,
    "mesh": MeshConfig,
}


@dataclass(frozen=True)
class Parts:
    """A config, checked.

    Attributes:
      seed: of everything random, 0 or more.
      model: the block `model` with all its fields, as `models.build.resolve` gives it.
    """

    seed: int
    data: DataConfig
    model: dict[str, Any]
    init: InitConfig
    losses: ObjectiveConfig
    masking: MaskingConfig
    activity: ActivityConfig
    mixing: MixingConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    mesh: MeshConfig

    def to_dict(self) -> dict[str, Any]:
        """The config with every field of every block, as `parse` reads it."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: value.to_dict() if isinstance(value, Block) else value
            for name, value in values.items()
        }

    def blocks(self) -> list[tuple[str, Block]]:
        """(place in the config, block) of all blocks, in the order of the config."""
        found: list[tuple[str, Block]] = []
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "model":
                found += build.blocks(value)
            elif isinstance(value, Block):
                found.append((value.where, value))
        return found


def default_config() -> dict[str, Any]:
    """Every field with its default: AVT with UniFormer-S and AST-Base, K = L = 4.

    The encoders' blocks name their variants and what differs from them, so that a recipe may name
    another variant; the rest of their fields follows from it.
    """
    made = {name: block().to_dict() for name, block in BLOCKS.items()}
    return {"seed": 0, "data": made.pop("data"), "model": build.recipe_block(), **made}


def parse(config: Mapping[str, Any]) -> Parts:
    """Checks a config and fills in what it leaves out.

    Args:
      config: {block: {field: value}} and "seed"; a block or field that is missing has its default.

    Raises:
      UserError: an unknown block or field (the nearest one is named), a bad value, or two values
        that exclude each other.
    """
    known = [field.name for field in fields(Parts)]
    for name in config:
        if name not in known:
            raise UserError(
                f"config.{name} is not a block{nearest(name, known)}; they are {', '.join(known)}."
            )
    seed = config.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise UserError(f"config.seed is {seed!r}; give a whole number of 0 or more.")
    made: dict[str, Any] = {name: block.of(config.get(name, {})) for name, block in BLOCKS.items()}
    if made["data"].is_tokens and (alpha := made["mixing"].cutmix_alpha):
        raise UserError(
            f"config.mixing.cutmix_alpha is {alpha:g}; cached tokens have no picture to cut a box "
            "from, give 0."
        )
    return Parts(seed=seed, model=build.resolve(config.get("model", {})), **made)


def parse_saved(config: Mapping[str, Any]) -> Parts:
    """As `parse`, for a config that an earlier run, perhaps of an earlier version, has saved.

    A loss that it does not name did not exist then: its weight was 0.
    """
    losses = dict(config.get("losses", {}))
    if "weights" in losses:
        losses["weights"] = saved_weights(losses["weights"])
    return parse({**config, "losses": losses})
