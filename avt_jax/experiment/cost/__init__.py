"""What the model of a config costs: counted from shapes, or compiled for TPUs that are not here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avt_jax.lazy import names_on_demand

if TYPE_CHECKING:
    from avt_jax.experiment.cost.compile import CompileReport, compile_step
    from avt_jax.experiment.cost.profile import (
        Classes,
        Profile,
        profile_config,
        read_classes,
        step_arguments,
    )

__getattr__, __dir__ = names_on_demand(
    globals(),
    {
        "CompileReport": "avt_jax.experiment.cost.compile",
        "Classes": "avt_jax.experiment.cost.profile",
        "Profile": "avt_jax.experiment.cost.profile",
        "compile_step": "avt_jax.experiment.cost.compile",
        "profile_config": "avt_jax.experiment.cost.profile",
        "read_classes": "avt_jax.experiment.cost.profile",
        "step_arguments": "avt_jax.experiment.cost.profile",
    },
)

__all__ = [
    "Classes",
    "CompileReport",
    "Profile",
    "compile_step",
    "profile_config",
    "read_classes",
    "step_arguments",
]
