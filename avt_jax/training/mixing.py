"""Mixup and CutMix on the device: clips of a batch are mixed, sound and picture alike.

The partner of clip i of b is clip b - 1 - i of the global batch. One kind and one share are drawn
for each step, as the recipes of UniFormer and MBT do.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from avt_jax import axes
from avt_jax.errors import UserError
from avt_jax.settings import Block, setting


class Mix(Protocol):
    """Mixes the clips of a batch; see `make_mix`."""

    def __call__(
        self,
        batch: Mapping[str, Any],
        key: jax.Array,
        *,
        partners: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]: ...


_MAX_ALPHA = 100.0


@dataclass(frozen=True)
class MixingConfig(Block, where="config.mixing"):
    """The config block `mixing`. Off as long as both alphas are 0."""

    mixup_alpha: float = setting(
        0.0,
        "the share that a clip keeps is drawn from Beta(alpha, alpha), and the rest is its "
        "partner's, pixel for pixel and bin for bin; 0 = no mixup",
        at_least=0,
        at_most=_MAX_ALPHA,
    )
    cutmix_alpha: float = setting(
        0.0,
        "the same share for a box: of the frame, the same in all frames, and of the spectrogram; "
        "inside is the partner; 0 = no CutMix",
        at_least=0,
        at_most=_MAX_ALPHA,
    )
    cutmix_share: float = setting(
        0.5, "share of the steps with CutMix where both are on", at_least=0, at_most=1
    )


def make_mix(config: MixingConfig, terms: Collection[str]) -> Mix | None:
    """Builds the function that mixes a batch.

    Args:
      config: the block.
      terms: names of the active loss terms.

    Returns:
      (batch, PRNG key, partners=None) -> the batch with mixed video (float32 raw levels) and audio,
      the partners' labels under `axes.PARTNER_LABELS` and under `axes.OWN_SHARE` [b] float32 how
      much of each clip is its own. `partners` is a batch with each clip's partner in its place;
      None = the same batch backwards. None instead of a function when mixing is off.

    Raises:
      UserError: mixing is on and so is a term that is not the classification.

    Source: mixup, arXiv:1710.09412; CutMix, arXiv:1905.04899. Deviations: a box lies inside the
      picture instead of being cut off at its edge; sound is mixed, too, as log-mel.
    """
    if not config.mixup_alpha and not config.cutmix_alpha:
        return None
    others = sorted(set(terms) - {"classification"})
    if others:
        raise UserError(
            f"config.mixing is on together with the loss {others[0]!r}, which compares or hides "
            "what belongs to one clip; set its weight in config.losses.weights to 0, or the alphas "
            "of config.mixing."
        )

    def mix(
        batch: Mapping[str, Any], key: jax.Array, *, partners: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        others = jax.tree.map(lambda x: x[::-1], dict(batch)) if partners is None else partners
        with_box, keeps, place = _draw(config, key)
        mixed, shares = dict(batch), []
        valid_b = batch[axes.VALID]
        # A clip without a real partner stays as it is.
        is_mixed_b = valid_b & others[axes.VALID]
        for name, plane in ((axes.VIDEO, (2, 3)), (axes.AUDIO, (1, 2))):
            own = batch[name].astype(jnp.float32)
            if own.ndim == 3:  # a spectrogram, or cached tokens
                plane = (1, 2)
            if not own.size:  # a modality of which no tokens are cached
                mixed[name] = own
                continue
            sides = tuple(own.shape[axis] for axis in plane)
            weight_hw = jnp.where(with_box, _outside_box(sides, keeps, place), keeps)
            shares.append(weight_hw.mean())
            shape = [own.shape[axis] if axis in plane else 1 for axis in range(own.ndim)]
            weight = weight_hw.reshape(shape)
            both = weight * own + (1 - weight) * others[name].astype(jnp.float32)
            # `where`, not a weight of 1: padding may hold anything, and 0 * inf is not 0.
            mixed[name] = jnp.where(is_mixed_b.reshape(-1, *(1,) * (own.ndim - 1)), both, own)
        mixed[axes.PARTNER_LABELS] = others[axes.LABELS]
        # Boxes are whole pixels, so what is kept of picture and sound differs by a little.
        mixed[axes.OWN_SHARE] = jnp.where(is_mixed_b, sum(shares) / len(shares), 1.0)
        return mixed

    return mix


def _draw(config: MixingConfig, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(whether to cut a box, the share to keep, the box's place [2] in [0, 1))."""
    kind_key, mixup_key, cutmix_key, place_key = jax.random.split(key, 4)
    share = config.cutmix_share if config.mixup_alpha else 1.0
    with_box = jax.random.uniform(kind_key) < (share if config.cutmix_alpha else 0.0)
    keeps = [
        jax.random.beta(key, alpha, alpha) if alpha else jnp.float32(1)
        for key, alpha in ((mixup_key, config.mixup_alpha), (cutmix_key, config.cutmix_alpha))
    ]
    return with_box, jnp.where(with_box, keeps[1], keeps[0]), jax.random.uniform(place_key, (2,))


def _outside_box(sides: tuple[int, int], keeps: jax.Array, place: jax.Array) -> jax.Array:
    """0 inside a box that leaves `keeps` of the area, 1 elsewhere: float32 [rows, columns]."""
    inside = []
    for side, where in zip(sides, place, strict=True):
        length = jnp.round(side * jnp.sqrt(1 - keeps))
        first = jnp.floor(where * (side - length + 1))
        position = jnp.arange(side)
        inside.append((position >= first) & (position < first + length))
    return 1.0 - (inside[0][:, None] & inside[1][None]).astype(jnp.float32)
