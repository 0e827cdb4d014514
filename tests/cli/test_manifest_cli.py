"""avt manifest from the command line: what it prints, what is refused."""

import re
import shlex

import pytest

from avt_jax.cli.common import run
from avt_jax.cli.data import manifest

ROWS = [
    ("---g-f_I2yQ", 1, "people [marching]", "test"),
    ("--0PQM4-hqg", 30, "waterfall burbling", "train"),
    ("--56QUhyDQM", 185, "playing tennis", "train"),
]


@pytest.fixture
def vggsound(tmp_path, monkeypatch):
    """A folder with vggsound.csv and two of its three videos, as current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vggsound.csv").write_text("".join(f'{i},{s},"{c}",{p}\n' for i, s, c, p in ROWS))
    (tmp_path / "my videos").mkdir()
    for name in ("---g-f_I2yQ_000001.mp4", "--0PQM4-hqg.mp4", "other.mp4"):
        (tmp_path / "my videos" / name).write_text(name)
    return tmp_path


DATA = ["vggsound", "--csv", "vggsound.csv", "--videos", "my videos"]


def test_data_set(vggsound, capsys):
    assert run(manifest.main, [*DATA, "--out", "my clips.csv"]) == 0
    output = capsys.readouterr().out
    for pattern in (
        r"VGGSound: wrote my clips\.csv",
        r"train +2 +1 +1 +0 +0",
        r"test +1 +1 +0 +0 +0",
        r"label: 3 classes, 1 of them without a clip",
        r"people \[marching\] +1 +1 +0",
        r"1 video files belong to no row",
        r"warning: the annotation names 3 classes, VGGSound has 309",
        r"my clips\.problems\.csv",
    ):
        assert re.search(pattern, output), pattern
    extract, train = [shlex.split(line) for line in output.splitlines()[-2:]]
    assert extract == [
        "avt", "extract", "--manifest", "my clips.csv", "--out", "shards",
        "--classes", "label=my clips.classes-label.txt",
    ]  # fmt: skip
    assert train[:4] == ["avt", "train", "--config", "vggsound"]
    # There is no validation split, and the recipe looks at one while it trains.
    assert train[-2:] == ["--config.data.path=shards", "--config.data.eval_split=test"]


def test_long_class_tables_are_shortened(vggsound, capsys):
    rows = [f'{n:02d}abcdefghi,7,"class {n:02d}",train\n' for n in range(30)]
    (vggsound / "vggsound.csv").write_text("".join(rows))
    for n in range(25):
        (vggsound / "my videos" / f"{n:02d}abcdefghi_7.mp4").write_text(f"{n}")
    assert run(manifest.main, DATA) == 0
    output = capsys.readouterr().out
    shown = re.findall(r"class (\d\d) +1 +(\d)", output)
    assert shown == [(f"{n:02d}", "0") for n in range(25, 30)] + [
        (f"{n:02d}", "1") for n in range(5)
    ]
    assert re.search(r"20 more +20 +20 +0", output)


def test_split_before_the_name_of_a_file(vggsound, capsys):
    arguments = ["vggsound", "--csv", "val=vggsound.csv", "--videos", "my videos"]
    assert run(manifest.main, arguments) == 0
    output = capsys.readouterr().out
    assert re.search(r"val +3 +2 +1", output) and "eval_split" not in output


def test_folder_with_groups(tmp_path, capsys):
    for name in ("cat/a_1.mp4", "cat/a_2.mp4", "dog/b_1.mp4", "dog/b_2.mp4"):
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_text(name)
    out = tmp_path / "clips.csv"
    arguments = [str(tmp_path / "mine"), "--out", str(out), "--group-by", "(.+)_", "--seed", "3"]
    assert run(manifest.main, [*arguments, "--val-fraction", "0.6", "--test-fraction", "0"]) == 0
    assert re.search(r"cat +0 +2 +0", capsys.readouterr().out)
    assert len(out.read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["vggsound"], "VGGSound needs --csv and --videos: avt manifest vggsound --csv"),
        (["epic", "--videos", "."], "(for a folder of that name write ./epic)"),
        ([*DATA, "--group-by", "x"], "--group-by is for folders of class folders"),
        ([*DATA, "--test-fraction", "0"], "--test-fraction is for folders"),
        ([*DATA, "--classes", "x"], "--classes 'x' must look like label=classes.txt"),
        ([*DATA, "--classes", "label=none.txt"], "none.txt does not exist"),
        ([*DATA, "--classes", "verb=none.txt"], "--classes verb=none.txt: VGGSound has the label"),
        ([*DATA, "--classes", "label=a", "--classes", "label=b"], "names the label set 'label' tw"),
        ([*DATA, "--val-fraction", "1"], "fractions val 1"),
        ([*DATA, "--out", "vggsound.csv"], "vggsound.csv exists"),
        ([*DATA[:3], "--videos", "none"], "no folder at none"),
        (["vgsound", *DATA[1:]], "unknown data set 'vgsound' (did you mean 'vggsound'?)"),
        (["my videos", "--videos", "x"], "--videos is for data sets; my videos is a folder"),
        (["none"], "no folder at none"),
    ],
)
def test_mistakes_end_with_code_2_and_write_nothing(vggsound, capsys, arguments, expected):
    before = sorted(vggsound.rglob("*"))
    assert run(manifest.main, arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("avt: error: ") and expected in error and error.count("\n") == 1
    assert sorted(vggsound.rglob("*")) == before


def test_help_has_an_example_for_every_data_set(capsys):
    with pytest.raises(SystemExit) as end:
        manifest.main(["--help"])
    assert end.value.code == 0
    output = capsys.readouterr().out
    for name in ("vggsound", "epic-kitchens-100", "kinetics", "kinetics-sounds"):
        assert f"avt manifest {name} --csv" in output
