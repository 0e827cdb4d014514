"""All registries of forms together: what there is to choose from, by pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from avt_jax.models.kernels import attention, choice, depthwise_conv

# {pass: {name: form}}, see `choice.RULES`.
REGISTRIES: dict[str, Mapping[str, Any]] = {
    **dict(
        zip(
            depthwise_conv.PASSES,
            (depthwise_conv.FORWARD, depthwise_conv.FORWARD, depthwise_conv.KERNEL_GRADIENT),
            strict=True,
        )
    ),
    attention.STEP: attention.FORMS,
}

# What takes seconds to minutes a call on a CPU.
_HOPELESS = {"cpu": ("grouped", "dense", "packed")}
# Not to be chosen unasked: its package is optional.
_ONLY_BY_NAME = ("tokamax",)


def candidates(step: str, platform: str) -> list[str]:
    """Names of the forms worth trying on a platform; none of an unknown pass."""
    leave_out = (*_HOPELESS.get(platform, ()), *_ONLY_BY_NAME)
    return [
        name
        for name in REGISTRIES.get(step, {})
        if name not in leave_out and choice.ONLY.get(name, platform) == platform
    ]
