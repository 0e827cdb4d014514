"""Each class of a label set drawn equally often, however many clips it has.

Draws go round all classes in turn, so after any number of epochs two classes differ by one draw at
most; within an epoch their order is shuffled. The draws of a class take its clips in an order that
is shuffled anew whenever all have been taken. As in `pipeline`, a draw depends on the seed and its
position alone.

Of a multi-label set a clip is among those of each class that it has, and clips without any are a
class of their own: a class that occurs beside frequent ones brings these with it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np

from avt_jax.data.loading.batches import Source
from avt_jax.data.loading.config import DataConfig
from avt_jax.data.loading.damaged import DamagedRecord, make_example, too_many
from avt_jax.data.records import label_reader
from avt_jax.data.records.labels import Label, class_indices, compact
from avt_jax.host.output.terminal import printable
from avt_jax.host.progress import progress_bar

ClipLabels = Sequence[Mapping[str, Label] | None]
"""{label set: label} of each clip; None where its record is damaged."""


def read_labels(source: Source, config: DataConfig, *, quiet: bool = False) -> ClipLabels:
    """Goes through the labels of a training split once, with progress on stderr when it takes long.

    Args:
      source: the training split.
      config: the data block.
      quiet: show no progress.

    Raises:
      LostShard: a shard is gone.
      UserError: more than `config.max_damaged` records are damaged.
    """
    read = label_reader(source)
    found: list[Mapping[str, Label] | None] = []
    kept: dict[Any, Mapping[str, Label]] = {}
    reasons: list[str] = []
    options = {"leave": False, "delay": 2.0, "disable": True if quiet else None}
    with progress_bar(len(source), "reading labels", "clip", **options) as bar:
        for index in range(len(source)):
            try:
                labels = make_example(
                    dict, _Read(read), index, split=config.train_split, path=config.path
                )
            except DamagedRecord as error:
                reasons.append(str(error))
                if len(reasons) > config.max_damaged:
                    raise too_many(
                        len(reasons), reasons[-1], path=config.path, max_damaged=config.max_damaged
                    ) from error
                said = printable(f"a damaged record belongs to no class: {error}")
                logging.getLogger(__name__).warning("%s", said)
                found.append(None)
            else:
                small = compact(labels)
                # Most clips share these with others: kept once, they take no memory.
                found.append(kept.setdefault(tuple(small.items()), small))
            bar.update()
    return found


class _Read:
    """What is read of each clip, by index."""

    def __init__(self, read: Any):
        self._read = read

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        labels: Mapping[str, Any] = self._read(index)
        return labels


def clips_by_class(labels: ClipLabels, label_set: str) -> list[np.ndarray]:
    """The clips of each class that has any, by index; those without a class come last.

    Args:
      labels: from `read_labels`.
      label_set: one of the label sets.
    """
    found: dict[int, list[int]] = {}
    none: list[int] = []
    for index, one in enumerate(labels):
        if one is None:
            continue
        classes = class_indices(one[label_set])
        for name in classes:
            found.setdefault(name, []).append(index)
        if not classes:
            none.append(index)
    groups = [found[name] for name in sorted(found)] + ([none] if none else [])
    return [np.array(group, np.int64) for group in groups]


class BalancedClips:
    """(position, number within its epoch) -> index of the clip that is drawn."""

    def __init__(self, groups: Sequence[np.ndarray], num_draws: int, seed: int):
        """Decides in which order the classes take turns.

        Args:
          groups: from `clips_by_class`; one at least.
          num_draws: in an epoch.
          seed: >= 0.
        """
        self._num_draws = num_draws
        sequence = np.random.SeedSequence(seed, spawn_key=(1,))
        order, *seeds = map(int, sequence.generate_state(len(groups) + 1, np.uint32))
        places = np.random.default_rng(order).permutation(len(groups)).tolist()
        self._clips = [
            grain.MapDataset.source(groups[place]).shuffle(seed=seeds[place]).repeat()
            for place in places
        ]

    def __call__(self, position: int, number: int) -> int:
        """Args: position: among all draws. number: in [0, num_draws), each once an epoch."""
        epoch = position // self._num_draws
        turn, place = divmod(epoch * self._num_draws + number, len(self._clips))
        return int(self._clips[place][turn])
