"""One experiment: a config, checked once, and everything it describes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from avt_jax import axes, tree
from avt_jax.data.loading import pipeline, tune_workers
from avt_jax.data.loading.balance import ClipLabels, clips_by_class
from avt_jax.data.loading.config import DataConfig
from avt_jax.experiment.class_balance import check_balance, training_labels, weights_of_classes
from avt_jax.experiment.judging.validation import PredictAndRead, jit_predict, make_evaluate
from avt_jax.experiment.own_batches import OwnBatches, evaluated_batches
from avt_jax.experiment.parts import Parts, parse
from avt_jax.experiment.splits import OwnData, Splits, is_source, length, open_splits
from avt_jax.losses.objective import Objective
from avt_jax.models.build import abilities, build_model
from avt_jax.models.forward import make_predict
from avt_jax.models.inputs import InputSpec
from avt_jax.models.kernels import kept
from avt_jax.models.kernels.choice import AUTO, Kernels
from avt_jax.training import mesh as meshes
from avt_jax.training import shards_place
from avt_jax.training.durations import in_steps
from avt_jax.training.hiding import make_hide
from avt_jax.training.inputs import input_spec, normalisation
from avt_jax.training.loop import Batches, Evaluate, Schedule
from avt_jax.training.mixing import make_mix
from avt_jax.training.optimizer import learning_rate_schedule, make_hold, make_optimizer
from avt_jax.training.optimizer.hold import Hold
from avt_jax.training.processes.agree import notes
from avt_jax.training.processes.stop import Interrupted
from avt_jax.training.state import Birth, TrainState
from avt_jax.training.step import PackedStep, TrainStep, make_train_step
from avt_jax.training.step.accumulate import check_micro_batches
from avt_jax.tree.rngs import CountedRngs

Say = Callable[[str], None]


def silent(line: str) -> None:
    """Takes a message for the user and tells nobody."""


class Experiment:
    """A config and what it describes; each part is built when it is first asked for.

    Training, evaluation, profiler, studies, tests and benchmarks all get their parts here.

    Args:
      config: from `load_config`, or {block: {field: value}}.
      data: used in place of the shards that the config names.
      classes: {label set: number of classes}, where no data are to be opened (profiling).
      multi_label: with `classes`: those of which a clip may have any number of classes.
      devices: to compute on; None = all.
      run_dir: of a run that is continued; its shards are also looked for where they were then.

    Attributes:
      parts: the checked config.

    Raises:
      UserError: anything wrong in the config; what concerns the data, when they are opened.
    """

    def __init__(
        self,
        config: ConfigDict | Mapping[str, Any] | Parts,
        *,
        data: OwnData | None = None,
        classes: Mapping[str, int] | None = None,
        multi_label: Sequence[str] = (),
        devices: Sequence[jax.Device] | None = None,
        run_dir: Path | None = None,
    ):
        if isinstance(config, ConfigDict):
            config = config.to_dict()
        self.parts = config if isinstance(config, Parts) else parse(config)
        self._own = data
        self._classes = None if classes is None else dict(classes)
        self._multi_label = None if classes is None else tuple(multi_label)
        self._devices, self._run_dir = devices, run_dir

    @cached_property
    def config(self) -> dict[str, Any]:
        """The config with all its fields, as it is saved with a run."""
        return self.parts.to_dict()

    @cached_property
    def data(self) -> DataConfig:
        """The config's block `data`, its path where the shards are found from here.

        Raises:
          UserError: they are not found.
        """
        if self._own:
            return self.parts.data
        given, option = self.parts.data.path, "--config.data.path"
        found = shards_place.find(given, self._run_dir, origin=option, option=f"{option}=SHARDS")
        return replace(self.parts.data, path=found)

    @property
    def shards(self) -> str | None:
        """Where the shards are; None of data from Python."""
        return None if self._own else self.data.path

    @cached_property
    def splits(self) -> Splits:
        """The opened data."""
        return open_splits(self.data, self._own)

    @cached_property
    def classes(self) -> dict[str, int]:
        """{label set: number of classes}."""
        return self.splits.classes if self._classes is None else self._classes

    @property
    def multi_label(self) -> tuple[str, ...]:
        """The label sets of which a clip may have any number of classes, as the data say."""
        return self.splits.info.multi_label if self._multi_label is None else self._multi_label

    @cached_property
    def spec(self) -> InputSpec:
        """The shape of what the model reads."""
        return input_spec(self.parts.data)

    @cached_property
    def mesh(self) -> Mesh:
        """The devices, in their places."""
        return meshes.make_mesh(self.parts.mesh, self._devices)

    def build(self, key: jax.Array) -> nnx.Module:
        """Makes the model with random weights."""
        return build_model(
            self.parts.model,
            num_classes=self.classes,
            input=self.spec,
            rngs=CountedRngs(key),
            kernels=self._kernels,
        )

    @cached_property
    def _kernels(self) -> Kernels:
        """Which forms compute the model, with what was measured on this machine."""
        return kept.told(self.parts.model.get("kernels", AUTO))

    @cached_property
    def skeleton(self) -> tree.Skeleton[Any]:
        """The model's structure, without arrays."""
        rules = self.parts.optimizer

        def frozen(params: Mapping[str, Any]) -> set[str]:
            rules.check_paths(params)
            return rules.frozen_paths(params)

        return tree.Skeleton(lambda: self.build(jax.random.key(0)), frozen)

    @cached_property
    def objective(self) -> Objective:
        """The losses, for this model."""
        model = self.parts.model
        warmup = in_steps(self.parts.losses, "warmup", self.parts.train.pace(self.num_clips))
        return Objective(
            self.parts.losses,
            modalities=model["modalities"],
            abilities=abilities(model),
            warmup_steps=round(warmup or 0),
            class_weights=self.class_weights,
        )

    @cached_property
    def class_weights(self) -> dict[str, np.ndarray]:
        """{label set: [y]} in the loss; {} = all weigh 1, also where nothing is opened."""
        given = self.parts.losses.class_weights
        if not given or self._classes is not None:
            return {}
        return weights_of_classes(given, self.splits.info, lambda: self.train_labels)

    @property
    def num_clips(self) -> int:
        """Of the training split; of batches that only going through would count, one batch's."""
        if self._classes is not None:  # nothing is opened
            return self.parts.train.batch_size
        return length(self.splits.train) or self.parts.train.batch_size

    @cached_property
    def schedule(self) -> Schedule:
        """When the training logs, evaluates, saves and ends."""
        return self.parts.train.schedule(self.num_clips)

    @cached_property
    def learning_rate(self) -> optax.Schedule:
        """Step -> learning rate."""
        return learning_rate_schedule(
            self.parts.optimizer,
            total_steps=self.schedule.total_steps,
            pace=self.parts.train.pace(self.num_clips),
        )

    def rates(self, step: Any) -> dict[str, Any]:
        """What a training logs of a step: {"lr": its rate, "lr_held": the rate of what is held}."""
        rate = self.learning_rate(step)
        return {"lr": rate, **({"lr_held": rate * self.hold.rate(step)} if self.hold else {})}

    @cached_property
    def optimizer(self) -> optax.GradientTransformation:
        """Over flat parameters.

        Raises:
          UserError: a rule of the config matches no parameter.
        """
        skeleton = self.skeleton
        return make_optimizer(
            self.parts.optimizer, self.learning_rate, skeleton.params, skeleton.packing, self.hold
        )

    @cached_property
    def hold(self) -> Hold | None:
        """What is not trained in the first part of the training; None for nothing."""
        is_open = self._classes is None  # else nobody knows how long an epoch is
        return make_hold(
            self.parts.optimizer,
            self.skeleton.params,
            self.skeleton.packing,
            total_steps=self.schedule.total_steps if is_open else sys.maxsize,
            pace=self.parts.train.pace(self.num_clips),
        )

    @cached_property
    def step(self) -> TrainStep:
        """The training step, pure and not yet jitted.

        Raises:
          UserError: clips are to be mixed although a loss needs them whole.
        """
        parts = self.parts
        mix = make_mix(parts.mixing, self.objective.weights)
        hide = {}
        if self.objective.hides:
            model = self.skeleton.merge(self.skeleton.params, self.skeleton.stats)
            hide = make_hide(model, self.objective.hides, parts.masking, parts.activity, self.spec)
        return make_train_step(
            self.skeleton,
            self.objective,
            self.optimizer,
            normalisation(parts.data),
            ema_decay=parts.optimizer.ema_decay,
            hide=hide,
            shared_pass=parts.masking.shared_pass,
            mix=mix,
            accumulate=parts.train.accumulate,
            hold=self.hold,
        )

    @cached_property
    def birth(self) -> Birth:
        """How the state is made, and its shapes and shardings before it is."""
        return Birth(
            self.build,
            self.optimizer,
            with_ema=self.parts.optimizer.ema_decay > 0,
            mesh=self.mesh,
            config=self.parts.mesh,
        )

    def init_state(self) -> tuple[TrainState, TrainState]:
        """(state with random weights, its shardings), in its place on the mesh."""
        init_key, _ = self.keys
        return self.birth.state(init_key), self.birth.shardings

    def packed_step(self, shardings: TrainState, state: TrainState) -> PackedStep:
        """The training step, jitted.

        Args:
          shardings: of the state as `init_state` makes it.
          state: such a state, or its shapes.
        """
        config = self.parts.mesh
        return PackedStep(self.step, self.skeleton.packing, shardings, state, self.mesh, config)

    @property
    def keys(self) -> tuple[jax.Array, jax.Array]:
        """(for the initial weights, for the steps): PRNG keys of the run."""
        init_key, step_key = jax.random.split(jax.random.key(self.parts.seed))
        return init_key, step_key

    def check_batches(self) -> int:
        """The clips of a training batch that each process loads.

        Raises:
          UserError: a batch cannot be divided as the config says.
        """
        parts = self.parts
        check_balance(parts.data, self.splits)
        local = meshes.check_batch_size(parts.train.batch_size, self.mesh)
        check_micro_batches(
            parts.train.accumulate,
            parts.train.batch_size,
            self.mesh.size,
            self.objective.neighbours,
        )
        return local

    def train_batches(self, say: Say = silent) -> Batches:
        """The endless training batches of this process, from the start; close them.

        Args:
          say: is told how many threads and workers were found best, where that is automatic.

        Raises:
          UserError: as `check_batches`.
        """
        train, parts = self.splits.train, self.parts
        local = self.check_batches()
        if not is_source(train):
            return OwnBatches(train, self.spec, self.classes, local, self.multi_label)
        balance = parts.data.balance
        groups = clips_by_class(self.train_labels, balance) if balance else ()
        data = tune_workers.settle(train, self.data, say=say)
        return pipeline.make_train_iterator(
            train,
            data,
            batch_size=local,
            seed=parts.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            groups=groups,
        )

    @cached_property
    def train_labels(self) -> ClipLabels:
        """The labels of all training clips; going through them may take long."""
        return training_labels(self.data, self.splits)

    @cached_property
    def evaluate(self) -> Evaluate:
        """(state, asked) -> (metrics, score) on the validation split.

        The score is the mean over the label sets of top-1, or mAP where a set is multi-label.

        Without a validation split there are no metrics, and the score is None.
        """
        val, data = self.splits.val, self.data
        if val is None:
            return lambda state, asked: ({}, None)
        local_batch = meshes.check_batch_size(self.parts.train.eval_batch_size, self.mesh)
        return make_evaluate(
            self.predict_part,
            lambda: self.eval_batches(val, data, local_batch),
            self.splits.info.label_sets,
            num_views=data.eval_views,
            multi_label=self.multi_label,
            with_raw=self.parts.train.evaluate_raw,
        )

    @cached_property
    def _predict(self) -> PredictAndRead:
        """Jitted: (parameters, statistics, batch) -> (probabilities, a signal to stop or 0)."""
        predict = make_predict(self.skeleton, normalisation(self.parts.data), self.multi_label)
        return jit_predict(predict, self.mesh)

    def predict_part(
        self, state: TrainState, batch: Mapping[str, Any], asked: Callable[[], int]
    ) -> dict[str, np.ndarray]:
        """Probabilities of this process's part of a batch, the averaged parameters' if there are.

        Args:
          state: in either form.
          batch: this process's part, see `avt_jax.axes`.
          asked: gives the number of a signal that asks this process to stop, or 0.

        Raises:
          Interrupted: a process was asked to stop.
        """
        told = {axes.NOTES: notes(asked(), 0, len(batch[axes.VALID]))}
        on_device = meshes.to_device({**batch, **told}, self.mesh)
        found, stop = self._predict(state.ema or state.params, state.stats, on_device)
        if int(stop):
            raise Interrupted(int(stop))
        return jax.tree.map(meshes.to_host, found)

    def eval_batches(self, split: Any, data: DataConfig, batch_size: int) -> Any:
        """Every clip of this process's part of a split once, padded; own batches as they are."""
        return evaluated_batches(split, data, self.spec, self.classes, batch_size, self.multi_label)
