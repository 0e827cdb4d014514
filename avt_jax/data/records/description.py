"""What a shard folder says about itself, and whether its shards are as they were written.

A shard folder is a TFDS data set (`dataset_info.json`, `features.json`, `metadata.json`, shards of
ArrayRecord per split), so `tfds.builder_from_directory(folder)` opens it too. TensorFlow is not
needed.
"""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

from avt_jax.data.records.labels import check_sets
from avt_jax.data.records.remote import local_folder
from avt_jax.data.records.schema import (
    CHECKSUM_FILE,
    MULTI_LABEL_VERSION,
    SCHEMA_VERSION,
    RecordsInfo,
    TokensInfo,
)
from avt_jax.errors import UserError, first_line
from avt_jax.host.checksum import sha256_of

# TFDS's own, which `shard_names` fills in.
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_MAX_JSON_BYTES = 64 * 2**20
# Far beyond every data set, and few enough to be looked at in seconds.
_MAX_SHARDS, _MAX_CLIPS = 100_000, 2**40
# Numbers in a clip's tokens of one modality.
_MAX_TOKENS = 2**26


def verify_checksums(path: str | os.PathLike[str]) -> int:
    """Compares every shard with the checksum written when it was made.

    Args:
      path: shard folder, or URL of one.

    Returns:
      The number of shards compared.

    Raises:
      UserError: the checksums are missing or unreadable, or a shard is missing or differs.
    """
    folder = local_folder(path)
    lines = _read_text(folder / CHECKSUM_FILE, folder).splitlines()
    for line in lines:
        match = re.fullmatch(r"([0-9a-f]{64})  ([\w.-]+)", line)
        if not match:
            raise UserError(f"{folder / CHECKSUM_FILE} is damaged: {line[:80]!r}; extract again.")
        digest, name = match.groups()
        if not (folder / name).is_file():
            raise UserError(f"shard {name} is missing from {folder}; extract again.")
        if sha256_of(folder / name) != digest:
            raise UserError(f"shard {folder / name} changed after it was written; extract again.")
    return len(lines)


def _read_text(path: Path, folder: Path) -> str:
    if not folder.is_dir():
        raise UserError(f"no shard folder at {folder}; 'avt extract' makes one.")
    if not path.is_file():
        raise UserError(
            f"{folder} is not a shard folder (no {path.name} in it); "
            "give the folder that 'avt extract --out' made."
        )
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise UserError(
            f"{path} is larger than {_MAX_JSON_BYTES} bytes, which no extraction makes."
        )
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}.") from error


def _read_json(path: Path, folder: Path) -> Any:
    try:
        return json.loads(_read_text(path, folder))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({first_line(error)}); extract again.") from error


def shard_lengths(path: str | os.PathLike[str]) -> dict[str, list[int]]:
    """How many records each shard of each split has; the files are called as `shard_names` says.

    Args:
      path: shard folder, or URL of one.

    Raises:
      UserError: no such folder, or it is damaged.
    """
    folder = local_folder(path, ())
    file = folder / "dataset_info.json"
    info = _read_json(file, folder)
    try:
        splits = {str(s["name"]): s for s in info.get("splits", [])}
        lengths = {name: [int(n) for n in s["shardLengths"]] for name, s in splits.items()}
        templates = {s.get("filepathTemplate", _TEMPLATE) for s in splits.values()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file} is damaged ({error!r}); extract again.") from error
    if templates - {_TEMPLATE} or any(os.path.basename(name) != name for name in splits):
        raise UserError(
            f"{file} names files outside of its folder, or otherwise than 'avt extract' does; "
            "extract again."
        )
    return lengths


def read_info(path: str | os.PathLike[str]) -> RecordsInfo:
    """Reads what a shard folder of clips says about itself, without opening a shard.

    Args:
      path: shard folder, or URL of one.

    Returns:
      Its label sets, splits and extraction settings.

    Raises:
      UserError: as `read_description`, or it holds cached tokens.
    """
    info = read_description(path)
    if info.tokens is not None:
        raise UserError(
            f"{path} holds cached tokens, no clips; 'avt train --config own:tokens "
            f"--config.data.path={path}' trains on them, 'avt evaluate' judges that run."
        )
    return info


def read_description(path: str | os.PathLike[str]) -> RecordsInfo:
    """Reads what a shard folder, of clips or of tokens, says about itself.

    Args:
      path: shard folder, or URL of one.

    Returns:
      Its label sets, splits and extraction settings.

    Raises:
      UserError: no such folder, not a shard folder, damaged, or written by an incompatible version.
    """
    folder = local_folder(path, ())
    info = _read_json(folder / "dataset_info.json", folder)
    metadata = _read_json(folder / "metadata.json", folder)
    try:
        version = str(metadata["schema_version"])
        label_sets = {name: _classes(name, v) for name, v in metadata["label_sets"].items()}
        result = RecordsInfo(
            label_sets=label_sets,
            splits=_splits(info["splits"]),
            frame_rate_hz=float(metadata["frame_rate_hz"]),
            short_side_px=int(metadata["short_side_px"]),
            jpeg_quality=int(metadata["jpeg_quality"]),
            schema_version=version,
            multi_label=check_sets(metadata.get("multi_label", []), label_sets),
            tokens=_tokens(metadata.get("tokens")),
        )
        if not 0 < result.frame_rate_hz < math.inf:
            raise ValueError(f"frame_rate_hz {result.frame_rate_hz:g}")
        if not result.label_sets:
            raise ValueError("no label set")
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        reason = first_line(error) if isinstance(error, ValueError) else f"{error!r:.160}"
        raise UserError(
            f"{folder} is a data set, but not one that 'avt extract' wrote ({reason} in its "
            "dataset_info.json or metadata.json)."
        ) from error
    ours = MULTI_LABEL_VERSION if result.multi_label else SCHEMA_VERSION
    if not re.fullmatch(rf"{ours.split('.')[0]}\.\d{{1,4}}\.\d{{1,4}}", version):
        raise UserError(
            f"{folder} has record schema {version[:40]}, this version reads {ours}; extract again."
        )
    return result


def _tokens(found: Any) -> TokensInfo | None:
    """What is said of cached tokens, if any; ValueError and the like where it makes no sense."""
    if found is None:
        return None
    shapes = {str(name): (int(shape[0]), int(shape[1])) for name, shape in found["shapes"].items()}
    if not shapes or not shapes.keys() <= {"video", "audio"}:
        raise ValueError(f"tokens of {list(shapes)!r:.80}")
    for count, width in shapes.values():
        if not (0 < count <= _MAX_TOKENS and 0 < width <= _MAX_TOKENS // count):
            raise ValueError(f"tokens of shape {count} x {width}")
    if found["dtype"] not in ("float16", "float32"):
        raise ValueError(f"tokens of type {found['dtype']!r:.40}")
    blocks = {name: dict(found["config"][name]) for name in ("model", "data")}
    for name in ("video_encoder", "audio_encoder"):
        dict(blocks["model"].get(name, {}))  # a block, too
    encoders = {str(name): str(digest) for name, digest in found["encoders"].items()}
    return TokensInfo(shapes, found["dtype"], blocks, encoders, int(found["views"]))


def _classes(label_set: str, names: Any) -> tuple[str, ...]:
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise ValueError(f"label set {label_set!r:.80} is no list of class names")
    return tuple(names)


def _splits(splits: Any) -> dict[str, int]:
    """{split: clips}."""
    found: dict[str, int] = {}
    for split in splits:
        name, lengths = split["name"], split["shardLengths"]
        if not isinstance(name, str) or not isinstance(lengths, list) or name in found:
            raise ValueError(f"split {name!r:.80}")
        if len(lengths) > _MAX_SHARDS:
            raise ValueError(f"split {name!r:.80} with {len(lengths)} shards")
        counts = [int(length) for length in lengths]
        if min(counts, default=-1) < 0 or sum(counts) > _MAX_CLIPS:
            raise ValueError(f"split {name!r:.80} with impossible numbers of clips")
        found[name] = sum(counts)
    if not found:
        raise ValueError("no split")
    return found
