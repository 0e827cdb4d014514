"""Vectors of the clips in a shard folder."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from avt_jax import axes
from avt_jax.data import records
from avt_jax.data.loading import pipeline
from avt_jax.data.manifests.label_columns import join_names
from avt_jax.data.records.labels import class_indices, is_several
from avt_jax.errors import UserError, nearest
from avt_jax.inference.embeddings.vectors import Rows, without_missing
from avt_jax.inference.load import LoadedRun


def is_shards(word: str) -> bool:
    """Whether a command line's word is a shard folder, and not a folder of media files."""
    return "://" in word or (Path(word) / "dataset_info.json").is_file()


def splits_of(info: records.RecordsInfo, wanted: Sequence[str], path: str) -> list[str]:
    """The splits to embed: all, or those wanted.

    Raises:
      UserError: there is none of that name.
    """
    for name in wanted:
        if name not in info.splits:
            raise UserError(
                f"{path} has no split {name!r}{nearest(name, info.splits)}; it has "
                f"{', '.join(info.splits) or 'none'}."
            )
    chosen = wanted or info.splits
    return [name for name, count in info.splits.items() if count and name in chosen]


def clip_key(split: str, number: int) -> str:
    """What a clip is called while it is embedded; its id need not be its own."""
    return f"/{split}/{number}"


@dataclass(frozen=True)
class _Rest:
    """Some clips of a source; picklable as it is."""

    source: Any
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self.read_lazily(index)

    def read_lazily(self, index: int) -> Mapping[str, Any]:
        return records.lazy_reader(self.source)(self.numbers[index])


def embed_shards(
    model: LoadedRun, path: str, splits: Sequence[str], batch_size: int, done: Container[str] = ()
) -> Iterator[tuple[str, Rows]]:
    """Embeds the middle of every clip, unvaried, as an evaluation sees it.

    Args:
      model: the run.
      path: shard folder.
      splits: of it.
      batch_size: clips per call of the model.
      done: keys of clips that are left out.

    Yields:
      (key, row) of each clip, in order.

    Raises:
      UserError: no such shards, or a damaged record.
    """
    info = records.read_info(path)
    for split in splits:
        source = records.open_split(path, split)
        numbers = [i for i in range(len(source)) if clip_key(split, i) not in done]
        data = replace(model.data, path=path, eval_split=split, eval_clips=1, eval_crops=1)
        rest, first = _Rest(source, numbers), 0
        with contextlib.closing(
            pipeline.eval_batches(rest, data, batch_size=batch_size)
        ) as batches:
            for batch in batches:
                found = model.embed(batch)
                for row in range(int(np.sum(batch[axes.VALID]))):
                    vectors = {name: vector_bd[row : row + 1] for name, vector_bd in found.items()}
                    clip = [rest[first + row]]
                    yield clip_key(split, numbers[first + row]), _rows(vectors, clip, split, info)
                first += len(batch[axes.VALID])


def _rows(
    vectors: dict[str, np.ndarray],
    clips: Sequence[Mapping[str, Any]],
    split: str,
    info: records.RecordsInfo,
) -> Rows:
    count = len(clips)
    if not all(np.isfinite(vector_nd).all() for vector_nd in vectors.values()):
        raise UserError(
            f"what the model makes of {clips[0]['id']} is not finite; its parameters are broken, "
            "use an earlier checkpoint."
        )
    return without_missing(
        Rows(
            {
                "id": [str(clip["id"]) for clip in clips],
                "source": [str(clip["source"]) for clip in clips],
                "split": [split] * count,
            },
            np.array([clip["start_sec"] for clip in clips], np.float64),
            np.array([clip["end_sec"] for clip in clips], np.float64),
            np.array([records.has_video(clip) for clip in clips], bool),
            np.array([clip["has_audio"] for clip in clips], bool),
            {
                name: [_named(clip["labels"][name], classes) for clip in clips]
                for name, classes in info.label_sets.items()
            },
            vectors,
        )
    )


def _named(label: Any, classes: Sequence[str]) -> str:
    """A clip's class; of a multi-label set all of them, as a manifest has them."""
    names = [classes[index] for index in class_indices(label)]
    return join_names(names) if is_several(label) else names[0]
