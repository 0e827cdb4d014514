"""`avt ablate`: the same training under several settings and seeds, as a table and a plot."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import statistics
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from avt_jax.cli.ablation_grid import GRID, Run, Study, plan
from avt_jax.cli.common import parser, run
from avt_jax.cli.config import load_config
from avt_jax.errors import UserError

EPILOG = """\
Axes and their settings:
  losses    classification alone, with each other term by itself, and all terms of the config
  masking   how sound is hidden from the reconstruction term, and that term left out
  fusion    bottleneck tokens, their exchange, merged attention

  avt ablate --config ablation --axis losses --config.data.path=shards
  avt ablate --config ablation --axis masking --seeds 5 --out runs/study --settings none,activity

Everything else is as the config says; runs of one seed see the same data in the same order. A
finished run is not repeated and an interrupted one continues from its last checkpoint: give the
same command again. The table (AXIS.md, AXIS.csv) is rewritten after every run; AXIS.png is drawn
at the end. A setting that fails is named in the table with its reason.
"""

# OUT/AXIS/SETTING/seed<k>/ holds what `avt train` writes in run/, and beside it:
RUN, RESULT_FILE, LOG_FILE = "run", "results.json", "log.txt"
# What may differ between two starts of one study: where the data lie and how fast they come.
_FREE = ("data.path", "data.num_threads", "data.num_workers", "data.prefetch", "mesh.")


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of `avt ablate`; config overrides are read apart from it."""
    cli = parser("ablate", "Compare settings of a training over several seeds.", EPILOG)
    add = cli.add_argument
    add("--config", required=True, metavar="FILE[:ARG]", help="config file or recipe")
    add("--axis", required=True, choices=tuple(GRID), help="what is varied")
    add("--settings", metavar="A,B", help="only these settings of the axis")
    add("--seeds", type=int, default=3, metavar="N", help="runs a setting (default %(default)s)")
    add("--out", type=Path, default=Path("runs/ablation"), help="folder (default %(default)s)")
    add("--split", default="test", help="split to evaluate (default %(default)s)")
    add("--dry-run", action="store_true", help="print the runs as commands, do nothing")
    add("--report", action="store_true", help="run nothing, only write table and plot again")
    return cli


def read_result(one: Run, split: str) -> dict[str, Any] | None:
    """What a run's `results.json` says; None when it has none for this split."""
    found = _read_json(one.folder / RESULT_FILE)
    return found if found and found.get("split") == split else None


def finished(one: Run, split: str) -> bool:
    """True when the run has a result for this split; a run that failed is tried again."""
    found = read_result(one, split)
    return bool(found and not found["error"])


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


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    from avt_jax.evaluation.report import replacing

    with replacing(path) as file:
        json.dump(content, file, indent=1)
        file.write("\n")


def check_same_config(study: Study) -> None:
    """Makes sure that runs which are there belong to this study.

    Raises:
      UserError: a run's config differs from what it would be now; names the first field.
    """
    from avt_jax.training.checkpoint import CONFIG_FILE

    for one in study.runs:
        saved = _read_json(one.folder / RUN / CONFIG_FILE)
        if saved is None:
            continue
        config = load_config(study.config, list(one.overrides)).to_dict()
        before, now = _flat(saved), _flat(json.loads(json.dumps(config)))
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name) and not name.startswith(_FREE):
                raise UserError(
                    f"{one.folder} holds a run with another config: {name} was "
                    f"{before.get(name)!r} and is now {now.get(name)!r}; give another --out, or "
                    "the same config."
                )


def _flat(block: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in block.items():
        path = f"{prefix}{name}"
        found |= _flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return found


@contextlib.contextmanager
def compilation_cache(folder: Path) -> Iterator[None]:
    """Keeps compiled programs in `folder`, so that a setting is compiled for its first seed only.

    A cache that the user chose (JAX_COMPILATION_CACHE_DIR) is left as it is.
    """
    import jax

    if jax.config.jax_compilation_cache_dir:
        yield
        return
    wanted = {
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


def train_and_evaluate(study: Study, one: Run) -> dict[str, Any]:
    """Trains, or continues, one run and evaluates it.

    In this process: another one would import and initialise everything again, for every run.
    What the commands print goes to log.txt, their progress to the terminal.

    Returns:
      What becomes the run's `results.json`.

    Raises:
      UserError: the config or the data are not right.
      KeyboardInterrupt: after Ctrl-C or SIGTERM, once a checkpoint is saved.
    """
    from avt_jax.cli import evaluate, wiring
    from avt_jax.evaluation.report import RESULTS_FILE
    from avt_jax.training.writer import METRICS_FILE

    config = load_config(study.config, list(one.overrides))
    workdir = one.folder / RUN
    log = one.folder / LOG_FILE
    with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        wiring.train(config, workdir)
        evaluate.main(["--checkpoint", str(workdir), "--split", study.split])
    found = _read_json(workdir / f"evaluation-{study.split}" / RESULTS_FILE) or {}
    top1 = {name: report["top1"] for name, report in found.items() if "top1" in report}
    return {
        # As in training, a model with several label sets is scored by their mean.
        "top1": statistics.fmean(top1.values()),
        "label_sets": top1,
        "step": found["evaluated-on"]["step"],
        "step_sec": step_seconds(workdir / METRICS_FILE, config.train.batch_size),
    }


def step_seconds(metrics: Path, batch_size: int) -> float | None:
    """Median seconds of a training step.

    Args:
      metrics: a run's `metrics.jsonl`.
      batch_size: clips a step.

    Returns:
      None with fewer than two log entries: the first holds the compilation.
    """
    from avt_jax.evaluation.report import read_metrics

    rates = [e["clips_per_sec"] for e in read_metrics(metrics) if e["split"] == "train"][1:]
    return batch_size / statistics.median(rates) if rates else None


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
    from avt_jax.cli.profile import profile, read_classes

    config = load_config(study.config, list(one.overrides))
    found = profile(
        config,
        read_classes(None, config.data.path, lambda line: None),
        batch_size=config.train.batch_size,
        forward_memory=False,
        training_memory=False,
    )
    return {"step_flops": found.step_flops, "parameters": sum(found.parameters.values())}


def execute(study: Study) -> None:
    """Runs what is not finished yet; rewrites the table after each run.

    Raises:
      UserError: a file cannot be read or written.
      KeyboardInterrupt: after Ctrl-C or SIGTERM; what was reached is kept.
    """
    for i, one in enumerate(study.runs):
        if finished(one, study.split):
            continue
        say(
            f"[{i + 1}/{len(study.runs)}] {study.axis}: {one.label}, seed {one.seed}"
            f"{time_left(study, i)}"
        )
        _make_folder(one.folder)
        began = time.monotonic()
        result = {"setting": one.setting, "seed": one.seed, "split": study.split, "error": ""}
        try:
            result |= train_and_evaluate(study, one)
            result["cost"] = known_cost(study, one.setting) or measure_cost(study, one)
        except UserError as error:
            result["error"] = str(error)
        except Exception as error:  # one setting's fault must not keep the others from running
            log = one.folder / LOG_FILE
            with log.open("a", encoding="utf-8") as file:
                traceback.print_exc(file=file)
            result["error"] = f"{type(error).__name__}, see {log}"
        if result["error"]:
            say(f"failed: {result['error']}")
        result["seconds"] = round(time.monotonic() - began, 1)
        _write_json(one.folder / RESULT_FILE, result)
        write_table(study)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: cannot make {path} ({error.strerror}); give another.") from error


def say(line: str) -> None:
    """Tells the user how far things are."""
    print(line, file=sys.stderr, flush=True)


def time_left(study: Study, index: int) -> str:
    """ ", about h:mm:ss left" for the runs from `index` on, judged by those that ended; or "".

    A setting without a finished run is taken to last as long as the others do on average.
    """
    seconds: dict[str, list[float]] = {}
    left = []
    for i, one in enumerate(study.runs):
        if finished(one, study.split):
            found = read_result(one, study.split)
            seconds.setdefault(one.setting, []).append(found["seconds"])
        elif i >= index:
            left.append(one.setting)
    if not seconds:
        return ""
    mean = {name: statistics.fmean(values) for name, values in seconds.items()}
    other = statistics.fmean(mean.values())
    total = round(sum(mean.get(name, other) for name in left))
    return f", about {total // 3600}:{total // 60 % 60:02}:{total % 60:02} left"


def collect(study: Study) -> list[Any]:
    """The table's rows from what the runs wrote."""
    from avt_jax.evaluation.ablation import Cost, RunResult, summarise

    runs = [
        RunResult(study.settings[name], -1, error=error) for name, error in study.broken.items()
    ]
    for one in study.runs:
        found = read_result(one, study.split)
        if found:
            score, step_sec = found.get("top1"), found.get("step_sec")
            runs.append(RunResult(one.label, one.seed, score, step_sec, found["error"]))
    costs = {
        label: Cost(**cost)
        for name, label in study.settings.items()
        if (cost := known_cost(study, name))
    }
    return summarise(list(study.settings.values()), runs, costs)


def write_table(study: Study, *, picture: bool = False) -> list[Path]:
    """Writes `<axis>.md` and `<axis>.csv`, and `<axis>.png` if wanted; returns what was written."""
    from avt_jax.evaluation import ablation
    from avt_jax.evaluation.report import replacing

    rows = collect(study)
    files = [study.out / f"{study.axis}.{kind}" for kind in ("md", "csv", "png")]
    with replacing(files[0]) as file:
        file.write(ablation.markdown(rows))
    ablation.write_csv(files[1], rows)
    title = f"{study.axis}: {study.split} split of {study.config}"
    return files if picture and ablation.draw(files[2], rows, title=title) else files[:2]


def commands(study: Study) -> list[str]:
    """The grid as commands that would do the same; finished runs are marked."""
    lines = []
    for one in study.runs:
        workdir = str(one.folder / RUN)
        lines.append(
            f"# {one.label}, seed {one.seed}{' (finished)' if finished(one, study.split) else ''}"
        )
        words = ["avt", "train", "--config", study.config, "--workdir", workdir, *one.overrides]
        lines.append(shlex.join(words))
        words = ["avt", "evaluate", "--checkpoint", workdir, "--split", study.split]
        lines.append(shlex.join(words))
    return lines


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code, 1 when a setting or run failed.

    Raises:
      UserError: a mistake that concerns every run.
    """
    argv = sys.argv[1:] if argv is None else argv
    args, overrides = build_parser().parse_known_args(argv)
    study = plan(
        args.config,
        args.axis,
        settings=args.settings.split(",") if args.settings else (),
        seeds=args.seeds,
        out=args.out,
        split=args.split,
        overrides=overrides,
    )
    for name, error in study.broken.items():
        say(f"{study.settings[name]} cannot run: {error}")
    if args.dry_run:
        print("\n".join(commands(study)))
        return 0
    _make_folder(study.out)
    check_same_config(study)
    if not args.report:
        try:
            with compilation_cache(study.out / "compiled"):
                execute(study)
        except KeyboardInterrupt:
            say("stopped; the same command continues")
            raise
    written = write_table(study, picture=True)
    print(written[0].read_text(encoding="utf-8"))
    print(*(f"wrote {path}" for path in written), sep="\n")
    return int(any(row.errors for row in collect(study)))


if __name__ == "__main__":
    sys.exit(run(main))
