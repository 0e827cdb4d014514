"""AdamW or SGD with linear warm-up, cosine decay and gradient clipping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optax

from avt_jax.settings import Block, setting
from avt_jax.training.durations import (
    Pace,
    chosen_unit,
    in_epochs_setting,
    in_examples_setting,
    in_steps,
    in_steps_setting,
)
from avt_jax.tree.stacks import MATRICES, is_matrix


@dataclass(frozen=True)
class OptimizerConfig(Block, where="config.optimizer"):
    """The config block `optimizer`."""

    name: str = setting("adamw", "optimiser", choices=("adamw", "sgd"))
    lr: float = setting(1e-4, "peak learning rate", at_least=0)
    warmup_epochs: float = in_epochs_setting(10.0, "linear warm-up from warmup_lr to lr")
    warmup_steps: int = in_steps_setting(0, "linear warm-up from warmup_lr to lr")
    warmup_examples: int = in_examples_setting(0, "linear warm-up from warmup_lr to lr")
    warmup_lr: float = setting(1e-6, "learning rate of the first step", at_least=0)
    min_lr: float = setting(1e-6, "learning rate at the end of the cosine", at_least=0)
    weight_decay: float = setting(
        0.05, "decoupled; not applied to parameters of one dimension or none", at_least=0
    )
    b1: float = setting(0.9, "AdamW's first-moment decay", at_least=0, below=1)
    b2: float = setting(0.999, "AdamW's second-moment decay", at_least=0, below=1)
    momentum: float = setting(0.9, "of SGD", at_least=0, below=1)
    clip_norm: float = setting(
        1.0, "gradients are scaled down to this global norm; 0 = never", at_least=0
    )
    ema_decay: float = setting(
        0.0,
        "decay of the averaged parameters used for evaluation; 0 = no average",
        at_least=0,
        below=1,
    )

    def check(self) -> None:
        """Refuses a warm-up in two units."""
        chosen_unit(self, "warmup")


def learning_rate_schedule(
    config: OptimizerConfig, *, total_steps: int, pace: Pace
) -> optax.Schedule:
    """Step -> learning rate.

    Args:
      config: the optimiser's block.
      total_steps: steps of the whole training.
      pace: to turn the warm-up into steps.
    """
    warmup_steps = min(round(in_steps(config, "warmup", pace) or 0), total_steps - 1)
    return optax.warmup_cosine_decay_schedule(
        init_value=config.warmup_lr if warmup_steps else config.lr,
        peak_value=config.lr,
        warmup_steps=warmup_steps,
        decay_steps=max(total_steps, 1),
        end_value=config.min_lr,
    )


def decayed(params: Mapping[str, Any]) -> dict[str, bool]:
    """Which parameters weight decay applies to: those with two or more dimensions of size > 1.

    See `stacks.is_matrix`; they may be flat, stacked or packed.
    """
    return {path: path == MATRICES or is_matrix(path, leaf.shape) for path, leaf in params.items()}


def make_optimizer(
    config: OptimizerConfig, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Builds the optimiser over flat {path: array} parameters.

    Source: UniFormer's published recipe (AdamW, decay 0.05, none on 1-d parameters); MBT's (SGD
    with momentum).
    """
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    if config.name == "sgd":
        # Decoupled as AdamW's is: the decay does not go through the momentum.
        return optax.chain(
            clip,
            optax.trace(config.momentum),
            optax.add_decayed_weights(config.weight_decay, mask=decayed),
            optax.scale_by_learning_rate(schedule),
        )
    return optax.chain(
        clip,
        optax.adamw(
            schedule, b1=config.b1, b2=config.b2, weight_decay=config.weight_decay, mask=decayed
        ),
    )
