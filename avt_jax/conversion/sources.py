"""Published weight files as flat mappings of names to arrays.

A file's content says what it is, not its name. It may come from anywhere: nothing in it is ever
run, and what it claims about sizes is checked against what it holds before memory is taken.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from flax.serialization import msgpack_restore
from safetensors import deserialize

from avt_jax.errors import UserError, first_line, nearest

# Ten times the largest of these models with an optimiser's state.
_MOST_BYTES = 8 * 2**30
_TITLES = {
    "torch": "a PyTorch file",
    "safetensors": "a safetensors file",
    "npz": "an npz file",
    "msgpack": "a Flax checkpoint (msgpack)",
}
# kind -> formats its weights are published in.
_FORMATS = {
    "uniformer": ("torch", "safetensors"),
    "ast": ("torch", "safetensors"),
    "vit": ("npz",),
    "mbt": ("msgpack", "npz"),
}
# Prefixes that say how a model was wrapped, not what it is called; all names have them or none.
_PREFIXES = {
    "torch": ("module.",),
    "safetensors": ("module.",),
    "npz": ("opt/target/", "params/"),
    "msgpack": (),
}
# Names under which programs put a state dict beside epoch numbers, arguments and optimisers.
_WRAPPERS = ("model", "model_state", "state_dict", "model_state_dict", "module")
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


def read_state_dict(kind: str, path: str | Path) -> dict[str, np.ndarray]:
    """Reads a published weight file.

    Args:
      kind: "uniformer" or "ast": a file of PyTorch (read with `weights_only=True`; needs the extra
        `convert`) or of safetensors; "vit": an npz file; "mbt": a Flax checkpoint or an npz file.
      path: the file.

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
    _check_file(path)
    found = _format_of(path)
    if found not in _FORMATS[kind]:
        expected = " or ".join(_TITLES[name] for name in _FORMATS[kind])
        raise UserError(
            f"{path} is {_TITLES[found]}, but {kind} weights are read from {expected}; "
            "check the kind and the file."
        )
    arrays = _READERS[found](path)
    if not arrays:
        raise UserError(f"{path} holds no arrays; give a file with a model's weights.")
    for prefix in _PREFIXES[found]:
        if all(name.startswith(prefix) for name in arrays):
            arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    return {name: _weight(path, name, array) for name, array in arrays.items()}


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the weight file itself.")
    if not path.is_file():
        raise UserError(f"{path} does not exist or is no file; give the published weight file.")
    try:
        with open(path, "rb") as stream:
            empty = not stream.read(1)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}); check its permissions.") from error
    if empty:
        raise UserError(f"{path} is empty; download it again.")
    _check_bytes(path, path.stat().st_size)


def _check_bytes(path: Path, count: int) -> None:
    if count > _MOST_BYTES:
        raise UserError(
            f"{path} claims to hold {count / 2**30:.1f} GiB, more than any of these models "
            f"({_MOST_BYTES // 2**30} GiB are read at most); give a file with the weights only."
        )


def _format_of(path: Path) -> str:
    with open(path, "rb") as stream:
        head = stream.read(64)
    if head.startswith(b"PK\x03\x04"):
        return _zip_format(path)
    if re.match(rb"\x80[\x01-\x05]", head):
        return "torch"  # before version 1.6: pickles, one after the other
    if int.from_bytes(head[:8], "little") <= _MOST_HEADER_BYTES and head[8:9] == b"{":
        return "safetensors"
    # A map that is not empty, small, of 16 or of 32 bits, whose first key is a string.
    if re.match(rb"([\x81-\x8f]|\xde..|\xdf....)[\xa0-\xbf\xd9-\xdb]", head, re.DOTALL):
        return "msgpack"
    hint = "give the published file"
    if head.lstrip().startswith((b"version https://git-lfs", b"<")):
        hint = "it is a text that stands for the file, or a web page: download the file itself"
    raise UserError(
        f"{path} starts with {head[:12]!r} and is none of {', '.join(_TITLES.values())}; {hint}."
    )


def _zip_format(path: Path) -> str:
    with _reading(path, "a zip file"), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.split("/")[-1] == "data.pkl" for name in names):
        return "torch"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    raise UserError(
        f"{path} is a zip file without weights ({', '.join(names[:3])} ...); if the weights are "
        "packed in it, unpack them and give the file inside."
    )


@contextlib.contextmanager
def _reading(path: Path, title: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"{path} needs more memory than there is; use a larger machine.") from error
    except Exception as error:
        # Given a damaged file, the libraries raise a good dozen types, no two of them alike.
        raise UserError(
            f"{path} cannot be read as {title} ({first_line(error)}); it is damaged or "
            "incomplete: download it again."
        ) from error


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    if zipfile.is_zipfile(path):
        _check_torch_zip(path)
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path} is a PyTorch file, and PyTorch is not installed; "
            "run: pip install 'avt_jax[convert]'."
        ) from error
    # The authors' training programs put their arguments, a Namespace, beside the weights. It is a
    # bag of attributes; making one runs nothing.
    allowed = torch.serialization.safe_globals([argparse.Namespace])
    with _reading(path, _TITLES["torch"]), warnings.catch_warnings(), allowed:
        warnings.simplefilter("ignore")  # of pickle protocols; what matters raises
        try:
            root = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            _complain_of_code(path, error)
            raise
    state_dict = _unwrapped(path, root)
    for name, tensor in state_dict.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise UserError(
                f"{path} has {name!r}, a {type(tensor).__name__}, where only named tensors belong; "
                "give a file with a model's state dict."
            )
    _check_bytes(path, sum(t.numel() * t.element_size() for t in state_dict.values()))
    halves = (torch.float16, torch.bfloat16)
    return {name: _from_tensor(path, name, t, halves) for name, t in state_dict.items()}


def _check_torch_zip(path: Path) -> None:
    # PyTorch stores entries uncompressed and does not look at their checksums.
    with _reading(path, _TITLES["torch"]), zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.filename.endswith("/constants.pkl") for entry in entries):
            raise UserError(
                f"{path} is a TorchScript program, which is never run; save its weights alone: "
                "torch.save(model.state_dict(), ...)."
            )
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("compressed entries, which PyTorch does not write")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its entries claim more than the file holds")
        damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged} does not match")


def _complain_of_code(path: Path, error: Exception) -> None:
    if type(error).__name__ != "UnpicklingError":
        return
    # PyTorch's own message goes on to advise loading the file all the same: not repeated here.
    code = re.findall(r"GLOBAL ([\w.]+)", str(error)) or ["a plain pickle"]
    raise UserError(
        f"{path} holds code or objects beside its arrays ({code[-1]}), which are "
        "never loaded; where you trust the file, save its weights alone: "
        "torch.save(model.state_dict(), ...)."
    ) from error


def _unwrapped(path: Path, root: Any) -> Mapping[str, Any]:
    for _ in range(len(_WRAPPERS)):  # a dict may contain itself
        if not isinstance(root, dict):
            raise UserError(
                f"{path} holds a {type(root).__name__}, not a state dict; "
                "save it with torch.save(model.state_dict(), ...)."
            )
        inner = [root[name] for name in _WRAPPERS if isinstance(root.get(name), dict)]
        if not inner:
            return root
        root = inner[0]
    raise UserError(f"{path} wraps its weights too often; save the state dict itself.")


def _from_tensor(path: Path, name: str, tensor: Any, halves: tuple[Any, ...]) -> np.ndarray:
    try:
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError("it claims to be larger than what is stored of it")
        tensor = tensor.detach()
        return (tensor.float() if tensor.dtype in halves else tensor).numpy()
    except Exception as error:
        raise UserError(
            f"{path}: {name} is no plain array ({first_line(error)}); save the weights as "
            "ordinary float32 tensors."
        ) from error


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    # Not `safetensors.numpy.load_file`, which has no bfloat16.
    with _reading(path, _TITLES["safetensors"]):
        arrays = {}
        for name, tensor in deserialize(path.read_bytes()):
            if tensor["dtype"] not in _SAFETENSORS_TYPES:
                raise _not_a_number(path, name, tensor["dtype"])
            dtype = _SAFETENSORS_TYPES[tensor["dtype"]]
            arrays[name] = np.frombuffer(tensor["data"], dtype).reshape(tensor["shape"])
        return arrays


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with _reading(path, _TITLES["npz"]):
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_bytes(path, sum(entry.file_size for entry in entries))
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


def _read_msgpack(path: Path) -> dict[str, np.ndarray]:
    with _reading(path, _TITLES["msgpack"]):
        arrays = {}
        for keys, leaf in traverse_util.flatten_dict(_parameters(path, path.read_bytes())).items():
            name = "/".join(map(str, keys))
            if not isinstance(leaf, np.ndarray | np.generic) or name in arrays:
                raise UserError(
                    f"{path} has {name!r}, a {type(leaf).__name__}, among its parameters, where "
                    "only arrays with names of their own belong; give a Flax checkpoint."
                )
            arrays[name] = np.asarray(leaf)
        return arrays


def _parameters(path: Path, content: bytes) -> dict[str, Any]:
    """The parameters in a train state of Flax or Scenic, or the tree itself."""
    root = msgpack_restore(content)
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


_READERS = {
    "torch": _read_torch,
    "safetensors": _read_safetensors,
    "npz": _read_npz,
    "msgpack": _read_msgpack,
}
