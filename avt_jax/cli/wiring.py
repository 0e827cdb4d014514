"""Puts the parts of a training run together: config, data, model, trainer, evaluator.

Training and evaluation do not know each other; this is where they meet.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from avt_jax import axes, tree
from avt_jax.audio.activity import ActivityConfig
from avt_jax.audio.masking import MaskingConfig
from avt_jax.conversion.initial import InitConfig, encoder_variables, model_variables
from avt_jax.conversion.store import is_converted, read_converted
from avt_jax.data import records
from avt_jax.data.loading import pipeline, tune_workers
from avt_jax.data.loading.config import DataConfig
from avt_jax.data.records.generated import is_generated, open_generated
from avt_jax.errors import UserError
from avt_jax.evaluation import classification
from avt_jax.inference.load import input_spec, normalisation
from avt_jax.losses.objective import Objective, ObjectiveConfig
from avt_jax.models.build import InputSpec, abilities, build_model
from avt_jax.models.forward import make_predict
from avt_jax.training import mesh as meshes
from avt_jax.training import run_folder
from avt_jax.training.checkpoint import Checkpointer, has_checkpoint, load_run
from avt_jax.training.hiding import make_hide
from avt_jax.training.loop import Schedule, TrainConfig, fit
from avt_jax.training.mixing import MixingConfig, make_mix
from avt_jax.training.optimizer import OptimizerConfig, learning_rate_schedule, make_optimizer
from avt_jax.training.state import TrainState, init_sharded, with_variables
from avt_jax.training.step import TrainStep, jit_train_step, make_train_step
from avt_jax.training.writer import MetricWriter

BLOCKS = {
    "data": DataConfig,
    "init": InitConfig,
    "losses": ObjectiveConfig,
    "masking": MaskingConfig,
    "activity": ActivityConfig,
    "mixing": MixingConfig,
    "optimizer": OptimizerConfig,
    "train": TrainConfig,
    "mesh": meshes.MeshConfig,
}


@dataclass(frozen=True)
class Parts:
    """The config's blocks as checked dataclasses, and what they describe."""

    data: DataConfig
    init: InitConfig
    losses: ObjectiveConfig
    masking: MaskingConfig
    activity: ActivityConfig
    mixing: MixingConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    mesh: meshes.MeshConfig


@dataclass(frozen=True)
class Splits:
    """Opened data: random-access records and what is known of them."""

    train: Any
    val: Any
    info: records.RecordsInfo


def open_splits(data: DataConfig) -> Splits:
    """Opens the training and validation split.

    Raises:
      UserError: no such shards or split, or the training split is empty.
    """
    if is_generated(data.path):
        info, train = open_generated(data.path, data.train_split)
        _, val = open_generated(data.path, data.eval_split)
    else:
        info = records.read_info(data.path)
        train = records.open_split(data.path, data.train_split)
        val = records.open_split(data.path, data.eval_split)
    for name, split in ((data.train_split, train), (data.eval_split, val)):
        if not len(split):
            raise UserError(f"the split {name!r} of {data.path} is empty; extract more clips.")
    return Splits(train, val, info)


def parse(config: ConfigDict) -> Parts:
    """Feeds every block to its dataclass.

    Raises:
      UserError: a block has an unknown or missing field, or a bad value.
    """
    made = {}
    for name, block_class in BLOCKS.items():
        try:
            made[name] = block_class(**config[name].to_dict())
        except TypeError as error:
            raise UserError(f"config.{name}: {error}") from error
    return Parts(**made)


def plan(parts: Parts, num_clips: int) -> tuple[Schedule, optax.Schedule]:
    """When the loop does what, and the learning rate by step.

    Args:
      parts: the config.
      num_clips: of the training split.
    """
    steps_per_epoch = parts.train.steps_per_epoch(num_clips)
    schedule = Schedule(
        total_steps=parts.train.total_steps(num_clips),
        log_every=parts.train.log_every_steps,
        eval_every=parts.train.eval_every_steps or steps_per_epoch,
        checkpoint_every=parts.train.checkpoint_every_steps,
    )
    learning_rate = learning_rate_schedule(
        parts.optimizer, total_steps=schedule.total_steps, steps_per_epoch=steps_per_epoch
    )
    return schedule, learning_rate


def train(config: ConfigDict, workdir: Path) -> None:
    """Trains, or continues, the run in `workdir` as the config says.

    Raises:
      UserError: anything wrong in the config, the data or the folder.
    """
    parts = parse(config)
    splits = open_splits(parts.data)
    parts = replace(parts, data=tune_workers.settle(splits.train, parts.data, say=_say))
    mesh = meshes.make_mesh(parts.mesh)
    batches = pipeline.make_train_iterator(
        splits.train,
        parts.data,
        batch_size=meshes.check_batch_size(parts.train.batch_size, mesh),
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    classes = {name: len(names) for name, names in splits.info.label_sets.items()}
    build = model_builder(config.model.to_dict(), parts.data, classes)
    skeleton = tree.Skeleton(lambda: build(jax.random.key(0)))
    objective = make_objective(config, parts)
    schedule, learning_rate = plan(parts, len(splits.train))
    optimizer = make_optimizer(parts.optimizer, learning_rate)
    step = make_step(parts, skeleton, objective, optimizer)
    evaluate = make_evaluate(skeleton, parts, splits, mesh)
    starting, said = {}, []
    if not has_checkpoint(workdir):
        starting, said = starting_variables(parts.init, skeleton, input_spec(parts.data))
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    state, shardings = init_sharded(
        build,
        optimizer,
        init_key,
        with_ema=parts.optimizer.ema_decay > 0,
        mesh=mesh,
        rules=parts.mesh.rules,
    )
    state = with_variables(state, shardings, starting)
    # Nothing is written before everything that can be wrong in the config has been looked at.
    run_folder.prepare(workdir, config.to_dict(), splits.info, mesh)
    keep = dict(keep_last=parts.train.keep_last, keep_best=parts.train.keep_best)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(batches))
        checkpointer = stack.enter_context(contextlib.closing(Checkpointer(workdir, **keep)))
        restored = checkpointer.restore(state, shardings)
        if restored:
            state, position = restored
            batches.set_state(position)
        print(*said, sep="\n", end="\n" if said else "")
        _announce(workdir, splits, schedule, objective, state, mesh)
        fit(
            state,
            jit_train_step(step, shardings, mesh),
            batches,
            key=step_key,
            mesh=mesh,
            schedule=schedule,
            batch_size=parts.train.batch_size,
            checkpointer=checkpointer,
            writer=stack.enter_context(
                contextlib.closing(MetricWriter(workdir, step=int(state.step)))
            ),
            learning_rate=learning_rate,
            evaluate=evaluate,
        )


def make_objective(config: ConfigDict, parts: Parts) -> Objective:
    """The config's losses, for its model.

    Raises:
      UserError: the model has nothing for one of them.
    """
    model = config.model
    return Objective(parts.losses, modalities=model.modalities, abilities=abilities(model))


def make_step(
    parts: Parts,
    skeleton: tree.Skeleton,
    objective: Objective,
    optimizer: optax.GradientTransformation,
) -> TrainStep:
    """The training step, not yet jitted.

    Raises:
      UserError: clips are to be mixed although a loss needs them whole.
    """
    mix = make_mix(parts.mixing, objective.weights)
    hide = {}
    if objective.hides:
        model = skeleton.merge(skeleton.params, skeleton.stats)
        spec = input_spec(parts.data)
        hide = make_hide(model, objective.hides, parts.masking, parts.activity, spec)
    return make_train_step(
        skeleton,
        objective,
        optimizer,
        normalisation(parts.data),
        ema_decay=parts.optimizer.ema_decay,
        hide=hide,
        shared_pass=parts.masking.shared_pass,
        mix=mix,
    )


def model_builder(
    block: dict[str, Any], data: DataConfig, classes: dict[str, int]
) -> Callable[[jax.Array], nnx.Module]:
    """PRNG key -> model, for the shapes that the data config gives."""
    spec = input_spec(data)
    return lambda key: build_model(block, num_classes=classes, input=spec, rngs=nnx.Rngs(key))


def starting_variables(
    init: InitConfig, skeleton: tree.Skeleton, spec: InputSpec
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Reads the weights that a training starts from.

    Args:
      init: which folders.
      skeleton: of the model to train.
      spec: the shape of what it reads.

    Returns:
      ({path: array}, one line for each folder: what was done with it).

    Raises:
      UserError: a folder that cannot be read, or weights that do not fit; names the field.
    """
    model = skeleton.merge(skeleton.params, skeleton.stats)
    variables, said = {}, []
    for name in ("model", "audio", "video"):
        folder = getattr(init, name)
        if not folder:
            continue
        try:
            if name == "model":
                found, what = model_variables(_whole_model(folder), model)
            else:
                found, what = encoder_variables(read_converted(folder), model, name, spec)
        except UserError as error:
            raise UserError(f"config.init.{name}={folder}: {error}") from error
        variables |= found
        said.append(f"starting from {folder}: {what}")
    return variables, said


def _whole_model(folder: str) -> dict[str, np.ndarray]:
    if is_converted(folder):
        return read_converted(folder).variables
    run = load_run(folder)
    return {**run.params, **run.stats}


def make_evaluate(
    skeleton: tree.Skeleton, parts: Parts, splits: Splits, mesh: Mesh
) -> Callable[[TrainState], tuple[dict[str, float], float]]:
    """Builds state -> (metrics, score) on the validation split; the score is top-1."""
    local_batch = meshes.check_batch_size(parts.train.eval_batch_size, mesh)
    predict = jax.jit(
        make_predict(skeleton, normalisation(parts.data)), out_shardings=meshes.replicated(mesh)
    )

    def evaluate(state: TrainState) -> tuple[dict[str, float], float]:
        def predict_batch(batch):
            on_device = meshes.to_device(batch, mesh)
            probabilities = predict(state.ema or state.params, state.stats, on_device)
            # With several processes each goes through the whole split, so the global batch holds
            # its clips once for every process and the first copy is all that is needed.
            return jax.tree.map(lambda p: np.asarray(p)[: len(batch[axes.VALID])], probabilities)

        batches = pipeline.eval_batches(splits.val, parts.data, batch_size=local_batch)
        result = classification.evaluate(
            predict_batch, batches, splits.info.label_sets, num_views=parts.data.eval_views
        )
        values = {f"top1/{name}": result[name]["top1"] for name in splits.info.label_sets}
        return values, float(np.mean(list(values.values())))

    return evaluate


def _say(line: str) -> None:
    print(line, flush=True)


def _announce(workdir, splits, schedule, objective, state, mesh) -> None:
    done = int(state.step)
    parameters = tree.parameter_count(state.params)
    terms = ", ".join(f"{weight:g} x {name}" for name, weight in objective.weights.items())
    left_out = f" (left out with one modality: {', '.join(objective.skipped)})"
    print(
        f"{len(splits.train)} training and {len(splits.val)} validation clips, "
        f"{parameters / 1e6:.2f} M parameters, {mesh.size} {jax.default_backend()} device(s)\n"
        f"loss = {terms}{left_out if objective.skipped else ''}\n"
        f"{f'continuing at step {done} of' if done else 'training for'} {schedule.total_steps} "
        f"steps; everything goes to {workdir}",
        flush=True,
    )
