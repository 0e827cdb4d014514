"""Which parameters decay, how fast each learns, which are not trained: from rules over paths."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avt_jax.errors import UserError, nearest
from avt_jax.models.depths import layers_above
from avt_jax.models.layers.lora import frozen_beside_adapters
from avt_jax.settings import Block, setting
from avt_jax.training.durations import (
    chosen_unit,
    field_name,
    in_epochs_setting,
    in_examples_setting,
    in_steps_setting,
)
from avt_jax.tree.stacks import is_matrix

Rules = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class RulesConfig(Block, where="config.optimizer"):
    """The fields of the block `optimizer` that speak of single parameters."""

    weight_decay_rules: Rules = setting(
        (),
        "ordered (path regex, factor of weight_decay); the first match counts. What none matches "
        "decays if it has two or more dimensions",
        at_least=0,
    )
    lr_scale_rules: Rules = setting(
        (),
        "ordered (path regex, factor of the learning rate); the first match counts, 1 without one; "
        "0 = frozen",
        at_least=0,
    )
    frozen: tuple[str, ...] = setting(
        (),
        "path regexes of parameters that are not trained: no gradient, no moments, no decay. "
        "Adapters (config.model.lora_rank) freeze what they sit in, too",
    )
    held: tuple[str, ...] = setting(
        (),
        "path regexes of parameters that are not trained in the first part of the training, and "
        "then at a rate that grows over as many steps as the warm-up has",
    )
    held_epochs: float = in_epochs_setting(0.0, "the part in which `held` is not trained")
    held_steps: int = in_steps_setting(0, "the part in which `held` is not trained")
    held_examples: int = in_examples_setting(0, "the part in which `held` is not trained")
    layer_decay: float = setting(
        1.0,
        "the learning rate of each layer below the last is multiplied by this once more, that of "
        "the embeddings below the first most often; 1 = off",
        above=0,
        at_most=1,
    )

    def check(self) -> None:
        """Refuses expressions that do not compile, and one of `held` and its length alone."""
        for field, pattern in self._patterns():
            try:
                re.compile(pattern)
            except re.error as error:
                raise UserError(
                    f"{field}: {pattern!r} is no regular expression ({error}); mend it."
                ) from error
        unit = chosen_unit(self, "held")
        if self.held and not unit:
            raise UserError(
                f"config.optimizer.held is {self.held} without a length; give "
                "config.optimizer.held_epochs, held_steps or held_examples, or held=()."
            )
        if unit and not self.held:
            name = field_name("held", unit)
            raise UserError(
                f"config.optimizer.{name} is {getattr(self, name):g} and held is empty; give held "
                f"the path regexes of what is not trained so long, or {name}=0."
            )

    def _patterns(self) -> Iterable[tuple[str, str]]:
        for name in ("weight_decay_rules", "lr_scale_rules"):
            yield from ((f"config.optimizer.{name}", rule[0]) for rule in getattr(self, name))
        for name in ("frozen", "held"):
            yield from ((f"config.optimizer.{name}", pattern) for pattern in getattr(self, name))

    def check_paths(self, paths: Iterable[str]) -> None:
        """Makes sure that every expression matches a parameter.

        Raises:
          UserError: one matches none; the nearest path is named.
        """
        paths = list(paths)
        for field, pattern in self._patterns():
            if not any(re.search(pattern, path) for path in paths):
                raise UserError(
                    f"{field}: {pattern!r} matches no parameter{nearest(pattern, paths)}; mend it "
                    "or leave it out."
                )

    def decay_factors(self, params: Mapping[str, Any]) -> dict[str, float]:
        """{flat path: what `weight_decay` is multiplied by}; `params` has arrays or shapes."""
        return {
            path: _first(self.weight_decay_rules, path, float(is_matrix(path, leaf.shape)))
            for path, leaf in params.items()
        }

    def rate_factors(self, params: Mapping[str, Any]) -> dict[str, float]:
        """{flat path: what the learning rate is multiplied by}; 0 for what is not trained.

        What adapters stand in for is not, whatever the rules say.
        """
        above = layers_above(params)
        beside_adapters = frozen_beside_adapters(params)
        return {
            path: 0.0
            if path in beside_adapters or _any(self.frozen, path)
            else _first(self.lr_scale_rules, path, 1.0) * self.layer_decay ** above[path]
            for path in params
        }

    def frozen_paths(self, params: Mapping[str, Any]) -> set[str]:
        """The flat paths of what is not trained.

        Raises:
          UserError: nothing is.
        """
        if not (self.frozen or self.lr_scale_rules or frozen_beside_adapters(params)):
            return set()
        found = {path for path, factor in self.rate_factors(params).items() if not factor}
        if len(found) == len(params):
            raise UserError(
                "config.optimizer.frozen and lr_scale_rules leave no parameter to train; give "
                "narrower expressions."
            )
        return found

    def held_paths(self, params: Mapping[str, Any]) -> set[str]:
        """The flat paths of what is trained, but not in the first part of the training.

        Raises:
          UserError: there is nothing of the kind, or nothing else to train until then.
        """
        if not self.held:
            return set()
        trained = params.keys() - self.frozen_paths(params)
        found = {path for path in trained if _any(self.held, path)}
        if not found:
            raise UserError(
                f"config.optimizer.held is {self.held}, and all that it matches is frozen for the "
                "whole training; give --config.optimizer.held='()'."
            )
        if len(found) == len(trained):
            raise UserError(
                f"config.optimizer.held is {self.held}, and leaves no parameter to train in the "
                "first part of the training; give narrower expressions."
            )
        return found


def _any(patterns: Iterable[str], path: str) -> bool:
    return any(re.search(pattern, path) for pattern in patterns)


def _first(rules: Sequence[tuple[str, float]], path: str, otherwise: float) -> float:
    """The value of the first rule that is found in a path."""
    return next((value for pattern, value in rules if re.search(pattern, path)), otherwise)
