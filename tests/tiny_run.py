"""A run folder with random parameters, as if it had been trained, made in a second."""

import jax
import numpy as np

from avt_jax import tree
from avt_jax.cli import wiring
from avt_jax.cli.config import load_config
from avt_jax.data.generated import open_generated
from avt_jax.training import mesh as meshes
from avt_jax.training import run_folder
from avt_jax.training.checkpoint import Checkpointer
from avt_jax.training.state import TrainState


def make_run(workdir, overrides=(), *, step=3):
    """Writes a run folder for the quickstart's `:smoke` model; returns the folder.

    Args:
      workdir: new folder.
      overrides: such as "--config.model.modalities=audio".
      step: number of the one checkpoint.
    """
    config = load_config("quickstart:smoke", list(overrides))
    data = wiring.parse(config).data
    info, _ = open_generated(data.path, "train")
    classes = {name: len(names) for name, names in info.label_sets.items()}
    build = wiring.model_builder(config.model.to_dict(), data, classes)
    skeleton = tree.Skeleton(lambda: build(jax.random.key(0)))
    rng = np.random.default_rng(0)
    params = {
        path: rng.normal(1.0 if path.endswith("scale") else 0.0, 0.1, leaf.shape).astype("float32")
        for path, leaf in skeleton.params.items()
    }
    stats = {
        path: np.full(leaf.shape, float("var" in path), leaf.dtype)
        for path, leaf in skeleton.stats.items()
    }
    mesh = meshes.make_mesh(meshes.MeshConfig(data=1, fsdp=1, rules=((".*", "replicate"),)))
    run_folder.prepare(workdir, config.to_dict(), info, mesh)
    checkpointer = Checkpointer(workdir, keep_last=1, keep_best=1)
    state = TrainState(np.int32(step), params, stats, {}, {})
    checkpointer.save(jax.tree.map(jax.numpy.asarray, state), {}, score=0.5)
    checkpointer.close()
    return workdir
