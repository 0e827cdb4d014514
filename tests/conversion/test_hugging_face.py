"""Folders of Hugging Face, indexes of several files, config.json, prefixes, averaged weights."""

import json

import numpy as np
import official
import pytest
from flax.serialization import msgpack_serialize
from safetensors.numpy import save_file

from avt_jax.cli import main as avt
from avt_jax.conversion import ast, infer_config
from avt_jax.conversion.hints import Hints
from avt_jax.conversion.released import convert_released
from avt_jax.conversion.sources import read_state_dict
from avt_jax.conversion.store import read_converted
from avt_jax.errors import UserError

ARRAYS = {f"layer.{i}.weight": np.full((2, 3), i, np.float32) for i in range(5)}


def same(found, want=ARRAYS):
    assert found.keys() == want.keys()
    for name, array in want.items():
        np.testing.assert_array_equal(found[name], array)


def write_shards(folder, arrays=ARRAYS, **changes):
    """Two files and their index; returns the index."""
    folder.mkdir(exist_ok=True)
    names = list(arrays)
    weight_map = {}
    for number, some in enumerate((names[:3], names[3:]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: arrays[name] for name in some}, folder / file)
        weight_map |= dict.fromkeys(some, file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map | changes}))
    return index


def test_several_files_are_one(tmp_path):
    index = write_shards(tmp_path / "folder")
    same(read_state_dict("ast", index))
    same(read_state_dict("ast", tmp_path / "folder"))
    # One file is preferred to several, and to the older format.
    save_file({"only": np.ones(2, np.float32)}, tmp_path / "folder" / "model.safetensors")
    (tmp_path / "folder" / "pytorch_model.bin").write_bytes(b"no")
    assert read_state_dict("ast", tmp_path / "folder").keys() == {"only"}


@pytest.mark.parametrize("place", ["../secret.safetensors", "/etc/passwd", "a/b", "..", "", 3])
def test_an_index_reads_nothing_elsewhere(tmp_path, place):
    save_file({"x": np.ones(2, np.float32)}, tmp_path / "secret.safetensors")
    index = write_shards(tmp_path / "folder", **{"layer.9.weight": place})
    with pytest.raises(UserError, match="no file beside it; nothing else is read"):
        read_state_dict("ast", index)


def test_an_index_that_does_not_fit(tmp_path):
    index = write_shards(tmp_path / "folder", **{"more": "model-00003-of-00002.safetensors"})
    with pytest.raises(UserError, match="names model-00003-of-00002.safetensors, which is missing"):
        read_state_dict("ast", index)
    index = write_shards(tmp_path / "folder", **{"more": "model-00002-of-00002.safetensors"})
    with pytest.raises(UserError, match="does not hold more, which model.safetensors.index.json"):
        read_state_dict("ast", index)
    for text in ("{}", '{"weight_map": []}', "[]", "{", '{"weight_map": {}}'):
        index.write_text(text)
        with pytest.raises(UserError, match="model.safetensors.index.json") as caught:
            read_state_dict("ast", index)
        assert "\n" not in str(caught.value)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"is a folder without model\.safetensors, "):
        read_state_dict("ast", empty)


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "_orig_mod.", "backbone.", "module.model."]
)
def test_prefixes_go_and_are_said(tmp_path, prefix):
    said = []
    save_file({prefix + name: array for name, array in ARRAYS.items()}, tmp_path / "w.safetensors")
    same(read_state_dict("ast", tmp_path / "w.safetensors", say=said.append))
    assert said == [f"left out of every name: {prefix}"]


def test_a_prefix_of_some_names_stays(tmp_path):
    arrays = {"model.a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}
    save_file(arrays, tmp_path / "w.safetensors")
    same(read_state_dict("ast", tmp_path / "w.safetensors"), arrays)


def test_uniformer_as_mmaction_publishes_it(tmp_path):
    """Its backbone has the official names, and its head another one."""
    golden = official.under(official.golden("uniformer_tiny_a"), "sd/")
    arrays = {
        name.replace("head.", "cls_head.fc_cls.")
        if name.startswith("head.")
        else f"backbone.{name}": array
        for name, array in golden.items()
    }
    save_file(arrays, tmp_path / "w.safetensors")
    done = convert_released(
        "uniformer", tmp_path / "w.safetensors", tmp_path / "out", changes={"head_dim": 16}
    )
    want = convert_released(
        "uniformer", saved(tmp_path, golden), tmp_path / "want", changes={"head_dim": 16}
    )
    same(done.converted.variables, want.converted.variables)
    assert "head/kernel" in done.converted.variables


def saved(folder, arrays, name="golden.safetensors"):
    save_file(arrays, folder / name)
    return folder / name


def test_averaged_parameters_of_flax(tmp_path):
    path = tmp_path / "checkpoint"
    params, average = ({"a": {"b": np.full(2, value, np.float32)}} for value in (1, 2))
    path.write_bytes(msgpack_serialize({"params": params, "ema_params": average}))
    said = []
    assert read_state_dict("mbt", path, say=said.append)["a/b"][0] == 1
    assert read_state_dict("mbt", path, weights="ema", say=said.append)["a/b"][0] == 2
    assert said == [
        "taken are the weights under 'params'; 'ema_params' would be --weights ema",
        "taken are the weights under 'ema_params'; 'params' would be --weights model",
    ]
    path.write_bytes(msgpack_serialize({"params": params}))
    with pytest.raises(UserError, match="has no averaged weights; leave --weights ema out"):
        read_state_dict("mbt", path, weights="ema")


def positions(rows, columns):
    """The arrays of which `ast.infer` reads something, with so many positions."""
    return {
        "v.cls_token": np.zeros((1, 1, 128), np.float32),
        "v.pos_embed": np.zeros((1, 2 + rows * columns, 128), np.float32),
        "v.blocks.0.mlp.fc1.weight": np.zeros((512, 128), np.float32),
        "mlp_head.1.weight": np.zeros((527, 128), np.float32),
    }


@pytest.mark.parametrize(
    ("stride", "rows", "columns"), [(10, 12, 101), (12, 10, 85), (14, 9, 73), (16, 8, 64)]
)
def test_the_stride_of_each_released_ast_is_found_and_said(stride, rows, columns):
    said = []
    config = infer_config("ast", positions(rows, columns), Hints(say=said.append))
    assert (config.stride, config.num_heads, config.norm_eps) == (stride, 2, 1e-6)
    assert said[0].startswith(f"stride {stride} is a guess from {rows * columns} positions")
    assert said[0].endswith("--set stride=... says otherwise")
    assert ast.grid(config, positions(rows, columns), 128) == (rows, columns)


def test_mel_bins_reach_the_inference():
    # 64 bins with stride 10 make 5 rows; with 128 bins no released stride has these.
    config = infer_config("ast", positions(5, 101), Hints(mel_bins=64))
    assert config.stride == 10
    assert ast.grid(config, positions(5, 101), 64) == (5, 101)
    assert ast.mel_bins_of(Hints(published={"num_mel_bins": 64})) == 64
    assert ast.mel_bins_of(Hints(mel_bins=96, published={"num_mel_bins": 64})) == 96


PUBLISHED = {
    "model_type": "audio-spectrogram-transformer",
    "num_attention_heads": 4,
    "frequency_stride": 10,
    "time_stride": 10,
    "layer_norm_eps": 1e-12,
    "num_mel_bins": 128,
}


@pytest.fixture
def hf_folder(tmp_path):
    golden = official.under(official.golden("ast_tiny_a"), "sd/")
    folder = tmp_path / "downloads"
    folder.mkdir()
    save_file(golden, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(PUBLISHED))
    return folder


def test_a_whole_folder_is_converted_as_config_json_says(hf_folder, tmp_path, capsys):
    out = tmp_path / "weights"
    assert avt.main(["convert", "ast", "--source", str(hf_folder), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "stride 10 (frequency) and 10 (time), as config.json says" in said
    assert "guess" not in said
    found = read_converted(out)
    wanted = {"num_heads": 4, "stride": 10, "norm_eps": 1e-12}
    assert {name: found.config[name] for name in wanted} == wanted
    assert found.grid == (12, 19) and found.source["file"] == "downloads"
    # Another model's config.json says nothing of this one; --set has the last word.
    (hf_folder / "config.json").write_text('{"model_type": "vit", "num_attention_heads": 8}')
    source = str(hf_folder / "model.safetensors")
    argv = ["convert", "ast", "--source", source, "--out", str(tmp_path / "b")]
    assert avt.main([*argv, "--set", "num_heads=4"]) == 0
    said = capsys.readouterr().out
    assert "stride 10 is a guess from 228 positions" in said
    assert read_converted(tmp_path / "b").config["num_heads"] == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"time_stride": "ten"}, "config.json says that time_stride is 'ten'"),
        ({"num_attention_heads": 0}, "config.json says that num_attention_heads is 0"),
        ({"num_attention_heads": 7}, "num_heads"),
        ({"layer_norm_eps": -1}, "config.json says that layer_norm_eps is -1"),
        ({"frequency_stride": 12, "time_stride": 12}, "do not fill rows of 10 patches"),
    ],
)
def test_a_config_json_that_cannot_be(hf_folder, tmp_path, capsys, changes, words):
    (hf_folder / "config.json").write_text(json.dumps(PUBLISHED | changes))
    out = tmp_path / "weights"
    assert avt.main(["convert", "ast", "--source", str(hf_folder), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not out.exists()


def test_a_damaged_config_json(hf_folder, tmp_path):
    (hf_folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="config.json cannot be read as a JSON object"):
        convert_released("ast", hf_folder, tmp_path / "weights")
