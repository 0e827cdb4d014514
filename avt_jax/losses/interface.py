"""What a loss term reads, gives, and asks of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax

from avt_jax import axes
from avt_jax.settings import Block

Metrics = dict[str, tuple[jax.Array, jax.Array]]
Batch = Mapping[str, Any]


def paired(batch: Batch) -> jax.Array:
    """[b] bool: real clips that have sound and picture, to be compared with each other."""
    valid_b: jax.Array = batch[axes.VALID] & batch[axes.HAS_AUDIO] & batch[axes.HAS_VIDEO]
    return valid_b


class Reconstruction(Protocol):
    """What was hidden of a modality and what the model makes of it; see `models.forward`."""

    @property
    def predicted_bmp(self) -> jax.Array:
        """[b, m, p] on the scale of normalised patches."""

    @property
    def target_bmp(self) -> jax.Array:
        """[b, m, p] the patches' content."""

    @property
    def masked_bm(self) -> jax.Array:
        """[b, m] bool, True = hidden."""

    @property
    def fallback_b(self) -> jax.Array:
        """[b] bool, True where the strategy had nothing to choose from."""


class Forward(Protocol):
    """What a term may read of the model's work on a batch; each is computed on first use."""

    @property
    def logits(self) -> dict[str, jax.Array]:
        """{label set: [b, y]} after fusion."""

    @property
    def modality_logits(self) -> Sequence[dict[str, jax.Array]]:
        """Logits of each modality by itself; empty for a model that only has joint ones."""

    @property
    def embeddings(self) -> tuple[jax.Array, jax.Array]:
        """(video, audio) [b, d] L2-normalised projections before fusion."""

    @property
    def log_temperature(self) -> jax.Array:
        """Scalar, learned."""

    @property
    def contrastive_bias(self) -> jax.Array:
        """Scalar, learned."""

    @property
    def match_logits(self) -> jax.Array:
        """[b] of the true pairs."""

    def mismatch_logits(
        self, audio_index_b: jax.Array, video_index_b: jax.Array, group_size: int = 0
    ) -> tuple[jax.Array, jax.Array]:
        """[b] of each video with another audio, [b] of each audio with another video.

        Others are of the clip's own group of `group_size` clips; 0 = of the whole batch.
        """

    def reconstruction(self, name: str) -> Reconstruction:
        """Hides part of "audio" or "video" and reconstructs it."""

    def gumbel(self, use: int) -> jax.Array:
        """Standard Gumbel noise [b, b], float32, for each pair of clips; uses as those of `key`."""

    def key(self, use: int) -> jax.Array:
        """A PRNG key of this batch for one use; 0 and 1 are what is hidden, 2 and 3 matching.

        Micro-batches of one batch share it: what is drawn from it must not differ between clips.
        """


@dataclass(frozen=True)
class Term:
    """A term of the objective; its name and default weight stand in `objective.TERMS`.

    Attributes:
      compute: (forward, batch, options) -> metrics, with the term's (sum, count) under its name.
      options: the term's own fields in config.losses; `compute` is given a block that has them.
      modalities: what the model has to read, or the term is left out.
      needs: what the model has to be able to do, in the words of `models.build.abilities`; "" for
        what every model can.
      advice: how to make it able, to stand before "give 0": "put 'audio' into X or ".
      hides: the modality of which this term hides a part; "" hides nothing.
      whole_batch: it compares all clips of a batch, and reads no more of the model than embeddings,
        temperature and bias. A step in micro-batches has these of the whole batch ready.
      neighbours: options -> how many neighbouring clips of a batch it compares with each other;
        0 = all of them. None: it compares none, or is of the whole batch.
    """

    compute: Callable[[Forward, Batch, Any], Metrics]
    options: type[Block] | None = None
    modalities: tuple[str, ...] = ()
    needs: str = ""
    advice: str = ""
    hides: str = ""
    whole_batch: bool = False
    neighbours: Callable[[Any], int] | None = None
