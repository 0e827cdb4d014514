"""Published weight files: every format read, everything hostile or broken refused in a sentence."""

from __future__ import annotations

import argparse
import io
import json
import pathlib
import sys
import zipfile

import numpy as np
import pytest
from flax import serialization
from safetensors.numpy import save

from avt_jax.conversion.files import reading
from avt_jax.conversion.sources import read_state_dict
from avt_jax.errors import UserError

ARRAYS = {
    "cls": np.full((1, 1, 4), 0.5, np.float32),
    "Transformer/encoderblock_0/LayerNorm_0/scale": np.arange(4, dtype=np.float32),
    "head/kernel": np.arange(12, dtype=np.float32).reshape(4, 3),
}


def npz(arrays=ARRAYS, *, compressed=False):
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, **arrays)
    return stream.getvalue()


def tree(arrays=ARRAYS):
    root: dict = {}
    for name, array in arrays.items():
        node = root
        *parents, last = name.split("/")
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = array
    return root


def msgpack(root):
    return serialization.msgpack_serialize(root)


def safetensors_with_header(header, data=b""):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def zipped(entries, compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return stream.getvalue()


def read(tmp_path, kind, content, name="weights.bin"):
    path = tmp_path / name
    path.write_bytes(content)
    return read_state_dict(kind, path)


def assert_arrays(found, want=ARRAYS):
    assert found.keys() == want.keys()
    for name, array in want.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


# kind, content: one sound file of every format that needs no PyTorch.
SOUND = {
    "vit-npz": ("vit", npz()),
    "vit-npz-compressed": ("vit", npz(compressed=True)),
    "ast-safetensors": ("ast", save(ARRAYS)),
    "mbt-msgpack": ("mbt", msgpack({"optimizer": {"target": tree()}, "step": 3})),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_files_give_their_arrays(tmp_path, name):
    assert_arrays(read(tmp_path, *SOUND[name]))


@pytest.mark.parametrize("prefix", ["opt/target/", "params/"])
@pytest.mark.parametrize("kind", ["vit", "mbt"])
def test_npz_prefixes_go_where_all_names_have_them(tmp_path, kind, prefix):
    wrapped = {prefix + name: array for name, array in ARRAYS.items()}
    assert_arrays(read(tmp_path, kind, npz(wrapped)))
    mixed = wrapped | {"other": np.ones(2, np.float32)}
    assert_arrays(read(tmp_path, kind, npz(mixed)), mixed)


@pytest.mark.parametrize(
    "root",
    [
        tree(),
        {"params": tree()},
        {"optimizer": {"target": tree(), "state": {"step": 1}}, "params": None},
        {"optimizer": {"target": {"params": tree()}}},
        {"optimizer": None, "params": {"params": tree()}, "global_step": 7},
        {"target": tree(), "state": {}},
    ],
)
def test_parameters_are_found_in_a_train_state(tmp_path, root):
    assert_arrays(read(tmp_path, "mbt", msgpack(root), "checkpoint_1234"))


def test_arrays_that_flax_wrote_in_chunks_are_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 20)
    content = msgpack({"params": tree()})
    assert b"__msgpack_chunked_array__" in content
    assert_arrays(read(tmp_path, "mbt", content))


def test_half_precision_becomes_float32_and_counters_stay(tmp_path):
    arrays = {
        "a": np.array([1.5, -2], np.float16),
        "b": np.array([0.1], np.float64),
        "n": np.array(3, np.int64),
    }
    want = arrays | {"a": np.array([1.5, -2], np.float32)}
    for kind, content in (("vit", npz(arrays)), ("ast", save(arrays)), ("mbt", msgpack(arrays))):
        assert_arrays(read(tmp_path, kind, content), want)


def test_bfloat16_of_safetensors(tmp_path):
    header = {"module.a": {"dtype": "BF16", "shape": [2, 1], "data_offsets": [0, 4]}}
    found = read(tmp_path, "ast", safetensors_with_header(header, b"\x80\x3f\x00\xc0"))
    assert_arrays(found, {"a": np.array([[1], [-2]], np.float32)})


def test_a_header_whose_length_begins_like_a_pickle(tmp_path):
    header = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode().ljust(0x280)
    content = len(text).to_bytes(8, "little") + text + bytes(4)
    assert content.startswith(b"\x80\x02")
    assert_arrays(read(tmp_path, "ast", content), {"a": np.zeros(1, np.float32)})


def test_big_endian_and_fortran_order(tmp_path):
    array = np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3))
    found = read(tmp_path, "vit", npz({"a": array}))["a"]
    assert found.dtype == np.dtype("=f4") and found.dtype.isnative
    np.testing.assert_array_equal(found, array)


def npz_entry(header_shape, dtype="<f4", content=bytes(16)):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": dtype, "fortran_order": False, "shape": header_shape}
    )
    return stream.getvalue() + content


HUGE = 2**40
REFUSED = {
    "unknown kind": ("vitt", npz(), "did you mean 'vit'"),
    "empty": ("vit", b"", "is empty"),
    "npz for safetensors": ("ast", npz(), "is an npz file, but ast weights are read from"),
    "safetensors for npz": ("vit", save(ARRAYS), "is a safetensors file, but vit weights"),
    "msgpack for PyTorch": ("uniformer", msgpack(tree()), r"\(msgpack\), but uniformer"),
    "PyTorch for npz": ("vit", zipped({"a/data.pkl": b""}), "is a PyTorch file, but vit"),
    "web page": ("ast", b"\n<!doctype html><html>", "web page: download the file itself"),
    "pointer": ("ast", b"version https://git-lfs.github.com/spec/v1\n", "stands for the file"),
    "picture": ("mbt", b"\x89PNG\r\n\x1a\n", "and is none of a PyTorch file"),
    "other zip": ("vit", zipped({"model/readme.txt": b"hello"}), "zip file without weights"),
    "empty zip": ("vit", zipped({}), "and is none of"),
    "no arrays in npz": ("vit", zipped({"a.npy": b""}), "cannot be read as an npz file"),
    "no arrays in safetensors": ("ast", save({}), "holds no arrays"),
    "no arrays in msgpack": ("mbt", msgpack({"params": {"a": {}}}), "holds no arrays"),
    "msgpack of a map in itself": ("mbt", msgpack({"step": 3}), "has 'step', a int, among its"),
    "leaf that is no array": (
        "mbt",
        msgpack({"params": tree() | {"name": "mbt"}}),
        "has 'name', a str",
    ),
    "names that collide": (
        "mbt",
        msgpack({"a/b": ARRAYS["cls"], "a": {"b": ARRAYS["cls"]}}),
        "names of their own",
    ),
    "not finite in npz": ("vit", npz({"head": np.array([1, np.nan])}), "head has values that are"),
    "not finite in safetensors": ("ast", save({"w": np.array([np.inf])}), "w has values that are"),
    "not finite in msgpack": (
        "mbt",
        msgpack({"a": {"b": np.array([-np.inf], np.float16)}}),
        "a/b has values that are",
    ),
    "integers": ("vit", npz({"head": np.arange(3)}), "head is of type int64"),
    "complex": ("vit", npz({"head": np.ones(3, complex)}), "head is of type complex128"),
    "text": ("vit", npz({"head": np.array(["a"])}), "head is of type <U1"),
    "long double": ("vit", npz({"head": np.ones(2, np.longdouble)}), "head is of type"),
    "8-bit floats": (
        "ast",
        safetensors_with_header(
            {"w": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}, b"0"
        ),
        "w is of type F8_E4M3",
    ),
    "objects": (
        "vit",
        npz({"head": np.array([{}, None], dtype=object)}),
        "head holds Python objects",
    ),
    "npy that claims more than its entry": (
        "vit",
        zipped({"a.npy": npz_entry((HUGE,))}),
        "a claims the shape",
    ),
    "npy with sizes below zero": (
        "vit",
        zipped({"a.npy": npz_entry((-1, -4))}),
        "cannot be read as an npz file",
    ),
    "safetensors that claim more than they hold": (
        "ast",
        safetensors_with_header(
            {"w": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]}}
        ),
        "cannot be read as a safetensors file",
    ),
    "safetensors with a huge header": (
        "ast",
        (90_000_000).to_bytes(8, "little") + b"{}",
        "cannot be read as a safetensors file",
    ),
    "msgpack that claims a huge array": (
        "mbt",
        b"\x81\xa6params\xdd\xff\xff\xff\xff",
        "cannot be read as a Flax checkpoint",
    ),
    "msgpack nested without end": ("mbt", b"\x81\xa1a" * 5000, "cannot be read as a Flax"),
    "PyTorch file with compressed entries": (
        "uniformer",
        zipped({"a/data.pkl": bytes(99)}, zipfile.ZIP_DEFLATED),
        "compressed entries",
    ),
    "TorchScript": (
        "uniformer",
        zipped({"a/data.pkl": b"", "a/constants.pkl": b""}),
        "TorchScript program",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence(tmp_path, case):
    kind, content, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, kind, content)
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".")
    assert case == "unknown kind" or str(tmp_path / "weights.bin") in text


def test_no_such_file_or_a_folder(tmp_path):
    with pytest.raises(UserError, match="missing.pth does not exist"):
        read_state_dict("ast", tmp_path / "missing.pth")
    with pytest.raises(UserError, match="is a folder"):
        read_state_dict("ast", tmp_path)


def test_no_more_is_unpacked_than_the_limit(tmp_path, monkeypatch):
    content = npz({"a": np.zeros(10**6, np.float32)}, compressed=True)
    assert len(content) < 100_000
    assert read(tmp_path, "vit", content)["a"].shape == (10**6,)
    monkeypatch.setattr(reading, "MOST_BYTES", 10**6)
    with pytest.raises(UserError, match="claims to hold"):
        read(tmp_path, "vit", content)
    with pytest.raises(UserError, match="claims to hold"):
        read(tmp_path, "mbt", msgpack({"a": np.zeros(10**6, np.float32)}))


def test_without_pytorch_the_way_to_install_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"pip install 'avt_jax\[convert\]'"):
        read(tmp_path, "uniformer", zipped({"a/data.pkl": b""}))


def assert_truncations_are_told(tmp_path, kind, content):
    for length in {0, 1, 4, 9, len(content) - 1, *range(0, len(content), len(content) // 80 + 1)}:
        with pytest.raises(UserError):
            read(tmp_path, kind, content[:length])
            pytest.fail(f"{length} of {len(content)} bytes were taken for the whole file")


def assert_flips_are_told_or_harmless(tmp_path, kind, content, count=300):
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(count):
        damaged = bytearray(content)
        for place in rng.integers(len(content), size=rng.integers(1, 4)):
            damaged[place] ^= int(rng.integers(1, 256))
        try:
            read(tmp_path, kind, bytes(damaged))
        except UserError:
            refused += 1
    assert refused > count / 10, "the damage is not even looked at"


@pytest.mark.parametrize("name", SOUND)
def test_truncated_files(tmp_path, name):
    assert_truncations_are_told(tmp_path, *SOUND[name])


@pytest.mark.parametrize("name", SOUND)
def test_flipped_bytes(tmp_path, name):
    assert_flips_are_told_or_harmless(tmp_path, *SOUND[name])


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
        (lambda torch: {"a": torch.ones(1).expand(HUGE)}, "claims to hold"),
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
