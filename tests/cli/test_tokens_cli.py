"""`avt tokens`: there and back on the command line, and one sentence for what cannot be."""

import pytest
from small_shards import clip, write
from tiny_run import make_run

from avt_jax.cli import main as cli
from avt_jax.training.checkpoint import load_run


def avt(*words):
    return cli.main(list(map(str, words)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens_cli")
    write(folder / "shards", {"train": [clip(i) for i in range(8)], "val": [clip(9)]})
    make_run(folder / "run", [f"--config.data.path={folder / 'shards'}"])
    return folder


def test_there_and_back(made, capsys):
    tokens, run = made / "tokens", made / "run"
    command = ("tokens", made / "shards", "--checkpoint", run, "--out", tokens)
    assert avt(*command, "--views", 1, "--step", "last") == 0
    out = capsys.readouterr().out
    assert "tokens of 9 clips (" in out and "float32" in out
    assert f"avt train --config own:tokens --workdir RUN --config.data.path={tokens}" in out
    assert avt(*command) == 2
    assert "exists and is not an empty folder" in capsys.readouterr().err

    path = f"--config.data.path={tokens}"
    assert avt("config", "own:tokens", path) == 0
    assert "--config.model.video_encoder.name=tokens" in capsys.readouterr().out
    assert avt("inspect", tokens) == avt("doctor", tokens) == avt("baseline", tokens) == 2
    assert capsys.readouterr().err.count("holds cached tokens, no clips") == 3

    rest = made / "rest"
    smallest = ("--config.train.steps=1", "--config.train.eval_every_steps=1")
    assert avt("train", "--config", "own:tokens", "--workdir", rest, path, *smallest) == 0
    assert avt("tokens", "--join", rest, "--out", made / "whole") == 0
    joined = load_run(made / "whole")
    assert joined.config["model"]["video_encoder"]["name"] == "uniformer" and joined.step == 1
    capsys.readouterr()
    assert avt("predict", made / "none.mp4", "--checkpoint", rest) == 2
    assert "trained on cached tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "give a shard folder, and either --checkpoint or --config"),
        (("SHARDS",), "either --checkpoint or --config"),
        (("SHARDS", "--checkpoint", "RUN", "--config", "own"), "either --checkpoint or --config"),
        (("SHARDS", "--checkpoint", "RUN", "--views", "-1"), "--views -1: give 0 or more"),
        (("SHARDS", "--checkpoint", "RUN", "--views", "65"), "--views 65: give 0 to 64"),
        (("SHARDS", "--checkpoint", "RUN", "--batch-size", "0"), "--batch-size 0: give 1 or"),
        (("SHARDS", "--checkpoint", "RUN", "--init.video", "x"), "go with --config"),
        (("SHARDS", "--checkpoint", "RUN", "--config.seed=1"), "overrides go with --config"),
        (("SHARDS", "--checkpoint", "RUN", "--tokens", "x"), "--tokens is for --join"),
        (("nowhere", "--checkpoint", "RUN"), "no shard folder at nowhere"),
        (("SHARDS", "--checkpoint", "nowhere"), "nowhere"),
        (("SHARDS", "--config", "quickstart:smoke"), "no weights for the video encoder"),
        (("SHARDS", "--config", "mbt_vggsound:smoke"), "cached tokens are of the encoders of avt"),
        (("SHARDS", "--join", "RUN"), "--join takes a run"),
        (("--join", "RUN"), "was trained on clips"),
    ],
)
def test_what_cannot_be(made, tmp_path, capsys, words, said):
    places = {"SHARDS": made / "shards", "RUN": made / "run"}
    given = [places.get(word, word) for word in words]
    assert avt("tokens", *given, "--out", tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert said in err and err.count("avt: error:") == 1 and "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_the_help_names_both_ways(capsys):
    with pytest.raises(SystemExit):
        avt("tokens", "--help")
    out = capsys.readouterr().out
    assert "--join" in out and "own:tokens" in out and "float16" in out
