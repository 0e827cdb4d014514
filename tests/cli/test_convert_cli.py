"""`avt convert`: published files in, a folder for `config.init` out, nothing after a mistake."""

import json

import numpy as np
import official
import pytest
from flax import traverse_util
from flax.serialization import msgpack_serialize
from safetensors.numpy import save_file

from avt_jax import tree
from avt_jax.cli import main as avt
from avt_jax.conversion.catalog.entries import ENTRIES, Entry
from avt_jax.conversion.initial import InitConfig
from avt_jax.conversion.store import read_converted
from avt_jax.errors import UserError
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.config import load_config
from avt_jax.experiment.start import starting_variables


def state_dict(golden, prefix):
    return official.under(official.golden(golden), prefix)


@pytest.fixture
def files(tmp_path):
    """One published file of each kind."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    for name in ("uniformer", "ast"):
        save_file(state_dict(f"{name}_tiny_a", "sd/"), folder / f"{name}.safetensors")
    mbt = state_dict("mbt_tiny_a", "params/")
    nested = traverse_util.unflatten_dict({tuple(k.split("/")): v for k, v in mbt.items()})
    (folder / "mbt.msgpack").write_bytes(msgpack_serialize({"optimizer": {"target": nested}}))
    np.savez(folder / "vit.npz", **official.augreg(mbt))
    return folder


def convert(files, tmp_path, kind, file, *options):
    out = tmp_path / "weights" / kind
    return avt.main(["convert", kind, "--source", str(files / file), "--out", str(out), *options])


@pytest.mark.parametrize(
    ("kind", "file", "options", "config", "grid"),
    (
        (
            "uniformer",
            "uniformer.safetensors",
            ["--set", "head_dim=16"],
            {"depth": [1, 2, 2, 1], "dim": [16, 32, 64, 64], "mlp_ratio": 4.0, "head_dim": 16},
            (),
        ),
        (
            "ast",
            "ast.safetensors",
            ["--set", "num_heads=4"],
            {"dim": 64, "depth": 3, "num_heads": 4, "stride": 10},
            (12, 19),
        ),
        (
            "vit",
            "vit.npz",
            [],
            {
                "dim": 32,
                "depth": 4,
                "num_heads": 2,
                "mlp_ratio": 2.0,
                "patch_px": 16,
                "tubelet_frames": 1,
            },
            (1, 2, 2),
        ),
        (
            "mbt",
            "mbt.msgpack",
            [],
            {
                "fusion": "bottleneck",
                "fusion_layer": 2,
                "num_bottleneck": 4,
                "classifier": "token",
                "share_encoder": False,
            },
            (),
        ),
    ),
)
def test_each_kind(files, tmp_path, capsys, kind, file, options, config, grid):
    assert convert(files, tmp_path, kind, file, *options) == 0
    found = read_converted(tmp_path / "weights" / kind)
    assert (found.kind, found.grid, found.source["file"]) == (kind, grid, file)
    assert {name: found.config[name] for name in config} == config
    said = capsys.readouterr().out
    assert f"{tree.parameter_count(found.variables) - statistics(found):,} parameters" in said
    assert len(list((tmp_path / "weights").iterdir())) == 1


def statistics(converted):
    names = ("/mean", "/var")
    return sum(v.size for k, v in converted.variables.items() if k.endswith(names))


def test_a_training_starts_from_them(files, tmp_path):
    assert convert(files, tmp_path, "vit", "vit.npz") == 0
    folder = tmp_path / "weights" / "vit"
    config = load_config(
        "mbt_epic_kitchens_100:smoke",
        [
            "--config.model.dim=32",
            "--config.model.num_heads=2",
            "--config.model.mlp_ratio=2.0",
            "--config.model.depth=4",
            f"--config.init.video={folder}",
            f"--config.init.audio={folder}",
        ],
    )
    experiment = Experiment(config, classes={"verb": 2, "noun": 3})
    skeleton = experiment.skeleton
    variables, said = starting_variables(experiment.parts.init, skeleton, experiment.spec, {})
    assert len(said) == 2 and all("positions adapted" in line for line in said)
    fresh = skeleton.params.keys() - variables.keys()
    assert {path.split("/")[0] for path in fresh} == {"bottleneck", "heads"}
    assert all(variables[k].shape == skeleton.params[k].shape for k in variables)


@pytest.mark.parametrize(
    ("kind", "file", "options", "words"),
    (
        ("unifomer", "uniformer.safetensors", [], "no kind of weights (did you mean 'uniformer'?)"),
        ("uniformer", "ast.safetensors", [], "no uniformer weights: patch_embed1.proj.weight"),
        ("ast", "uniformer.safetensors", [], "no ast weights: cls_token is missing"),
        ("vit", "mbt.msgpack", [], "vit weights are read from an npz file"),
        ("ast", "nothing.pth", [], "does not exist"),
        ("ast", "ast.safetensors", ["--mel-bins", "0"], "--mel-bins 0: give 1 or more"),
        (
            "ast",
            "ast.safetensors",
            ["--mel-bins", "64", "--set", "stride=10"],
            "do not fill rows of 5 patches",
        ),
        ("ast", "ast.safetensors", ["--set", "strid=16"], "no field (did you mean 'stride'?)"),
        ("ast", "ast.safetensors", ["--set", "depth=2"], "no place for v.blocks.2."),
        ("ast", "ast.safetensors", ["--set", "depth=4"], "nothing fills blocks/3/"),
        ("ast", "ast.safetensors", ["--set", "dim"], "write it as FIELD=VALUE"),
        ("ast", "ast.safetensors", ["--set", "depth=many"], "give a value like the one"),
    ),
)
def test_mistakes_leave_nothing(files, tmp_path, capsys, kind, file, options, words):
    assert convert(files, tmp_path, kind, file, *options) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1, error
    assert not (tmp_path / "weights").exists()


def test_a_folder_in_use(files, tmp_path, capsys):
    out = tmp_path / "weights" / "ast"
    out.mkdir(parents=True)
    (out / "mine").touch()
    assert convert(files, tmp_path, "ast", "ast.safetensors") == 2
    assert "exists and is not an empty folder" in capsys.readouterr().err
    assert [entry.name for entry in out.iterdir()] == ["mine"]


def test_left_out_arrays_are_said(files, tmp_path, capsys):
    weights = state_dict("ast_tiny_a", "sd/") | {"v.head_dist.bias": np.zeros(4, np.float32)}
    save_file(weights, files / "more.safetensors")
    assert convert(files, tmp_path, "ast", "more.safetensors") == 0
    assert "left out, having no use here" in capsys.readouterr().out
    facts = json.loads((tmp_path / "weights" / "ast" / "conversion.json").read_text())
    assert "v.head_dist.bias" in facts["left_out"]


def test_a_training_starts_from_a_name(files, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AVT_CACHE", str(tmp_path / "cache"))
    entry = Entry("vit", "a stand-in", "", "https://example.org", "MIT", 1)
    monkeypatch.setitem(ENTRIES, "vit-tiny", entry)
    changes = ("dim=32", "num_heads=2", "mlp_ratio=2.0", "depth=4")
    config = load_config(
        "mbt_epic_kitchens_100:smoke",
        [f"--config.model.{change}" for change in changes] + ["--config.init.video=vit-tiny"],
    )
    experiment = Experiment(config, classes={"verb": 2, "noun": 3})
    start = (experiment.parts.init, experiment.skeleton, experiment.spec, {})
    with pytest.raises(UserError, match="config.init.video=vit-tiny: vit-tiny can only be"):
        starting_variables(*start)
    assert avt.main(["weights", "fetch", "vit-tiny", "--file", str(files / "vit.npz")]) == 0
    _, [said] = starting_variables(*start)
    assert said.startswith(f"starting from {tmp_path / 'cache' / 'weights' / 'vit-tiny'}: video")
    capsys.readouterr()
    init = InitConfig(video="vit-tini")
    with pytest.raises(UserError, match="prints the names of published ones .*'vit-tiny'"):
        starting_variables(init, *start[1:])
    # A folder of that name comes first.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vit-tiny").mkdir()
    with pytest.raises(UserError, match="vit-tiny holds no converted weights"):
        starting_variables(*start)
