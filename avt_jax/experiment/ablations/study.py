"""Studies: a grid of trainings, run one after the other, as a table and a plot."""

from __future__ import annotations

import contextlib
import json
import statistics
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import jax

from avt_jax.errors import UserError, first_line
from avt_jax.evaluation import ablation
from avt_jax.experiment.ablations.grid import Run, Study
from avt_jax.experiment.assemble import Say, silent
from avt_jax.experiment.config import load_config
from avt_jax.experiment.cost import profile_config
from avt_jax.experiment.evaluate import evaluate_run
from avt_jax.experiment.parts import parse_saved
from avt_jax.experiment.run_training import train
from avt_jax.host.metric_lines import read_metrics
from avt_jax.host.new_files import replacing, write_json
from avt_jax.host.output.terminal import show
from avt_jax.training import run_folder
from avt_jax.training.checkpoint import CONFIG_FILE

# OUT/AXIS/SETTING/seed<k>/ holds what a training writes in run/, and beside it:
RUN, RESULT_FILE, LOG_FILE = "run", "results.json", "log.txt"


def run_study(study: Study, *, say: Say = silent) -> list[ablation.Row]:
    """Runs what is not finished yet and writes the study's table and plot.

    The table (AXIS.md, AXIS.csv) is rewritten after every run, AXIS.png at the end. An interrupted
    study continues where it stopped.

    Args:
      study: from `plan_study`.
      say: is told what is running, what failed, and how much time is left.

    Returns:
      The table's rows.

    Raises:
      UserError: runs of another config are there, or a file cannot be read or written.
      KeyboardInterrupt: after Ctrl-C or SIGTERM; what was reached is kept.
    """
    for name, error in study.broken.items():
        say(f"{study.settings[name]} cannot run: {error}")
    make_folder(study.out)
    check_same_config(study)
    with compilation_cache(study.out / "compiled"):
        for index, one in enumerate(study.runs):
            if not is_finished(one, study.split):
                left = time_left(study, index)
                number = f"[{index + 1}/{len(study.runs)}]"
                say(f"{number} {study.axis}: {one.label}, seed {one.seed}{left}")
                _execute(study, one, say)
                write_table(study)
    write_table(study, picture=True)
    return collect(study)


def _execute(study: Study, one: Run, say: Say) -> None:
    """Trains, evaluates and measures one run; its results.json says how that went."""
    make_folder(one.folder)
    began = time.monotonic()
    result: dict[str, Any] = {
        "setting": one.setting, "seed": one.seed, "split": study.split, "error": ""
    }  # fmt: skip
    with (one.folder / LOG_FILE).open("a", encoding="utf-8") as log:
        try:
            result |= _train_and_evaluate(study, one, log)
        except UserError as error:
            result["error"] = str(error)
        except Exception as error:  # one setting's fault must not keep the others from running
            traceback.print_exc(file=log)
            result["error"] = f"{type(error).__name__}, see {log.name}"
        else:
            result["cost"] = _cost(study, one, log, say)
    if result["error"]:
        say(f"failed: {result['error']}")
    result["seconds"] = round(time.monotonic() - began, 1)
    write_json(one.folder / RESULT_FILE, result, indent=1)


def _train_and_evaluate(study: Study, one: Run, log: TextIO) -> dict[str, Any]:
    """Trains, or continues, one run and evaluates it.

    In this process: another one would import and initialise everything again, for every run.

    Returns:
      What becomes the run's `results.json`.

    Raises:
      UserError: the config or the data are not right.
      KeyboardInterrupt: after Ctrl-C or SIGTERM, once a checkpoint is saved.
    """

    def say(line: str) -> None:
        show(line, file=log, flush=True)

    config = load_config(study.config, one.changes)
    trained = train(config, one.folder / RUN, say=say)
    found = evaluate_run(trained.run_dir, split=study.split, say=say)
    return {
        # As in training, a model with several label sets is scored by their mean, and a multi-label
        # set by mAP.
        "top1": statistics.fmean(found.score.values()),
        "label_sets": found.score,
        "step": found.evaluation.about["step"],
        "step_sec": step_seconds(trained.metrics_file, config.train.batch_size),
    }


def step_seconds(metrics: Path, batch_size: int) -> float | None:
    """Median seconds of a training step.

    Args:
      metrics: a run's `metrics.jsonl`.
      batch_size: clips a step.

    Returns:
      None with fewer than two log entries: the first holds the compilation.
    """
    train_entries = [entry for entry in read_metrics(metrics) if entry["split"] == "train"][1:]
    rates = [entry["clips_per_sec"] for entry in train_entries if entry.get("clips_per_sec")]
    return batch_size / statistics.median(rates) if rates else None


def _cost(study: Study, one: Run, log: TextIO, say: Say) -> dict[str, int] | None:
    """FLOPs of a training step and parameters; None where they could not be counted.

    A training that is done is not lost over a figure about it.
    """
    try:
        return known_cost(study, one.setting) or measure_cost(study, one)
    except Exception as error:
        traceback.print_exc(file=log)
        say(f"the cost of {one.label} could not be counted ({first_line(error)}), see {log.name}")
        return None


def known_cost(study: Study, setting: str) -> dict[str, int] | None:
    """The cost that a finished run of this setting found: seeds do not change it."""
    for one in study.runs:
        found = read_result(one, study.split) if one.setting == setting else None
        if found and found.get("cost"):
            return found["cost"]
    return None


def measure_cost(study: Study, one: Run) -> dict[str, int]:
    """FLOPs of a training step and number of parameters of a run's config.

    Raises:
      UserError: the config is not right.
    """
    config = load_config(study.config, one.changes)
    found = profile_config(
        config, batch_size=config.train.batch_size, forward_memory=False, training_memory=False
    )
    assert found.step_flops is not None  # asked for
    return {"step_flops": found.step_flops, "parameters": sum(found.parameters.values())}


def read_result(one: Run, split: str) -> dict[str, Any] | None:
    """What a run's `results.json` says; None when it has none for this split."""
    found = _read_json(one.folder / RESULT_FILE)
    return found if found and found.get("split") == split else None


def is_finished(one: Run, split: str) -> bool:
    """True when the run has a result for this split; a run that failed is tried again."""
    found = read_result(one, split)
    return bool(found and not found["error"])


def check_same_config(study: Study) -> None:
    """Makes sure that runs which are there belong to this study.

    Raises:
      UserError: a run's config differs from what it would be now; names the first field.
    """
    for one in study.runs:
        saved = _read_json(one.folder / RUN / CONFIG_FILE)
        if saved is None:
            continue
        before, now = parse_saved(saved), load_config(study.config, one.changes)
        for change in run_folder.differences(before.to_dict(), now.to_dict()):
            if not change.name.startswith(_FREE):
                raise UserError(
                    f"{one.folder} holds a run with another config: {change.words()}; give "
                    "another --out, or the same config."
                )


# What may differ between two starts of one study: where the data lie and how fast they come.
_FREE = ("data.path", "data.num_threads", "data.num_workers", "data.prefetch", "mesh.")


@contextlib.contextmanager
def compilation_cache(folder: Path) -> Iterator[None]:
    """Keeps compiled programs in `folder`, so that a setting is compiled for its first seed only.

    A cache that the user chose (JAX_COMPILATION_CACHE_DIR) is left as it is.
    """
    if getattr(jax.config, "jax_compilation_cache_dir", None):
        yield
        return
    wanted: dict[str, Any] = {
        "jax_compilation_cache_dir": str(folder.absolute()),
        # Also what compiles quickly: a training compiles hundreds of small programs.
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in wanted}
    for name, value in wanted.items():
        jax.config.update(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def make_folder(path: Path) -> None:
    """Makes a folder of the study.

    Raises:
      UserError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: cannot make {path} ({error.strerror}); give another.") from error


def time_left(study: Study, index: int) -> str:
    """ ", about h:mm:ss left" for the runs from `index` on, judged by those that ended; or "".

    A setting without a finished run is taken to last as long as the others do on average.
    """
    seconds: dict[str, list[float]] = {}
    left = []
    for i, one in enumerate(study.runs):
        found = read_result(one, study.split)
        if found and not found["error"]:
            seconds.setdefault(one.setting, []).append(found["seconds"])
        elif i >= index:
            left.append(one.setting)
    if not seconds:
        return ""
    mean = {name: statistics.fmean(values) for name, values in seconds.items()}
    other = statistics.fmean(mean.values())
    total = round(sum(mean.get(name, other) for name in left))
    return f", about {total // 3600}:{total // 60 % 60:02}:{total % 60:02} left"


def collect(study: Study) -> list[ablation.Row]:
    """The table's rows from what the runs wrote."""
    runs = [
        ablation.RunResult(study.settings[name], -1, error=error)
        for name, error in study.broken.items()
    ]
    for one in study.runs:
        found = read_result(one, study.split)
        if found:
            score, step_sec = found.get("top1"), found.get("step_sec")
            runs.append(ablation.RunResult(one.label, one.seed, score, step_sec, found["error"]))
    costs = {
        label: ablation.Cost(**cost)
        for name, label in study.settings.items()
        if (cost := known_cost(study, name))
    }
    return ablation.summarise(list(study.settings.values()), runs, costs)


def write_table(study: Study, *, picture: bool = False) -> list[Path]:
    """Writes `<axis>.md` and `<axis>.csv`, and `<axis>.png` if wanted; returns what was written."""
    rows = collect(study)
    files = [study.out / f"{study.axis}.{kind}" for kind in ("md", "csv", "png")]
    with replacing(files[0]) as file:
        file.write(ablation.markdown(rows))
    ablation.write_csv(files[1], rows)
    title = f"{study.axis}: {study.split} split of {study.config}"
    return files if picture and ablation.draw(files[2], rows, title=title) else files[:2]


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); delete it and run again.") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is not a file of avt ablate; delete it and run again.")
    return found
