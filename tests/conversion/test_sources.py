"""Published weight files: every format read, everything hostile or broken refused in a sentence."""

from __future__ import annotations

import io
import json
import sys
import zipfile

import numpy as np
import pytest
from flax import serialization
from safetensors.numpy import save
from weight_files import (
    ARRAYS,
    assert_arrays,
    assert_flips_are_told_or_harmless,
    assert_truncations_are_told,
    msgpack,
    npz,
    read,
    safetensors_with_header,
    tree,
    zipped,
)

from avt_jax.conversion.files import reading
from avt_jax.conversion.sources import read_state_dict
from avt_jax.errors import UserError

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


@pytest.mark.parametrize("name", SOUND)
def test_truncated_files(tmp_path, name):
    assert_truncations_are_told(tmp_path, *SOUND[name])


@pytest.mark.parametrize("name", SOUND)
def test_flipped_bytes(tmp_path, name):
    assert_flips_are_told_or_harmless(tmp_path, *SOUND[name])
