"""AdamW or SGD with linear warm-up, cosine decay and gradient clipping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optax

from avt_jax.errors import UserError


@dataclass(frozen=True)
class OptimizerConfig:
    """The config block `optimizer`.

    Attributes:
      name: "adamw" or "sgd".
      lr: peak learning rate.
      warmup_epochs: length of the linear warm-up from `warmup_lr` to `lr`.
      warmup_lr: learning rate of the first step.
      min_lr: learning rate at the end of the cosine.
      weight_decay: decoupled; not applied to parameters of one dimension or none.
      b1: AdamW first-moment decay.
      b2: AdamW second-moment decay.
      momentum: of SGD.
      clip_norm: gradients are scaled down to this global norm; 0 = never.
      ema_decay: decay of the averaged parameters used for evaluation; 0 = no average.
    """

    name: str
    lr: float
    warmup_epochs: float
    warmup_lr: float
    min_lr: float
    weight_decay: float
    b1: float
    b2: float
    momentum: float
    clip_norm: float
    ema_decay: float

    def __post_init__(self):
        if self.name not in ("adamw", "sgd"):
            raise UserError(f"config.optimizer.name is {self.name!r}; give 'adamw' or 'sgd'.")
        for name in ("lr", "warmup_epochs", "warmup_lr", "min_lr", "weight_decay", "clip_norm"):
            if not getattr(self, name) >= 0:
                raise UserError(
                    f"config.optimizer.{name} is {getattr(self, name)}; give 0 or more."
                )
        for name in ("b1", "b2", "momentum", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(
                    f"config.optimizer.{name} is {getattr(self, name)}; give a number in [0, 1)."
                )


def learning_rate_schedule(
    config: OptimizerConfig, *, total_steps: int, steps_per_epoch: int
) -> optax.Schedule:
    """Step -> learning rate.

    Args:
      config: the optimiser's block.
      total_steps: steps of the whole training.
      steps_per_epoch: to turn `warmup_epochs` into steps.
    """
    warmup_steps = min(round(config.warmup_epochs * steps_per_epoch), total_steps - 1)
    return optax.warmup_cosine_decay_schedule(
        init_value=config.warmup_lr if warmup_steps else config.lr,
        peak_value=config.lr,
        warmup_steps=warmup_steps,
        decay_steps=max(total_steps, 1),
        end_value=config.min_lr,
    )


def decayed(params: Mapping[str, Any]) -> dict[str, bool]:
    """Which parameters weight decay applies to: those with two or more dimensions of size > 1.

    Biases, norm scales, and single tokens stored as [1, 1, d] count as one-dimensional.
    """
    return {path: sum(n > 1 for n in leaf.shape) > 1 for path, leaf in params.items()}


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
