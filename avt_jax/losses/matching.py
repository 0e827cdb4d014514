"""Audio-video matching (after fusion): is this sound from this picture?"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from avt_jax import axes
from avt_jax.errors import UserError
from avt_jax.losses import contrastive
from avt_jax.losses.interface import Batch, Forward, Metrics, Term, paired
from avt_jax.settings import setting

_EXCLUDED = -1e9
# Uses of the batch's key.
_AUDIO_MINING, _VIDEO_MINING = 2, 3


@dataclass(frozen=True)
class Options(contrastive.Options):
    """The term's own fields; negatives are mined at the contrastive temperature."""

    matching_same_label: bool = setting(
        False, "matching: allow mined negatives of the same label, for training without labels"
    )
    matching_group: int = setting(
        32,
        "matching: negatives are mined among so many neighbouring clips of the batch, however many "
        "devices there are; 0 = in the whole batch, whose tokens then go to every device",
        at_least=0,
    )

    def check(self) -> None:
        """Refuses groups without anything to choose from."""
        super().check()
        if self.matching_group == 1:
            raise UserError(
                "config.losses.matching_group is 1, and a clip alone has no negatives; give 2 or "
                "more, or 0 for the whole batch."
            )


def sample_hard_negatives(
    sim_bb: jax.Array,
    group_b: jax.Array,
    valid_b: jax.Array,
    noise_bb: jax.Array,
    *,
    temperature: jax.Array | float,
    label_bl: jax.Array | None = None,
    group_size: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """Picks one mismatched partner for each row, favouring similar ones.

    Args:
      sim_bb: [b, b] cosine similarity; row = the clip that keeps its modality, column = the clip
        that lends the other one.
      group_b: [b] int32 source video; equal ids are never negatives.
      valid_b: [b] bool; False (padding, no pair) neither picks nor is picked.
      noise_bb: [b, b] standard Gumbel noise, by which a partner is drawn.
      temperature: > 0, no unit; lower is harder.
      label_bl: [b, l] int32 labels, one column per label set, and per class of a multi-label set;
        rows that agree in all of them are not negatives either. None: labels play no part.
      group_size: clips whose number divided by this gives the same are each other's only negatives;
        0 = all are.

    Returns:
      (index_b, found_b): int32 column, drawn with probability proportional to exp(sim /
      temperature) among the row's negatives; False where there is none (the index is then of no
      meaning).

    Source: ALBEF, arXiv:2107.07651, sec. 3.2. Deviation: clips of one source, and by default of one
    label, are excluded.
    """
    if sim_bb.shape[0] != sim_bb.shape[1]:
        raise ValueError(f"the similarities must be square, got {sim_bb.shape}")
    negative_bb = (group_b[:, None] != group_b) & valid_b[:, None] & valid_b
    if group_size:
        mining_b = jnp.arange(len(group_b)) // group_size
        negative_bb &= mining_b[:, None] == mining_b
    if label_bl is not None:
        negative_bb &= (label_bl[:, None] != label_bl).any(-1)
    logits_bb = jnp.where(negative_bb, sim_bb / temperature, _EXCLUDED)
    index_b = (noise_bb + jax.lax.stop_gradient(logits_bb)).argmax(-1)
    return index_b.astype(jnp.int32), negative_bb.any(-1)


def matching_loss(
    positive_b: jax.Array,
    other_audio_b: jax.Array,
    other_video_b: jax.Array,
    audio_found_b: jax.Array,
    video_found_b: jax.Array,
    valid_b: jax.Array,
) -> Metrics:
    """Binary cross-entropy over true pairs and mined mismatches.

    Args:
      positive_b: [b] logits of the true pairs.
      other_audio_b: [b] logits of each video with a mined audio.
      other_video_b: [b] logits of each audio with a mined video.
      audio_found_b: [b] bool, False where no audio could be mined.
      video_found_b: [b] bool, False where no video could be mined.
      valid_b: [b] bool; False (padding, no pair) counts nowhere.

    Returns:
      {"matching": (sum, count), "matching_accuracy": (hits, count), "matching_no_negative": (clips,
      count)}: sum and hits are over pairs. A clip without any negative is left out with its true
      pair, which alone would teach to always say yes; with none left, the sum and its gradient
      are 0.

    Source: arXiv:2401.04154, L_AVM.
    """
    audio_found_b, video_found_b = audio_found_b & valid_b, video_found_b & valid_b
    used_b3 = jnp.stack([audio_found_b | video_found_b, audio_found_b, video_found_b], -1)
    logits_b3 = jnp.stack([positive_b, other_audio_b, other_video_b], -1)
    logits_b3 = logits_b3.astype(jnp.promote_types(logits_b3.dtype, jnp.float32))
    match_b3 = jnp.broadcast_to(jnp.arange(3) == 0, logits_b3.shape)
    # A row that is left out may hold anything; its logit is replaced before the loss, because the
    # gradient of `where` is 0 * inf there.
    logits_b3 = jnp.where(used_b3, logits_b3, 0)
    loss_b3 = optax.sigmoid_binary_cross_entropy(logits_b3, match_b3.astype(logits_b3.dtype))
    count = used_b3.sum().astype(jnp.float32)
    hits_b3 = ((logits_b3 > 0) == match_b3) & used_b3
    alone_b = valid_b & ~audio_found_b & ~video_found_b
    return {
        "matching": (jnp.where(used_b3, loss_b3, 0).sum(), count),
        "matching_accuracy": (hits_b3.sum().astype(jnp.float32), count),
        "matching_no_negative": (
            alone_b.sum().astype(jnp.float32),
            valid_b.sum().astype(jnp.float32),
        ),
    }


def _term(forward: Forward, batch: Batch, options: Options) -> Metrics:
    z_video_bd, z_audio_bd = jax.lax.stop_gradient(forward.embeddings)
    valid_b = paired(batch)
    # Of a multi-label set every class is a column.
    labels = [
        batch[axes.LABELS][name].reshape(len(valid_b), -1) for name in sorted(batch[axes.LABELS])
    ]
    temperature = contrastive.bounded_temperature(
        forward.log_temperature, options.temperature_min, options.temperature_max
    )
    mine = functools.partial(
        sample_hard_negatives,
        group_b=batch[axes.GROUP],
        valid_b=valid_b,
        temperature=jax.lax.stop_gradient(temperature),
        label_bl=None if options.matching_same_label else jnp.concatenate(labels, -1),
        group_size=options.matching_group,
    )
    # Two products, and not one and its transpose: rows stay on the device of their clip.
    audio_sim_bb, video_sim_bb = z_video_bd @ z_audio_bd.T, z_audio_bd @ z_video_bd.T
    audio_index_b, audio_found_b = mine(audio_sim_bb, noise_bb=forward.gumbel(_AUDIO_MINING))
    video_index_b, video_found_b = mine(video_sim_bb, noise_bb=forward.gumbel(_VIDEO_MINING))
    return matching_loss(
        forward.match_logits,
        *forward.mismatch_logits(audio_index_b, video_index_b, options.matching_group),
        audio_found_b,
        video_found_b,
        valid_b,
    )


TERM = Term(
    _term,
    Options,
    modalities=("video", "audio"),
    needs="match",
    neighbours=lambda options: options.matching_group,
)
