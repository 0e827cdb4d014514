"""From a run with adapters to one without: their products are added to the weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from avt_jax.data.records import RecordsInfo
from avt_jax.errors import UserError
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.derived.write import whole_config, write_run
from avt_jax.experiment.parts import parse_saved
from avt_jax.host.new_folder import check_new_folder
from avt_jax.inference.load import data_config, load_skeleton
from avt_jax.models.layers.lora import Adapter, adapters_of, merged
from avt_jax.training import shards_place
from avt_jax.training.checkpoint import Run, load_run


def without_adapters(run: Run, run_dir: str | Path) -> Run:
    """The same model without adapters; a run that has none is given back as it is.

    Raises:
      UserError: the run's checkpoint does not fit its config; `run_dir` is for the message.
    """
    if not run.config["model"].get("lora_rank"):
        return run
    model = {**run.config["model"], "lora_rank": 0}
    params = merged(run.params, _adapters(run, run_dir))
    return dataclasses.replace(run, config={**run.config, "model": model}, params=params)


def _adapters(run: Run, run_dir: str | Path) -> dict[str, Adapter]:
    skeleton = load_skeleton(run, data_config(run), run_dir)
    model: Any = skeleton.merge(skeleton.params, skeleton.stats)
    return adapters_of(model)


def merge_run(run_dir: str | Path, out: str | Path, step: str = "best") -> tuple[Path, int]:
    """Writes a run folder without adapters that predicts what a run with adapters does.

    Args:
      run_dir: run with adapters; the averaged weights are taken where it kept an average.
      out: new folder.
      step: checkpoint, as for `load_run`.

    Returns:
      (`out`, number of adapters that were merged). `avt evaluate` and `avt predict` take the
      folder, and `config.init.model` to go on.

    Raises:
      UserError: no such run, one without adapters, or `out` is in use.
    """
    run = load_run(run_dir, step)
    if not run.config["model"].get("lora_rank"):
        raise UserError(
            f"{run_dir} has no adapters (config.model.lora_rank is 0); there is nothing to merge, "
            "use it as it is."
        )
    check_new_folder(out)
    number = len(_adapters(run, run_dir))
    run = without_adapters(run, run_dir)
    experiment = Experiment(
        parse_saved(whole_config(run.config, run.config["model"])),
        classes={name: len(names) for name, names in run.label_sets.items()},
    )
    records: dict[str, Any] = {"schema_version": "", **run.records}
    info = RecordsInfo(dict(run.label_sets), {}, **records, multi_label=run.multi_label)
    shards = _shards(run.config["data"]["path"], Path(run_dir))
    variables = {**run.params, **run.stats}
    return write_run(out, experiment, variables, info, step=run.step, shards=shards), number


def _shards(given: str, run_dir: Path) -> str | None:
    """Where the run's clips lie; None where they are gone, which a model does not mind."""
    try:
        return shards_place.find(given, run_dir, origin="", option="")
    except UserError:
        return None
