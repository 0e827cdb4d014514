"""The optimiser: its config, learning-rate schedule, and the chain of transformations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import optax

from avt_jax.errors import UserError
from avt_jax.settings import Block, setting
from avt_jax.training.durations import (
    Pace,
    chosen_unit,
    field_name,
    in_epochs_setting,
    in_examples_setting,
    in_steps,
    in_steps_setting,
)
from avt_jax.training.optimizer.hold import Hold, adam_from_release, rate_from_release
from avt_jax.training.optimizer.rules import RulesConfig
from avt_jax.training.optimizer.transforms import (
    decay_each,
    for_each_layer,
    scale_each,
    trained_only,
)
from avt_jax.tree.stacks import Packing


@dataclass(frozen=True)
class _Common(Block, where="config.optimizer"):
    """What concerns all parameters alike."""

    name: str = setting(
        "adamw",
        "optimiser. adafactor keeps row and column means of squared gradients in place of two "
        "moments; lion keeps one moment, and takes a third to a tenth of AdamW's lr",
        choices=("adamw", "adafactor", "lion", "sgd"),
    )
    lr: float = setting(1e-4, "peak learning rate", at_least=0)
    warmup_epochs: float = in_epochs_setting(10.0, "linear warm-up from warmup_lr to lr")
    warmup_steps: int = in_steps_setting(0, "linear warm-up from warmup_lr to lr")
    warmup_examples: int = in_examples_setting(0, "linear warm-up from warmup_lr to lr")
    warmup_lr: float = setting(1e-6, "learning rate of the first step", at_least=0)
    min_lr: float = setting(1e-6, "learning rate at the end of the cosine", at_least=0)
    weight_decay: float = setting(
        0.05, "decoupled; not applied to parameters of one dimension or none", at_least=0
    )
    b1: float = setting(0.9, "first-moment decay of AdamW and Lion", at_least=0, below=1)
    b2: float = setting(
        0.999, "AdamW's second-moment decay; of Lion's moment, with 0.99 usual", at_least=0, below=1
    )
    momentum: float = setting(0.9, "of SGD", at_least=0, below=1)
    mu_dtype: str = setting(
        "float32",
        "type in which the first moment, or SGD's momentum, is kept",
        choices=("float32", "bfloat16"),
    )
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
        """Refuses a warm-up in two units, and a type for a moment that is not kept."""
        chosen_unit(self, "warmup")
        if self.name == "adafactor" and self.mu_dtype != "float32":
            raise UserError(
                f"config.optimizer.mu_dtype is {self.mu_dtype!r}, but adafactor keeps no first "
                "moment; give 'float32'."
            )


@dataclass(frozen=True)
class OptimizerConfig(RulesConfig, _Common, where="config.optimizer"):
    """The config block `optimizer`."""

    def check(self) -> None:
        """What each of the parts refuses."""
        _Common.check(self)
        RulesConfig.check(self)


def learning_rate_schedule(
    config: OptimizerConfig, *, total_steps: int, pace: Pace
) -> optax.Schedule:
    """Step -> learning rate.

    Args:
      config: the optimiser's block.
      total_steps: steps of the whole training.
      pace: to turn the warm-up into steps.
    """
    warmup_steps = _warmup_steps(config, total_steps=total_steps, pace=pace)
    return optax.warmup_cosine_decay_schedule(
        init_value=config.warmup_lr if warmup_steps else config.lr,
        peak_value=config.lr,
        warmup_steps=warmup_steps,
        decay_steps=max(total_steps, 1),
        end_value=config.min_lr,
    )


def _warmup_steps(config: OptimizerConfig, *, total_steps: int, pace: Pace) -> int:
    return min(round(in_steps(config, "warmup", pace) or 0), total_steps - 1)


def make_hold(
    config: OptimizerConfig,
    params: Mapping[str, Any],
    packing: Packing,
    *,
    total_steps: int,
    pace: Pace,
) -> Hold | None:
    """What is not trained in the first part of the training; None for nothing.

    Args:
      config: the optimiser's block.
      params: {flat path: array or shape} of the whole model.
      packing: of the same model.
      total_steps: steps of the whole training.
      pace: to turn the lengths into steps.

    Raises:
      UserError: that part is no shorter than the training, or has nothing to train.
    """
    held, unit = config.held_paths(params), chosen_unit(config, "held")
    if not held or unit is None:
        return None
    steps = max(1, round(in_steps(config, "held", pace) or 0))
    if steps >= total_steps:
        name = field_name("held", unit)
        raise UserError(
            f"config.optimizer.{name} is {getattr(config, name):g}, that is {steps} steps of a "
            f"training of {total_steps}; give a length that ends before the training does, or "
            "--config.optimizer.held='()'."
        )
    still = held | config.frozen_paths(params)
    return Hold(
        {path: float(path in held) for path in params},
        {path: float(path in still) for path in params},
        packing,
        steps,
        _warmup_steps(config, total_steps=total_steps, pace=pace),
    )


def make_optimizer(
    config: OptimizerConfig,
    schedule: optax.Schedule,
    params: Mapping[str, Any],
    packing: Packing,
    hold: Hold | None = None,
) -> optax.GradientTransformation:
    """Builds the optimiser over {path: array}, flat, stacked or packed.

    `init` takes all parameters; `update` the gradient and the parameters of those that are trained.

    Source: UniFormer's published recipe (AdamW, decay 0.05, none on 1-d parameters); MBT's (SGD
    with momentum); Adafactor, arXiv:1804.04235, with relative step sizes left out; Lion,
    arXiv:2302.06675. All decays are decoupled: they do not go through the moments.

    Args:
      config: the optimiser's block.
      schedule: step -> learning rate.
      params: {flat path: array or shape} of the whole model.
      packing: of the same model, with the frozen paths of `config`.
      hold: what is not trained at first; the state has the same form with and without.
    """
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    rates = config.rate_factors(params)
    by_rate = optax.scale_by_learning_rate(schedule)
    chain = [
        _direction(config, packing, hold),
        decay_each(config.weight_decay, config.decay_factors(params), packing),
        rate_from_release(by_rate, hold) if hold else by_rate,
    ]
    if set(rates.values()) != {1.0}:
        chain.append(scale_each(rates, packing))
    # Nested or not: as the checkpoints of earlier runs have it.
    chained = optax.chain(clip, *(chain if config.name == "sgd" else [optax.chain(*chain)]))
    return trained_only(chained, packing)


def _direction(
    config: OptimizerConfig, packing: Packing, hold: Hold | None
) -> optax.GradientTransformation:
    """From gradients to updates of the right direction and, but for SGD, of size 1 or so.

    The moments of SGD and Lion are 0 while the gradient is, and say nothing of how many steps they
    have seen: these begin as new after a hold. The others go by their count.
    """
    mu_dtype = jnp.dtype(config.mu_dtype)
    if config.name == "sgd":
        return optax.trace(config.momentum, accumulator_dtype=mu_dtype)
    if config.name == "lion":
        return optax.scale_by_lion(config.b1, config.b2, mu_dtype)
    if config.name == "adafactor":
        one = optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0))
        return for_each_layer(one, packing, hold.begins() if hold else {})
    adam = optax.scale_by_adam(config.b1, config.b2, mu_dtype=mu_dtype)
    return adam_from_release(adam, hold, b1=config.b1, b2=config.b2) if hold else adam
