"""The examples in CONTRIBUTING.md are complete: each is registered, built and run."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from avt_jax import axes
from avt_jax.data.manifests.catalog import entries
from avt_jax.data.manifests.catalog.build import manifest_from_annotations
from avt_jax.data.manifests.manifest import read_classes, read_manifest
from avt_jax.experiment.config import load_config
from avt_jax.losses import objective
from avt_jax.models import build
from avt_jax.models.encoders import VIDEO_ENCODERS
from avt_jax.models.fusions import FUSIONS
from avt_jax.models.inputs import InputSpec

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, flags=re.S))
SPEC = InputSpec(num_frames=4, frame_size_px=32, fbank_frames=48, mel_bins=32)
SMALL = dict(dim=8, num_heads=2, num_blocks=1, precision="float32") | {
    f"{modality}_encoder": {"variant": "smoke"} for modality in ("video", "audio")
}


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Imports an example as the module that it would be."""

    def load(path):
        file = tmp_path / Path(path).name
        file.write_text(EXAMPLES[path], encoding="utf-8")
        name = path.removesuffix(".py").replace("/", ".")
        spec = importlib.util.spec_from_file_location(name, file)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


def outputs(**fields):
    """{what: shapes} of a forward pass of the model with these config fields."""

    def run(video, audio):
        model = build.build_model(fields, num_classes={"label": 3}, input=SPEC, rngs=nnx.Rngs(0))
        return model.fuse(*model.encode(video, audio))

    given = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 4, 32, 32, 3), (2, 48, 32))]
    return jax.tree.map(lambda x: x.shape, jax.eval_shape(run, *given))


def test_fusion(example, monkeypatch):
    module = example("avt_jax/models/fusions/average.py")
    monkeypatch.setitem(FUSIONS, "average", module)
    found = outputs(**SMALL, fusion="average", average_weight=0.5)
    assert found["logits"] == {"label": (2, 3)}
    fusion = module.Average(2, weight=0.5, rngs=nnx.Rngs(0))
    for layer in (fusion.to_video, fusion.to_audio):
        layer.kernel[...] = jnp.eye(2)
    video, audio = fusion(jnp.ones((1, 2, 2)), jnp.full((1, 3, 2), 4.0))
    np.testing.assert_array_equal(video, np.full((1, 2, 2), 3.0))
    np.testing.assert_array_equal(audio, np.full((1, 3, 2), 4.5))


def test_encoder(example, monkeypatch):
    module = example("avt_jax/models/encoders/patch_means.py")
    monkeypatch.setitem(VIDEO_ENCODERS, "patch_means", module)
    chosen = {"name": "patch_means", "variant": "smoke", "patch_px": 16}
    found = outputs(**SMALL | {"video_encoder": chosen})
    assert found["logits"] == {"label": (2, 3)} and found["tokens"]["video"] == (2, 16, 8)
    encoder = module.build(module.VARIANTS["smoke"], SPEC, dtype=jnp.float32, rngs=nnx.Rngs(0))
    video = jnp.zeros((1, 4, 32, 32, 3)).at[:, 1, 8:16, :8].set(1.0)
    (changed,) = np.nonzero(np.asarray(encoder.tokens(video)[0]).any(-1))
    assert changed.tolist() == [16 + 4]  # frame 1, row 1, column 0 of 4 x 4 patches


class Embeddings:
    """A `Forward` that knows embeddings only."""

    embeddings = jnp.array([[1.0, 0], [0, 1], [jnp.nan, 0]]), jnp.array([[1.0, 0], [1, 0], [0, 1]])


def test_loss(example, monkeypatch):
    module = example("avt_jax/losses/alignment.py")
    monkeypatch.setitem(objective.TERMS, "alignment", (module.TERM, 0.0))
    weights = dict.fromkeys(objective.TERMS, 0.0) | {"alignment": 2.0}
    config = objective.ObjectiveConfig(weights=weights)
    batch = {axes.VALID: jnp.array([True, True, False])}
    batch |= {name: jnp.ones(3, bool) for name in (axes.HAS_AUDIO, axes.HAS_VIDEO)}
    total, metrics = objective.Objective(config)(Embeddings(), batch)
    # Distances 0 and 1; the third clip is padding.
    assert tuple(map(float, metrics["alignment"])) == (1.0, 2.0) and float(total) == 1.0


@pytest.mark.parametrize("modalities", ["av", "video", "audio"])
def test_model(example, monkeypatch, modalities):
    module = example("avt_jax/models/frames.py")
    monkeypatch.setitem(build.MODELS, "frames", module.FrameBlocks)
    fields = {"name": "frames", "dim": 8, "modalities": modalities}
    assert build.resolve(fields) == fields | {"precision": "float32"}
    assert build.abilities(fields) == frozenset()
    if modalities == "av":
        found = outputs(**fields)
        assert found["logits"] == {"label": (2, 3)} and found["pooled"]["audio"] == (2, 8)
    model = build.build_model(fields, num_classes={"label": 3}, input=SPEC, rngs=nnx.Rngs(0))
    assert hasattr(model, "video_proj") == (modalities != "audio")


def test_data_set(tmp_path):
    names = vars(entries).copy()
    exec(EXAMPLES["avt_jax/data/manifests/catalog/entries.py"], names)
    birds = names["_BIRDS"]
    rows = ["robin;r1;0;5;a", "crow;r1;5;9;a", "owl;r2;1;4.5;b"]
    (tmp_path / "birds.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("r1", "r2"):
        (videos / f"{name}.mp4").touch()
    out = tmp_path / "clips.csv"
    written = manifest_from_annotations(birds, [("", tmp_path / "birds.csv")], videos, out)
    classes = {name: read_classes(file) for name, file in written.class_lists.items()}
    clips = read_manifest(out, classes).clips
    spans = [(clip.path.stem, clip.start_sec, clip.end_sec, clip.split) for clip in clips]
    assert spans == [("r1", 0, 5, "train"), ("r1", 5, 9, "train"), ("r2", 1, 4.5, "test")]


@pytest.mark.parametrize("argument", ["", ":smoke"])
def test_recipe(tmp_path, argument):
    recipe = tmp_path / "birds.py"
    recipe.write_text(EXAMPLES["configs/birds.py"], encoding="utf-8")
    config = load_config(f"{recipe}{argument}")
    assert config.train.batch_size == (8 if argument else 32)


def test_the_examples_keep_the_house_style(tmp_path):
    """Linted and formatted as the package is; typed, see pyproject.toml."""
    for path, text in EXAMPLES.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    config = ["--config", str(ROOT / "pyproject.toml"), "--no-cache", str(tmp_path)]
    ruff = [sys.executable, "-m", "ruff"]
    # An entry of a data set stands in the middle of its module, which has the names.
    check = subprocess.run(
        [*ruff, "check", "--extend-ignore", "F821", *config], capture_output=True, text=True
    )
    assert check.returncode == 0, check.stdout
    form = subprocess.run([*ruff, "format", "--diff", *config], capture_output=True, text=True)
    assert form.returncode == 0, form.stdout
