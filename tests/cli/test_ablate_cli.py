"""The grid of `avt ablate`, what it repeats and what it does not; trainings are stood in for."""

import json
import shlex

import jax
import pytest

from avt_jax.cli import ablate
from avt_jax.cli.common import run
from avt_jax.errors import UserError
from avt_jax.experiment.ablations import study as studies
from avt_jax.experiment.ablations.grid import GRID, Setting, changes, plan_study
from avt_jax.experiment.config import load_config
from avt_jax.losses.objective import TERMS

WEIGHTS = dict(classification=1.0, contrastive=0.5, matching=0.1, masked_audio=0.01, masked_video=0)
# Every term of the losses axis needs a weight; the quickstart leaves some out.
WORDS = ["--config.losses.weights.matching=0.1", "--config.losses.weights.masked_audio=0.01"]


class Trainings:
    """Stands in for training, evaluating and counting; knows what it was asked for."""

    def __init__(self, monkeypatch):
        self.trained, self.counted = [], []
        self.fails = {}
        self.cannot_count = False
        monkeypatch.setattr(studies, "_train_and_evaluate", self.train)
        monkeypatch.setattr(studies, "measure_cost", self.count)

    def train(self, study, one, log):
        self.trained.append((one.setting, one.seed))
        config = load_config(study.config, one.changes)
        workdir = one.folder / studies.RUN
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "config.json").write_text(json.dumps(config.to_dict()))
        if one.setting in self.fails:
            raise self.fails[one.setting]
        return {"top1": 0.5 + 0.1 * one.seed, "step_sec": 0.25}

    def count(self, study, one):
        self.counted.append(one.setting)
        if self.cannot_count:
            raise ValueError("no rule for this operation")
        return {"step_flops": 10**9, "parameters": 1234}


@pytest.fixture
def trainings(monkeypatch):
    return Trainings(monkeypatch)


def start(out, *words, axis="fusion", settings="bottleneck-4,merged"):
    arguments = ["--config", "quickstart", "--axis", axis, "--settings", settings]
    return run(ablate.main, [*arguments, "--out", str(out), *map(str, words)])


def test_the_terms_of_the_losses_axis():
    grid = GRID["losses"]
    on = {
        name: {t for t, w in (WEIGHTS | unflat(changes(setting, WEIGHTS))).items() if w}
        for name, setting in grid.items()
    }
    assert on == {
        "classification": {"classification"},
        "contrastive": {"classification", "contrastive"},
        "matching": {"classification", "matching"},
        "masked_audio": {"classification", "masked_audio"},
        "all": {"classification", "contrastive", "matching", "masked_audio"},
    }
    # Also when the config has a term more.
    assert changes(grid["all"], WEIGHTS | {"masked_video": 0.2}) == {
        "losses.weights.masked_video": 0.0
    }
    assert {term for setting in grid.values() for term in setting.on} <= set(TERMS)


def unflat(found):
    return {name.removeprefix("losses.weights."): value for name, value in found.items()}


def test_masking_needs_its_term_and_can_leave_it_out():
    for name, setting in GRID["masking"].items():
        found = changes(setting, WEIGHTS)
        if name == "none":
            assert found == {"losses.weights.masked_audio": 0.0}
        else:
            assert found == {"masking.strategy": name}
            with pytest.raises(UserError, match="masked_audio is 0, so there is nothing"):
                changes(setting, WEIGHTS | {"masked_audio": 0.0})


@pytest.mark.parametrize("axis", GRID)
def test_every_setting_is_a_config(axis, tmp_path):
    study = plan_study("quickstart", axis, seeds=2, out=tmp_path, overrides=WORDS)
    assert not study.broken and list(study.settings) == list(GRID[axis])
    assert len({one.folder for one in study.runs}) == len(study.runs) == 2 * len(GRID[axis])
    configs = [load_config("quickstart", one.changes) for one in study.runs]
    assert [config.seed for config in configs] == [0] * len(GRID[axis]) + [1] * len(GRID[axis])
    first = configs[: len(GRID[axis])]
    assert len({config.to_json() for config in first}) == len(first), "two settings are the same"


def test_a_finished_run_is_not_repeated(tmp_path, trainings, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    assert start(tmp_path, "--seeds", 1) == 0
    assert trainings.trained == [("bottleneck-4", 0), ("merged", 0)]
    assert start(tmp_path, "--seeds", 3) == 0
    expected = [(name, seed) for seed in range(3) for name in ("bottleneck-4", "merged")]
    assert trainings.trained == expected, "seed by seed, each run once"
    assert trainings.counted == ["bottleneck-4", "merged"], "a setting is counted once"
    out, err = capsys.readouterr()
    assert "[3/6] fusion: bottleneck, L = 4, seed 1, about 0:00:0" in err
    table = (tmp_path / "fusion.md").read_text()
    shown = {line.split()[0]: line.split("   ") for line in out.splitlines() if line.strip()}
    assert {"60.0 ± 10.0", "250", "1,234"} <= set(map(str.strip, shown["bottleneck,"]))
    assert "+0.0 ± 0.0" in map(str.strip, shown["merged"]) and "fusion, test split" in out
    assert "| bottleneck, L = 4 | 60.0 ± 10.0 | 3 |  | 250 | 1.00 | 1,234 |" in table
    assert "| merged attention | 60.0 ± 10.0 | 3 | +0.0 ± 0.0 |" in table
    assert sorted(path.name for path in tmp_path.glob("fusion.*")) == [
        "fusion.csv",
        "fusion.md",
        "fusion.png",
    ]
    # Nothing is left to run, so nothing is run; a deleted run is.
    (tmp_path / "fusion" / "merged" / "seed1" / "results.json").unlink()
    assert start(tmp_path) == 0
    assert trainings.trained[6:] == [("merged", 1)]


def test_another_split_is_evaluated_anew(tmp_path, trainings):
    start(tmp_path, "--seeds", 1, settings="merged")
    start(tmp_path, "--seeds", 1, "--split", "val", settings="merged")
    assert trainings.trained == [("merged", 0)] * 2


def test_interrupted_and_continued(tmp_path, trainings, capsys):
    trainings.fails["merged"] = KeyboardInterrupt()
    assert start(tmp_path, "--seeds", 2) == 130
    assert trainings.trained == [("bottleneck-4", 0), ("merged", 0)]
    assert "the same command continues" in capsys.readouterr().err
    assert "| bottleneck, L = 4 | 50.0 | 1 |" in (tmp_path / "fusion.md").read_text()
    assert not (tmp_path / "fusion" / "merged" / "seed0" / "results.json").exists()
    del trainings.fails["merged"]
    assert start(tmp_path, "--seeds", 2) == 0
    assert trainings.trained[2:] == [("merged", 0), ("bottleneck-4", 1), ("merged", 1)]


def test_failures_stand_in_the_table_and_are_tried_again(tmp_path, trainings, capsys):
    trainings.fails["merged"] = UserError("step 7: loss is not finite")
    trainings.fails["bottleneck-1"] = RuntimeError("out of memory")
    settings = "bottleneck-4,merged,bottleneck-1"
    assert start(tmp_path, "--seeds", 1, settings=settings) == 1
    table = (tmp_path / "fusion.md").read_text()
    log = tmp_path / "fusion" / "bottleneck-1" / "seed0" / "log.txt"
    assert "| merged attention |  | 0 |  |  |  |  | step 7: loss is not finite |" in table
    assert f"RuntimeError, see {log}" in table and "out of memory" in log.read_text()
    assert "| bottleneck, L = 4 | 50.0 | 1 |" in table, "the others ran"
    trainings.fails.clear()
    assert start(tmp_path, "--seeds", 1, settings=settings) == 0
    assert trainings.trained[3:] == [("bottleneck-1", 0), ("merged", 0)]
    assert "failed" not in (tmp_path / "fusion.md").read_text()


def test_a_finished_training_is_not_lost_over_a_figure_about_it(tmp_path, trainings, capsys):
    trainings.cannot_count = True
    assert start(tmp_path, "--seeds", 1) == 0
    err = capsys.readouterr().err
    assert "could not be counted (no rule for this operation)" in err and "failed" not in err
    table = (tmp_path / "fusion.md").read_text()
    assert "| merged attention | 50.0 | 1 |" in table
    assert start(tmp_path, "--seeds", 1) == 0
    assert len(trainings.trained) == 2, "it is finished"


def test_a_setting_that_cannot_be_stands_in_the_table_too(tmp_path, trainings, capsys):
    words = ["--config.losses.weights.matching=0", "--seeds", 1]
    assert start(tmp_path, *words, axis="losses", settings="classification,matching") == 1
    assert trainings.trained == [("classification", 0)]
    assert "+ matching cannot run" in capsys.readouterr().err
    assert (
        "config.losses.weights.matching is 0, so there is" in (tmp_path / "losses.csv").read_text()
    )


def test_results_of_another_config_are_not_mixed_in(tmp_path, trainings, capsys):
    assert start(tmp_path, "--seeds", 1) == 0
    assert start(tmp_path, "--seeds", 1, "--config.data.path=elsewhere") == 0
    assert start(tmp_path, "--seeds", 2, "--config.optimizer.lr=0.5") == 2
    message = capsys.readouterr().err
    assert "optimizer.lr was 0.001 and is now 0.5" in message and "another --out" in message
    assert len(trainings.trained) == 2


def test_dry_run_prints_commands_that_read(tmp_path, trainings, capsys):
    out = tmp_path / "a study"
    assert start(out, "--seeds", 2, "--dry-run", "--config.train.steps=5") == 0
    lines = capsys.readouterr().out.splitlines()
    trains = [shlex.split(line) for line in lines if line.startswith("avt train")]
    assert len(trains) == 4 and not trainings.trained and not out.exists()
    config = load_config(trains[-1][3], trains[-1][6:])
    assert (config.seed, config.model.fusion, config.train.steps) == (1, "merged", 5)
    assert trains[-1][5] == str(out / "fusion" / "merged" / "seed1" / "run")


def test_report_runs_nothing(tmp_path, trainings):
    start(tmp_path, "--seeds", 1)
    for path in tmp_path.glob("fusion.*"):
        path.unlink()
    assert start(tmp_path, "--report") == 0
    assert len(trainings.trained) == 2
    assert len(list(tmp_path.glob("fusion.*"))) == 3


def test_step_seconds_leave_the_compilation_out(tmp_path):
    file = tmp_path / "metrics.jsonl"
    rates = [0.1, 40.0, 10.0, 20.0]
    entries = [{"step": i, "split": "train", "clips_per_sec": r} for i, r in enumerate(rates)]
    file.write_text("\n".join(map(json.dumps, [*entries, {"step": 4, "split": "val"}])))
    assert studies.step_seconds(file, batch_size=10) == 0.5
    file.write_text(json.dumps(entries[0]))
    assert studies.step_seconds(file, batch_size=10) is None


def test_the_cache_is_put_back_and_the_users_own_is_kept(tmp_path, monkeypatch):
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, name) for name in names]
    try:
        jax.config.update(names[0], None)
        with studies.compilation_cache(tmp_path):
            assert jax.config.jax_compilation_cache_dir == str(tmp_path)
            assert getattr(jax.config, names[1]) == 0
        assert jax.config.jax_compilation_cache_dir is None
        jax.config.update(names[0], "mine")
        with studies.compilation_cache(tmp_path):
            assert jax.config.jax_compilation_cache_dir == "mine"
    finally:
        for name, value in zip(names, before, strict=True):
            jax.config.update(name, value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0"], "--seeds 0: give 1 or more"),
        (["--settings", "merge"], "fusion has no 'merge' (did you mean 'merged'?)"),
        (["--config.model.dims=3"], "config.model.dims"),
        (["--axis", "fusions"], "there is no axis 'fusions' (did you mean 'fusion'?)"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, trainings, capsys, words, message):
    assert start(tmp_path / "out", *words) == 2
    err = capsys.readouterr().err
    assert err.startswith("avt: error: ") and message in err and err.count("\n") == 1
    assert not trainings.trained and not (tmp_path / "out").exists()


def test_out_must_be_a_folder(tmp_path, trainings, capsys):
    (tmp_path / "file").write_text("x")
    assert start(tmp_path / "file") == 2
    assert "--out: cannot make" in capsys.readouterr().err and not trainings.trained


def test_a_setting_without_terms_changes_only_its_values():
    assert changes(Setting("x", {"model.dim": 8}), WEIGHTS) == {"model.dim": 8}
