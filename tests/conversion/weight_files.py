"""Weight files made for tests, how they are read, and what their damage must lead to."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from flax import serialization

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
