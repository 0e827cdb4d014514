"""From a shard folder to a folder of cached tokens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from avt_jax import axes
from avt_jax.conversion.store import weights_checksum, write_converted
from avt_jax.data import records
from avt_jax.data.loading import pipeline
from avt_jax.data.loading.config import DataConfig
from avt_jax.data.records.tokens import MAX_VIEWS
from avt_jax.data.records.writer import RecordWriter
from avt_jax.errors import UserError
from avt_jax.experiment.tokens.encoders import ENCODERS, Encoders
from avt_jax.host.new_folder import check_new_folder, new_folder
from avt_jax.host.progress import progress_bar

_FACTS = ("id", "source", "start_sec", "end_sec", "has_audio", "flags", "labels")


@dataclass(frozen=True)
class Cached:
    """What was written.

    Attributes:
      clips: of all splits.
      num_bytes: of all records.
      tokens: what the folder says of them.
    """

    clips: int
    num_bytes: int
    tokens: records.TokensInfo


def cache_tokens(
    encoders: Encoders,
    shards: str,
    out: str | Path,
    *,
    views: int = 0,
    batch_size: int = 8,
    seed: int = 0,
) -> Cached:
    """Runs frozen encoders once over all clips; the folder appears when it is complete.

    Args:
      encoders: see `encoders_of_run`.
      shards: shard folder, or URL of one.
      out: new folder.
      views: of each training clip, varied as a training varies them, beside the unvaried one.
      batch_size: clips at once, >= 1.
      seed: decides how they are varied, >= 0.

    Raises:
      UserError: no such shards, a damaged record, `out` is in use, or tokens that are not finite.
    """
    if not 0 <= views <= MAX_VIEWS:
        raise UserError(f"--views {views}: give 0 to {MAX_VIEWS}.")
    check_new_folder(out)
    info = records.read_info(shards)
    function = encoders.function()
    data = replace(encoders.data, path=shards)
    with new_folder(out) as part:
        checksums = {}
        for name in encoders.modalities:
            write_converted(part / ENCODERS / name, encoders.converted(name))
            checksums[name] = weights_checksum(part / ENCODERS / name)
        writer: RecordWriter | None = None
        total = sum(n * (1 + _views_of(split, views, data)) for split, n in info.splits.items())
        with progress_bar(total, "tokens", "view") as bar:
            for split, views_n, record, tokens in _all(
                function, info, data, views, batch_size, seed
            ):
                bar.update(views_n)
                if writer is None:
                    about = _about(encoders, data, tokens, checksums, views)
                    writer = RecordWriter(
                        part,
                        label_sets=info.label_sets,
                        frame_rate_hz=info.frame_rate_hz,
                        short_side_px=info.short_side_px,
                        jpeg_quality=info.jpeg_quality,
                        multi_label=info.multi_label,
                        tokens=about,
                    )
                stored = {
                    records.tokens_key(name): _stored(array, about.dtype, record)
                    for name, array in tokens.items()
                }
                writer.add(split, {key: record[key] for key in _FACTS} | stored)
        if writer is None:
            raise UserError(f"{shards} holds no clips; extract some.")
        writer.close()
        return Cached(sum(info.splits.values()), writer.num_bytes, about)


def _about(
    encoders: Encoders,
    data: DataConfig,
    tokens: Mapping[str, np.ndarray],
    checksums: Mapping[str, str],
    views: int,
) -> records.TokensInfo:
    """What the folder says of its tokens, of which those of the first clip are there."""
    shapes = {name: (array.shape[1], array.shape[2]) for name, array in tokens.items()}
    config = {**encoders.config, "data": data.to_dict()}
    return records.TokensInfo(shapes, encoders.dtype, config, checksums, views)


def _views_of(split: str, views: int, data: DataConfig) -> int:
    return views if split in records.split_names(data.train_split) else 0


def _all(
    function: Any,
    info: records.RecordsInfo,
    data: DataConfig,
    views: int,
    batch_size: int,
    seed: int,
) -> Iterator[tuple[str, int, Any, dict[str, np.ndarray]]]:
    """(split, number of views, the clip's record, {modality: [views, n, d]}) of every clip."""
    for split in info.splits:
        source = records.open_split(data.path, split)
        count = 1 + _views_of(split, views, data)
        batches = pipeline.view_batches(
            source,
            replace(data, eval_split=split),
            batch_size=batch_size,
            views=count - 1,
            seed=seed,
        )
        waiting: dict[str, list[np.ndarray]] = {}
        clip = 0
        with contextlib.closing(batches):
            for batch in batches:
                found = function(batch)
                for row in range(int(np.sum(batch[axes.VALID]))):
                    for name, tokens_bnd in found.items():
                        waiting.setdefault(name, []).append(tokens_bnd[row])
                    if len(next(iter(waiting.values()))) == count:
                        whole = {name: np.stack(rows) for name, rows in waiting.items()}
                        yield split, count, source.read_lazily(clip), whole
                        waiting, clip = {}, clip + 1


def _stored(tokens_vnd: np.ndarray, dtype: str, record: Any) -> np.ndarray:
    """Tokens as they are stored; float16 that overflows is refused, not kept as infinity."""
    with np.errstate(over="ignore"):
        stored = tokens_vnd.astype(dtype)
    if not np.isfinite(stored).all():
        raise UserError(
            f"what the encoders make of {record['id']} is not finite, or beyond {dtype}; their "
            "weights are broken, or give --config.model.precision=float32."
        )
    return stored
