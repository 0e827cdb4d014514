"""Published weight files as flat mappings of names to arrays.

A file's content says what it is, not its name. It may come from anywhere: nothing in it is ever
run, and what it claims about sizes is checked against what it holds before memory is taken.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from flax.serialization import msgpack_restore
from safetensors import deserialize

from avt_jax.conversion.files import folders
from avt_jax.conversion.files.reading import (
    MODEL,
    TITLES,
    Say,
    check_bytes,
    choose,
    reading,
    silent,
)
from avt_jax.conversion.files.torch_files import read_torch
from avt_jax.errors import UserError, nearest

# kind -> formats its weights are published in.
_FORMATS = {
    "uniformer": ("torch", "safetensors"),
    "ast": ("torch", "safetensors"),
    "vit": ("npz",),
    "mbt": ("msgpack", "npz"),
}
# Prefixes that say how a model was wrapped, not what it is called; all names have them or none.
_PYTORCH_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")
_PREFIXES = {
    "torch": _PYTORCH_PREFIXES,
    "safetensors": _PYTORCH_PREFIXES,
    "npz": ("opt/target/", "params/"),
    "msgpack": (),
}
# Flax's name for averaged parameters in a train state.
_AVERAGED = "ema_params"
# mmaction2's name for what stands beside the backbone.
_BESIDE_BACKBONE = "cls_head."
_SAFETENSORS_TYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(jnp.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_MOST_HEADER_BYTES = 100_000_000  # safetensors' own limit


def read_state_dict(
    kind: str, path: str | Path, *, weights: str | None = None, say: Say = silent
) -> dict[str, np.ndarray]:
    """Reads published weights.

    Args:
      kind: "uniformer" or "ast": a file of PyTorch (read with `weights_only=True`; needs the extra
        `convert`) or of safetensors, the index of several, or a folder of Hugging Face; "vit": an
        npz file; "mbt": a Flax checkpoint or an npz file.
      path: the file or folder.
      weights: of a file that has both, "model" as trained, or "ema", averaged; None = as trained.
      say: is told which weights are taken and which prefixes are left out.

    Returns:
      {official name: array}, without wrappers and the prefixes they leave on every name; for vit
      and mbt names are `/`-joined paths. Weights are float32 or float64 and finite (float16 and
      bfloat16 become float32); integers only occur as single numbers, such as counters.

    Raises:
      UserError: no such file, not a file of this kind, damaged, larger than can be, with code or
        objects in it, or with values that are no weights.
    """
    path = Path(path)
    if kind not in _FORMATS:
        raise UserError(
            f"{kind!r} is no kind of weights{nearest(kind, _FORMATS)}; "
            f"give one of {', '.join(_FORMATS)}."
        )
    path = folders.weight_file(path)
    arrays: dict[str, np.ndarray] = {}
    if folders.is_index(path):
        _check_file(path)
        parts = folders.shards_of(path)
        check_bytes(path, sum(file.stat().st_size for file in parts))
        for file, names in parts.items():
            form, found = _read(kind, file, weights, say)
            if missing := [name for name in names if name not in found]:
                raise UserError(
                    f"{file} does not hold {missing[0]}, which {path.name} says is in it; "
                    "download both again."
                )
            arrays |= {name: found[name] for name in names}
    else:
        form, arrays = _read(kind, path, weights, say)
    if not arrays:
        raise UserError(f"{path} holds no arrays; give a file with a model's weights.")
    arrays = _without_prefixes(arrays, _PREFIXES[form], say)
    return {name: _weight(path, name, array) for name, array in arrays.items()}


def _read(
    kind: str, path: Path, weights: str | None, say: Say
) -> tuple[str, dict[str, np.ndarray]]:
    """(format, {name: array}) of one file."""
    _check_file(path)
    found = _format_of(path)
    if found not in _FORMATS[kind]:
        expected = " or ".join(TITLES[name] for name in _FORMATS[kind])
        raise UserError(
            f"{path} is {TITLES[found]}, but {kind} weights are read from {expected}; "
            "check the kind and the file."
        )
    if found in _OF_EITHER:
        return found, _OF_EITHER[found](path, weights, say)
    choose(path, MODEL, None, weights, say)
    return found, _READERS[found](path)


def _without_prefixes(
    arrays: dict[str, np.ndarray], prefixes: Sequence[str], say: Say
) -> dict[str, np.ndarray]:
    """The arrays without what all of their names begin with, if that says how they were wrapped."""
    gone: list[str] = []
    while prefix := next((one for one in prefixes if _has(arrays, one)), None):
        shorter = {name.removeprefix(prefix): array for name, array in arrays.items()}
        if len(shorter) < len(arrays):
            break  # two of one name: told where the names are given their places
        gone.append(prefix)
        arrays = shorter
    if gone:
        say(f"left out of every name: {''.join(gone)}")
    return arrays


def _has(arrays: Mapping[str, Any], prefix: str) -> bool:
    beside = (prefix, _BESIDE_BACKBONE) if prefix == "backbone." else (prefix,)
    found = [name for name in arrays if name.startswith(prefix)]
    return bool(found) and all(name.startswith(beside) and name != prefix for name in arrays)


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path} does not exist or is no file; give the published weight file.")
    try:
        with open(path, "rb") as stream:
            empty = not stream.read(1)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}); check its permissions.") from error
    if empty:
        raise UserError(f"{path} is empty; download it again.")
    check_bytes(path, path.stat().st_size)


def _format_of(path: Path) -> str:
    with open(path, "rb") as stream:
        head = stream.read(64)
    if head.startswith(b"PK\x03\x04"):
        return _zip_format(path)
    # Before pickles: the length of a header may begin as they do.
    if int.from_bytes(head[:8], "little") <= _MOST_HEADER_BYTES and head[8:9] == b"{":
        return "safetensors"
    if re.match(rb"\x80[\x01-\x05]", head):
        return "torch"  # before version 1.6: pickles, one after the other
    # A map that is not empty, small, of 16 or of 32 bits, whose first key is a string.
    if re.match(rb"([\x81-\x8f]|\xde..|\xdf....)[\xa0-\xbf\xd9-\xdb]", head, re.DOTALL):
        return "msgpack"
    hint = "give the published file"
    if head.lstrip().startswith((b"version https://git-lfs", b"<")):
        hint = "it is a text that stands for the file, or a web page: download the file itself"
    raise UserError(
        f"{path} starts with {head[:12]!r} and is none of {', '.join(TITLES.values())}; {hint}."
    )


def _zip_format(path: Path) -> str:
    with reading(path, "a zip file"), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.split("/")[-1] == "data.pkl" for name in names):
        return "torch"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    raise UserError(
        f"{path} is a zip file without weights ({', '.join(names[:3])} ...); if the weights are "
        "packed in it, unpack them and give the file inside."
    )


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    # Not `safetensors.numpy.load_file`, which has no bfloat16.
    with reading(path, TITLES["safetensors"]):
        arrays = {}
        for name, tensor in deserialize(path.read_bytes()):
            if tensor["dtype"] not in _SAFETENSORS_TYPES:
                raise _not_a_number(path, name, tensor["dtype"])
            dtype = _SAFETENSORS_TYPES[tensor["dtype"]]
            arrays[name] = np.frombuffer(tensor["data"], dtype).reshape(tensor["shape"])
        return arrays


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with reading(path, TITLES["npz"]):
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            check_bytes(path, sum(entry.file_size for entry in entries))
            if len({entry.filename for entry in entries}) != len(entries):
                raise ValueError("one name occurs twice")
            for entry in entries:
                with archive.open(entry) as stream:
                    _check_npy(path, entry, stream)
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)


def _check_npy(path: Path, entry: zipfile.ZipInfo, stream: IO[bytes]) -> None:
    # NumPy allocates what a header claims and only then looks for the data.
    version = np.lib.format.read_magic(stream)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in read_header:
        raise ValueError(f"{entry.filename} has npy version {version}")
    shape, _, dtype = read_header[version](stream)
    name = entry.filename.removesuffix(".npy")
    if dtype.hasobject:
        raise UserError(
            f"{path}: {name} holds Python objects, which are never loaded; save numbers only."
        )
    if math.prod(shape) * dtype.itemsize != entry.file_size - stream.tell():
        raise ValueError(f"{name} claims the shape {shape} and holds {entry.file_size} bytes")


def _read_msgpack(path: Path, wanted: str | None, say: Say) -> dict[str, np.ndarray]:
    with reading(path, TITLES["msgpack"]):
        arrays = {}
        root = _parameters(path, path.read_bytes(), wanted, say)
        for keys, leaf in traverse_util.flatten_dict(root).items():
            name = "/".join(map(str, keys))
            if not isinstance(leaf, np.ndarray | np.generic) or name in arrays:
                raise UserError(
                    f"{path} has {name!r}, a {type(leaf).__name__}, among its parameters, where "
                    "only arrays with names of their own belong; give a Flax checkpoint."
                )
            arrays[name] = np.asarray(leaf)
        return arrays


def _parameters(path: Path, content: bytes, wanted: str | None, say: Say) -> dict[str, Any]:
    """The parameters in a train state of Flax or Scenic, or the tree itself."""
    root = msgpack_restore(content)
    there = root if isinstance(root, dict) else {}
    trained = any(isinstance(there.get(key), dict) for key in ("optimizer", "target", "params"))
    averaged = _AVERAGED if isinstance(there.get(_AVERAGED), dict) else None
    model = "params" if trained or averaged is None else None
    if choose(path, model, averaged, wanted, say) == _AVERAGED:
        root = {"params": there[_AVERAGED]}
    for keys in (("optimizer", "target"), ("target",), ("params",), ()):
        node = root
        for key in keys:
            node = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, dict) and node:
            inner = node.get("params")
            return inner if isinstance(inner, dict) else node
    raise UserError(f"{path} holds no parameters; give a Flax checkpoint of a model.")


def _weight(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype in (np.float16, jnp.bfloat16):
        array = array.astype(np.float32)
    if array.dtype.kind in "iub" and array.ndim == 0:
        return array  # counters of BatchNorm and the like
    if array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8):
        raise _not_a_number(path, name, array.dtype)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if not np.isfinite(array).all():
        raise UserError(
            f"{path}: {name} has values that are not finite (NaN or infinity); "
            "the training that made it went wrong, give other weights."
        )
    return array


def _not_a_number(path: Path, name: str, dtype: Any) -> UserError:
    return UserError(
        f"{path}: {name} is of type {dtype}, weights are floating point; save it as float32."
    )


_READERS = {"safetensors": _read_safetensors, "npz": _read_npz}
# Formats that may have two sets of weights.
_OF_EITHER = {"torch": read_torch, "msgpack": _read_msgpack}
