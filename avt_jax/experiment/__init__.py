"""What the commands do, callable from Python: training, evaluation, cost, studies.

`experiment.train(config, workdir)`, `experiment.evaluate_run(run_dir)` and the others are imported
when they are first used; `avt_jax` itself names them, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from avt_jax.lazy import names_on_demand

if TYPE_CHECKING:
    from avt_jax.experiment.ablations.grid import plan_study
    from avt_jax.experiment.ablations.study import run_study
    from avt_jax.experiment.assemble import Experiment
    from avt_jax.experiment.config import load_config
    from avt_jax.experiment.cost import CompileReport, Profile, compile_step, profile_config
    from avt_jax.experiment.evaluate import EvaluationResult, evaluate_run
    from avt_jax.experiment.run_training import TrainingResult, train
    from avt_jax.experiment.splits import OwnData

__getattr__, __dir__ = names_on_demand(
    globals(),
    {
        "CompileReport": "avt_jax.experiment.cost",
        "EvaluationResult": "avt_jax.experiment.evaluate",
        "Experiment": "avt_jax.experiment.assemble",
        "OwnData": "avt_jax.experiment.splits",
        "Profile": "avt_jax.experiment.cost",
        "TrainingResult": "avt_jax.experiment.run_training",
        "compile_step": "avt_jax.experiment.cost",
        "evaluate_run": "avt_jax.experiment.evaluate",
        "load_config": "avt_jax.experiment.config",
        "plan_study": "avt_jax.experiment.ablations.grid",
        "profile_config": "avt_jax.experiment.cost",
        "run_study": "avt_jax.experiment.ablations.study",
        "train": "avt_jax.experiment.run_training",
    },
)

__all__ = [
    "CompileReport",
    "EvaluationResult",
    "Experiment",
    "OwnData",
    "Profile",
    "TrainingResult",
    "compile_step",
    "evaluate_run",
    "load_config",
    "plan_study",
    "profile_config",
    "run_study",
    "train",
]
