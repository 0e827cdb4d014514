"""What eight devices tell each other in a training step does not grow unnoticed.

Counts and bytes of the collectives in the compiled step of the recipes' `:smoke`, against the
limits in collectives.json. After a change that is meant to add some:

    python tests/integration/test_collectives.py
"""

import json
import sys
from pathlib import Path

import pytest

if __name__ == "__main__":  # as for the tests, before JAX is imported
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import conftest  # noqa: F401

import jax

from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.config import load_config, recipes
from avt_jax.experiment.cost import step_arguments
from avt_jax.profiling import collectives, hlo
from avt_jax.training import mesh as meshes

LIMITS = Path(__file__).parent / "collectives.json"
# The others' steps differ from one of these in numbers and label sets only.
MEASURED = ("epic_kitchens_100", "mbt_vggsound", "own", "quickstart")


def compiled_step(recipe):
    """The text of a recipe's step for eight devices."""
    config = load_config(f"{recipe}:smoke")
    experiment = Experiment(config, classes=Experiment(config).classes, devices=jax.devices()[:8])
    state, batch, key = step_arguments(experiment, config.train.batch_size)
    places = meshes.variable_shardings(experiment.mesh, state, experiment.parts.mesh)
    step = experiment.packed_step(places, state)
    arguments = jax.eval_shape(step.pack, state), batch, key
    # The other way to make kernels takes half as long; the collectives are the same.
    lowered = step.jitted.lower(*arguments)
    return lowered.compile(compiler_options=meshes.older_loops()).as_text()


def measure(recipe):
    """{kind: {"count": ..., "bytes": ...}} of a recipe's step, loops as often as they run."""
    program = hlo.parse(compiled_step(recipe))
    assert program.num_partitions == 8
    found = collectives.totals(collectives.find(program))
    return {kind: {"count": one.count, "bytes": one.bytes} for kind, one in sorted(found.items())}


def traits(recipe):
    """What of a recipe's `:smoke` decides which operations its step has."""
    config = load_config(f"{recipe}:smoke").to_dict()
    weights = config["losses"].pop("weights")
    model = {name: value for name, value in config["model"].items() if name != "drop_path"}
    terms = sorted(name for name, weight in weights.items() if weight)
    return model, terms, config["mixing"], config["optimizer"]["name"], config["mesh"]


def test_every_recipe_is_like_a_measured_one():
    known = [traits(recipe) for recipe in MEASURED]
    for recipe in recipes():
        assert traits(recipe) in known, f"{recipe}: add it to MEASURED"


@pytest.mark.parametrize("recipe", MEASURED)
def test_collectives_stay_within_their_limits(recipe):
    limits, found = json.loads(LIMITS.read_text())[recipe], measure(recipe)
    assert found, "eight devices that tell each other nothing do not train together"
    for kind, amounts in found.items():
        assert kind in limits, f"{kind}: {amounts}, where there was none"
        for what, amount in amounts.items():
            assert amount <= limits[kind][what], f"{kind}: {amounts} is over {limits[kind]}"


if __name__ == "__main__":
    measured = {recipe: measure(recipe) for recipe in MEASURED}
    LIMITS.write_text(json.dumps(measured, indent=2) + "\n")
