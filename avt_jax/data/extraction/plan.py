"""Which clip goes into which shard, decided before anything is decoded.

The plan depends on the manifest and the options alone. That is why shards have the same bytes
whoever writes them, in whatever order, and however often the job was interrupted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from avt_jax.data.extraction.clip_record import ExtractConfig
from avt_jax.data.manifests.clips import Clip
from avt_jax.data.manifests.manifest import Manifest
from avt_jax.data.records import SPLITS, written_version
from avt_jax.errors import UserError

_FORMAT = 1


def _clip_fields(clip: Clip) -> dict[str, Any]:
    return {**vars(clip), "path": str(clip.path)}


@dataclasses.dataclass(frozen=True)
class PlannedShard:
    """The clips of one shard.

    Attributes:
      split: name of the split.
      index: position among the planned shards of the split.
      clips: at least one, in the manifest's order.
    """

    split: str
    index: int
    clips: Sequence[Clip]

    @property
    def name(self) -> str:
        """Unique within a plan, and fit for a file name."""
        return f"{self.split}.part-{self.index:05d}"

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads."""
        clips = [_clip_fields(clip) for clip in self.clips]
        return json.dumps({"split": self.split, "index": self.index, "clips": clips})

    @classmethod
    def from_json(cls, line: str | bytes) -> PlannedShard:
        """Reads what `to_json` wrote."""
        fields = json.loads(line)
        clips = tuple(Clip(**{**c, "path": Path(c["path"])}) for c in fields["clips"])
        return cls(fields["split"], fields["index"], clips)


@dataclasses.dataclass(frozen=True)
class Plan:
    """All shards of an extraction.

    Attributes:
      shards: split by split.
      identity: JSON values; equal for plans that lead to the same shards.
    """

    shards: tuple[PlannedShard, ...]
    identity: Mapping[str, Any]

    @property
    def num_clips(self) -> int:
        """Number of clips in all shards."""
        return sum(len(shard.clips) for shard in self.shards)


def make_plan(manifest: Manifest, config: ExtractConfig, clips_per_shard: int) -> Plan:
    """Divides the clips of a manifest among shards.

    Args:
      manifest: the clips.
      config: how they are stored.
      clips_per_shard: > 0; the last shard of a split may have fewer.

    Raises:
      UserError: `clips_per_shard` is not positive.
    """
    if clips_per_shard < 1:
        raise UserError(f"clips_per_shard {clips_per_shard} must be 1 or more.")
    shards = []
    for split in SPLITS:
        clips = manifest.clips.of_split(split)
        for index, first in enumerate(range(0, len(clips), clips_per_shard)):
            shards.append(PlannedShard(split, index, clips[first : first + clips_per_shard]))
    identity = {
        "format": _FORMAT,
        "schema_version": written_version(manifest.multi_label),
        **dataclasses.asdict(config),
        "clips_per_shard": clips_per_shard,
        "classes": _sha256(json.dumps(manifest.label_sets)),
        **({"multi_label": list(manifest.multi_label)} if manifest.multi_label else {}),
        "clips": _sha256(manifest.clips.json_lines()),
    }
    return Plan(tuple(shards), identity)


def _sha256(texts: str | Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in [texts] if isinstance(texts, str) else texts:
        digest.update(text.encode())
    return digest.hexdigest()


def difference(old: Any, new: Mapping[str, Any]) -> str:
    """Says in a few words how an identity read from a file differs from another one.

    Args:
      old: what was read; anything.
      new: of a `Plan`.
    """
    if not isinstance(old, dict) or old.get("format") != new["format"]:
        return "it was written by another version of avt_jax"
    words = {"clips": "other clips in the manifest", "classes": "other class lists"}
    differing = [name for name in new if old.get(name) != new[name]]
    return ", ".join(
        words.get(name, f"{name} {old.get(name)} instead of {new[name]}") for name in differing
    )
