"""Weight files of PyTorch, read with `weights_only=True`: no code in them is run."""

from __future__ import annotations

import argparse
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from avt_jax.conversion.files.reading import MODEL, TITLES, Say, check_bytes, choose, reading
from avt_jax.errors import UserError, first_line

# Names under which programs put a state dict beside epoch numbers, arguments and optimisers.
_WRAPPERS = ("model", "model_state", "state_dict", "model_state_dict", "module")
_AVERAGED = ("model_ema", "state_dict_ema", "ema_state_dict", "model_ema_state_dict", "ema")
_MOST_WRAPPERS = len(_WRAPPERS)
# NumPy's names of plain numbers.
_NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


def read_torch(path: Path, wanted: str | None, say: Say) -> dict[str, np.ndarray]:
    """The state dict in a file of PyTorch.

    Args:
      path: the file.
      wanted: see `reading.choose`.
      say: is told which of two sets of weights are taken.

    Raises:
      UserError: PyTorch is missing, the file is damaged, or holds something else.
    """
    if zipfile.is_zipfile(path):
        _check_zip(path)
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path} is a PyTorch file, and PyTorch is not installed; "
            "run: pip install 'avt_jax[convert]'."
        ) from error
    allowed = torch.serialization.safe_globals(_harmless())
    with reading(path, TITLES["torch"]), warnings.catch_warnings(), allowed:
        warnings.simplefilter("ignore")  # of pickle protocols; what matters raises
        try:
            root = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            _complain_of_code(path, error)
            raise
    state_dict = _unwrapped(path, root, wanted, say)
    for name, tensor in state_dict.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise UserError(
                f"{path} has {name!r}, a {type(tensor).__name__}, where only named tensors belong; "
                "give a file with a model's state dict."
            )
    check_bytes(path, sum(t.numel() * t.element_size() for t in state_dict.values()))
    halves = (torch.float16, torch.bfloat16)
    return {name: _from_tensor(path, name, t, halves) for name, t in state_dict.items()}


def _harmless() -> list[Any]:
    """What training programs put beside the weights, and of which making one runs nothing.

    Their arguments are a Namespace, a bag of attributes; scores and epochs are often numbers of
    NumPy, which files of NumPy 1 and 2 name differently. NumPy's own functions would make types
    and numbers of any size.
    """
    numbers = [(_number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    # A type's byte order is set after it was made.
    kinds = {type(np.dtype(name)) for name in _NUMBERS}
    return [argparse.Namespace, *kinds, (_number_type, "numpy.dtype"), *numbers]


def _number_type(name: str, *how: bool) -> np.dtype[Any]:
    """In place of `numpy.dtype`: plain numbers alone."""
    if name not in _NUMBERS:
        raise ValueError(f"{name!r} is no type of a number")
    return np.dtype(name, *how)


def _number(kind: np.dtype[Any], content: bytes) -> Any:
    """In place of NumPy's own: a number from its bytes."""
    if not isinstance(kind, np.dtype) or kind.str[1:] not in _NUMBERS:
        raise ValueError(f"{kind!r} is no type of a number")
    if not isinstance(content, bytes) or len(content) != kind.itemsize:
        raise ValueError("a number has another length than its type")
    return np.frombuffer(content, kind)[0]


def _check_zip(path: Path) -> None:
    # PyTorch stores entries uncompressed and does not look at their checksums.
    with reading(path, TITLES["torch"]), zipfile.ZipFile(path) as archive:
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


def _unwrapped(path: Path, root: Any, wanted: str | None, say: Say) -> Mapping[str, Any]:
    for _ in range(_MOST_WRAPPERS):  # a dict may contain itself
        if not isinstance(root, dict):
            raise UserError(
                f"{path} holds a {type(root).__name__}, not a state dict; "
                "save it with torch.save(model.state_dict(), ...)."
            )
        model, averaged = (
            next((name for name in names if isinstance(root.get(name), dict)), None)
            for names in (_WRAPPERS, _AVERAGED)
        )
        if model is None and averaged is None:
            if wanted not in (None, MODEL):
                choose(path, None, None, wanted, say)  # raises
            return root
        if averaged is not None:
            taken = choose(path, model, averaged, wanted, say)
            wanted = None  # what is in it is wrapped once more, and nothing to choose
        else:
            taken = model
        root = root[taken]
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
