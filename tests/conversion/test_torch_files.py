"""PyTorch's files of weights: read without running anything in them, or refused in a sentence."""

from __future__ import annotations

import argparse
import io
import json
import pathlib

import numpy as np
import pytest
from weight_files import (
    ARRAYS,
    assert_arrays,
    assert_flips_are_told_or_harmless,
    assert_truncations_are_told,
    read,
)

from avt_jax.conversion.sources import read_state_dict
from avt_jax.errors import UserError


class Touches:
    """Pickled, it is a program that makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def saved(root, **options):
    torch = pytest.importorskip("torch")
    stream = io.BytesIO()
    torch.save(root, stream, **options)
    return stream.getvalue()


def tensors(arrays=ARRAYS):
    torch = pytest.importorskip("torch")
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


@pytest.mark.live_torch
@pytest.mark.parametrize("wrapper", [None, "model", "model_state", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_torch_files_lose_wrappers_and_prefix(tmp_path, wrapper, prefix):
    state_dict = {prefix + name: tensor for name, tensor in tensors().items()}
    beside = {"epoch": 3, "optimizer": {"state": {}}, "args": argparse.Namespace(lr=1e-3)}
    root = {wrapper: state_dict, **beside} if wrapper else state_dict
    assert_arrays(read(tmp_path, "uniformer", saved(root), "weights.pth"))


@pytest.mark.live_torch
def test_torch_files_of_before_zip(tmp_path):
    content = saved({"model": tensors()}, _use_new_zipfile_serialization=False)
    assert_arrays(read(tmp_path, "ast", content))


@pytest.mark.live_torch
def test_torch_types(tmp_path):
    torch = pytest.importorskip("torch")
    half = torch.tensor([1.5, -2])
    found = read(
        tmp_path,
        "ast",
        saved(
            {
                "half": half.half(),
                "bfloat": half.bfloat16(),
                "parameter": torch.nn.Parameter(half),
                "transposed": half.reshape(2, 1).T,
                "num_batches_tracked": torch.tensor(7),
            }
        ),
    )
    want = np.array([1.5, -2], np.float32)
    assert_arrays(
        found,
        {
            "half": want,
            "bfloat": want,
            "parameter": want,
            "transposed": want[None],
            "num_batches_tracked": np.array(7),
        },
    )


@pytest.mark.live_torch
@pytest.mark.parametrize("zip_format", [True, False])
def test_code_in_a_pickle_is_not_run(tmp_path, zip_format):
    target = tmp_path / "touched"
    root = {"model": tensors() | {"extra": Touches(target)}}
    content = saved(root, _use_new_zipfile_serialization=zip_format)
    with pytest.raises(UserError, match="holds code or objects"):
        read(tmp_path, "uniformer", content)
    assert not target.exists()
    (tmp_path / "control.pth").write_bytes(content)
    import torch

    torch.load(tmp_path / "control.pth", weights_only=False)
    assert target.exists(), "the file would have done its work, had it been let"


@pytest.mark.live_torch
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda torch: {}, "holds no arrays"),
        (lambda torch: [torch.ones(2)], "holds a list"),
        (lambda torch: {"a": torch.ones(2), "step": 3}, "has 'step', a int"),
        (lambda torch: {3: torch.ones(2)}, "has 3, a Tensor"),
        (lambda torch: {"model": {"a": {"b": torch.ones(2)}}}, "has 'a', a dict"),
        (lambda torch: {"a": torch.arange(3)}, "a is of type int64"),
        (lambda torch: {"a": torch.ones(2, dtype=torch.complex64)}, "a is of type complex64"),
        (lambda torch: {"a": torch.ones(2).to(torch.float8_e4m3fn)}, "a is no plain array"),
        (lambda torch: {"a": torch.eye(2).to_sparse()}, "a is no plain array"),
        (lambda torch: {"a": torch.ones(2, device="meta")}, "a is no plain array"),
        (lambda torch: {"a": torch.ones(1).expand(1000)}, "claims to be larger than"),
        (lambda torch: {"a": torch.ones(1).expand(2**40)}, "claims to hold"),
        (lambda torch: {"a": torch.tensor([1.0, float("nan")])}, "a has values that are not"),
        (lambda torch: torch.nn.Linear(2, 2), r"\(torch.nn.modules.linear.Linear\)"),
    ],
)
def test_torch_files_refused(tmp_path, make, message):
    content = saved(make(pytest.importorskip("torch")))
    with pytest.raises(UserError, match=message):
        read(tmp_path, "uniformer", content)


@pytest.mark.live_torch
def test_a_state_dict_in_itself(tmp_path):
    root: dict = {}
    root["model"] = root
    with pytest.raises(UserError, match="wraps its weights too often"):
        read(tmp_path, "uniformer", saved(root))


@pytest.mark.live_torch
@pytest.mark.parametrize("zip_format", [True, False])
def test_damaged_torch_files(tmp_path, zip_format):
    content = saved({"model": tensors()}, _use_new_zipfile_serialization=zip_format)
    assert_truncations_are_told(tmp_path, "uniformer", content)
    assert_flips_are_told_or_harmless(tmp_path, "uniformer", content)


@pytest.mark.live_torch
def test_numbers_of_numpy_beside_the_weights(tmp_path):
    beside = {
        "epoch": np.int64(3),
        "best": np.float64(0.5),
        "flag": np.bool_(True),
        "args": argparse.Namespace(lr=np.float32(1e-3)),
    }
    assert_arrays(read(tmp_path, "uniformer", saved({"model": tensors(), **beside})))
    # Files of NumPy 1 name its module otherwise.
    content = saved({"model": tensors(), **beside}, _use_new_zipfile_serialization=False)
    older = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert older != content
    assert_arrays(read(tmp_path, "uniformer", older))


class Calls:
    """Pickled, it calls a function with arguments."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.live_torch
@pytest.mark.parametrize(
    "call",
    [
        (np.dtype, "V10000000000"),
        (np.dtype, "O8"),
        (np._core.multiarray.scalar, np.dtype("f8")),
        (np._core.multiarray.scalar, np.dtype("f8"), b"1234"),
        (np._core.multiarray.scalar, 3, b"1234"),
    ],
)
def test_numbers_of_numpy_are_no_way_in(tmp_path, call):
    with pytest.raises(UserError, match="cannot be read as a PyTorch file"):
        read(tmp_path, "uniformer", saved({"model": tensors(), "x": Calls(*call)}))


@pytest.mark.live_torch
@pytest.mark.parametrize("name", ["model_ema", "state_dict_ema", "ema"])
def test_averaged_weights_of_torch(tmp_path, name):
    average = {"module." + key: 2 * tensor for key, tensor in tensors().items()}
    (tmp_path / "w.pth").write_bytes(saved({"model": tensors(), name: average}))
    said = []
    found = read_state_dict("uniformer", tmp_path / "w.pth", say=said.append)
    assert_arrays(found)
    assert said == [f"taken are the weights under 'model'; {name!r} would be --weights ema"]
    found = read_state_dict("uniformer", tmp_path / "w.pth", weights="ema", say=said.append)
    assert_arrays(found, {key: 2 * array for key, array in ARRAYS.items()})
    (tmp_path / "w.pth").write_bytes(saved({name: average}))
    read_state_dict("uniformer", tmp_path / "w.pth", say=said.append)
    assert said[-2] == f"taken are the averaged weights under {name!r}; there are no others"
    with pytest.raises(UserError, match="has averaged weights only; leave --weights model out"):
        read_state_dict("uniformer", tmp_path / "w.pth", weights="model")
    (tmp_path / "w.pth").write_bytes(saved({"model": tensors()}))
    with pytest.raises(UserError, match="has no averaged weights; leave --weights ema out"):
        read_state_dict("uniformer", tmp_path / "w.pth", weights="ema")


@pytest.mark.live_torch
def test_several_files_of_torch(tmp_path):
    arrays = tensors()
    names = list(arrays)
    for number, some in enumerate((names[:1], names[1:])):
        content = saved({name: arrays[name] for name in some})
        (tmp_path / f"pytorch_model-{number}.bin").write_bytes(content)
    weight_map = {name: f"pytorch_model-{int(name != names[0])}.bin" for name in names}
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert_arrays(read_state_dict("ast", index))
    assert_arrays(read_state_dict("ast", tmp_path))
