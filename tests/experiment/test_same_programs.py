"""Every start and every process makes the same programs: kept ones are found, and jobs agree."""

import os
import subprocess
import sys

PROGRAM = """
import hashlib
import jax, numpy as np
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.config import load_config
from avt_jax.experiment.cost import step_arguments

weights = {name: 0.1 for name in ("contrastive", "matching", "masked_audio", "masked_video")}
config = load_config("kinetics_sounds:smoke", {
    "data": {"path": "generated:8:label=3", "frame_size_px": 64},
    "losses.weights": weights,
    "model.decoders": ("audio", "video"),
    "optimizer": {"ema_decay": 0.9, "layer_decay": 0.9, "frozen": ("audio_encoder/patch.*",)},
})
experiment = Experiment(config)
birth = experiment.birth
step = experiment.packed_step(birth.shardings, birth.shapes)
notes = np.zeros((8, 2), np.int32)
packed = jax.eval_shape(step.pack, birth.shapes)
_, batch, key = step_arguments(experiment, 8)
for name, function, arguments in (
    ("init", jax.jit(birth._create), (key,)),
    ("pack", step.pack, (birth.shapes,)),
    ("step", step.jitted, (packed, batch, key)),
    ("unpack", step.unpack, (packed,)),
    ("predict", experiment._predict, (packed.ema, packed.stats, batch | {"notes": notes})),
):
    text = function.lower(*arguments).as_text()
    print(name, hashlib.sha256(text.encode()).hexdigest())
"""


def test_whatever_the_order_of_sets():
    """In which texts stand in a set depends on a seed that each process draws."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=os.environ | {"PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    first, second = (process.communicate()[0] for process in processes)
    assert all(process.returncode == 0 for process in processes) and len(first.split()) == 10
    assert second == first
