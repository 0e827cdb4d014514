"""Weights & Biases and MLflow, which keep metrics elsewhere; both are optional."""

from __future__ import annotations

import importlib
import json
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from avt_jax.errors import UserError, first_line
from avt_jax.host.new_files import write_json
from avt_jax.host.output.terminal import show

# Under which run a service keeps this one: a continued run goes on there.
_RUNS_FILE = "trackers.json"


class Tracker(Protocol):
    """Takes what is logged."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def log_image(self, step: int, name: str, image_hwc: np.ndarray) -> None: ...

    def close(self) -> None: ...


class _Wandb:
    def __init__(self, wandb: Any, run_dir: Path, run_id: str | None, config: Mapping[str, Any]):
        self.run_id = run_id or secrets.token_hex(8)
        self._wandb = wandb
        self._run = wandb.init(
            # A project that the environment names (WANDB_PROJECT) is taken.
            name=run_dir.name,
            dir=str(run_dir),
            id=self.run_id,
            resume="allow",
            config=dict(config),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def log_image(self, step: int, name: str, image_hwc: np.ndarray) -> None:
        self._run.log({name: self._wandb.Image(image_hwc)}, step=step)

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    def __init__(self, mlflow: Any, run_dir: Path, run_id: str | None, config: Mapping[str, Any]):
        self._mlflow = mlflow
        # Where it goes is in MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME.
        self.run_id = mlflow.start_run(run_id=run_id, run_name=run_dir.name).info.run_id
        mlflow.log_dict(dict(config), "config.json")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def log_image(self, step: int, name: str, image_hwc: np.ndarray) -> None:
        self._mlflow.log_image(image_hwc, key=name, step=step)

    def close(self) -> None:
        self._mlflow.end_run()


_KINDS: dict[str, Callable[..., Any]] = {"wandb": _Wandb, "mlflow": _Mlflow}
NAMES = tuple(_KINDS)


class _Guarded:
    """A tracker that fails does not end the training: that is said once, and it gets no more."""

    def __init__(self, name: str, tracker: Tracker):
        self._name, self._tracker = name, tracker
        self._failed = False

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._try(lambda: self._tracker.log(step, values))

    def log_image(self, step: int, name: str, image_hwc: np.ndarray) -> None:
        self._try(lambda: self._tracker.log_image(step, name, image_hwc))

    def close(self) -> None:
        self._try(self._tracker.close)

    def _try(self, function: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            function()
        except Exception as error:  # whatever a service and its network come up with
            self._failed = True
            show(
                f"avt: {self._name} gets no more of this run ({first_line(error)}); the training "
                "goes on, metrics.jsonl has everything",
                file=sys.stderr,
            )


def check_installed(names: Sequence[str]) -> None:
    """Makes sure that what some of `NAMES` need is there.

    Raises:
      UserError: it is not.
    """
    for name in names:
        if name in _KINDS:
            _module(name)


def open_trackers(names: Sequence[str], run_dir: Path, config: Mapping[str, Any]) -> list[Tracker]:
    """Starts, or continues, a run in those of the services that are among `NAMES`.

    Args:
      names: of writers.
      run_dir: the run's folder, whose name they show.
      config: of the run.

    Raises:
      UserError: one is not installed, or does not start.
    """
    path, opened = run_dir / _RUNS_FILE, []
    known = _known_runs(path)
    for name in names:
        if name not in _KINDS:
            continue
        try:
            tracker = _KINDS[name](_module(name), run_dir, known.get(name), config)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"config.train.writers: {name} does not start ({first_line(error)}); see that you "
                "are logged in there, or leave it out."
            ) from error
        known[name] = tracker.run_id
        write_json(path, known)
        opened.append(_Guarded(name, tracker))
    return list(opened)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"config.train.writers has {name!r}, which is not installed; run "
            f"'pip install avt_jax[{name}]', or leave it out."
        ) from error


def _known_runs(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
