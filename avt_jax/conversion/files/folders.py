"""Weights in several files, and what Hugging Face's config.json says of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avt_jax.conversion.files.reading import read_json
from avt_jax.errors import UserError
from avt_jax.host.checksum import sha256_of

_INDEX_SUFFIX = ".index.json"
# In a folder of Hugging Face, the better format first.
_FILES = ("model.safetensors", "pytorch_model.bin")
_WANTED = tuple(name + end for name in _FILES for end in ("", _INDEX_SUFFIX))
_CONFIG = "config.json"
_MOST_SHARDS = 1000


def weight_file(path: Path) -> Path:
    """The weight file, or index of several, that a path stands for.

    Args:
      path: the file itself, or a folder of Hugging Face.

    Raises:
      UserError: a folder without such a file.
    """
    if not path.is_dir():
        return path
    for name in _WANTED:
        if (path / name).is_file():
            return path / name
    raise UserError(
        f"{path} is a folder without {', '.join(_WANTED)}; give one that has one of these, or the "
        "weight file itself."
    )


def is_index(path: Path) -> bool:
    """Whether a file is the index of several."""
    return path.name.endswith(_INDEX_SUFFIX)


def shards_of(index: Path) -> dict[Path, list[str]]:
    """The files that an index names, and the arrays to be read of each.

    Raises:
      UserError: the index is damaged, names a file elsewhere, or one that is missing.
    """
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index} names no weights (weight_map is missing); download it again.")
    found: dict[Path, list[str]] = {}
    for name, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file or file in ("", ".", ".."):
            raise UserError(
                f"{index} says that {name} is in {file!r}, which is no file beside it; nothing "
                "else is read, download it again."
            )
        found.setdefault(index.parent / file, []).append(name)
    if len(found) > _MOST_SHARDS:
        raise UserError(f"{index} names {len(found)} files, at most {_MOST_SHARDS} are read.")
    for path in found:
        if not path.is_file():
            raise UserError(f"{index} names {path.name}, which is missing; download it, too.")
    return found


def files_of(path: Path) -> Sequence[Path]:
    """The weight files that a path stands for: one, or those of an index."""
    path = weight_file(path)
    return [*shards_of(path)] if is_index(path) else [path]


def checksum(path: Path) -> str:
    """SHA-256 of the weight file; of several, of the lines `sha256sum` prints of them, sorted."""
    files = files_of(path)
    if len(files) == 1:
        return sha256_of(files[0])
    lines = sorted(f"{sha256_of(file)}  {file.name}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def published_config(path: Path, model_type: str) -> Mapping[str, Any]:
    """What config.json beside the weights says; {} where there is none, or of another model.

    Raises:
      UserError: it is damaged.
    """
    config = weight_file(path).parent / _CONFIG
    if not model_type or not config.is_file():
        return {}
    found = read_json(config)
    return found if found.get("model_type") == model_type else {}
