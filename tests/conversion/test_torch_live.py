"""Conversion against models that run: our UniFormer in PyTorch, AST in transformers."""

from __future__ import annotations

import importlib.util
import pathlib
import sys

import jax
import numpy as np
import pytest
from flax import nnx

from avt_jax import conversion
from avt_jax.models.encoders.ast import AST, ASTConfig
from avt_jax.models.encoders.uniformer import UniFormerConfig

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.live_torch

_BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def torch_uniformer():
    """The module benchmarks/torch_uniformer.py, which is not installed."""
    path = _BENCHMARKS / "torch_uniformer.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[path.stem]


def randomised(net, seed: int):
    """The net in evaluation mode, with every array of its state dict moved off its start."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, array in net.state_dict().items():
            if name.endswith("running_var"):
                array.uniform_(0.5, 2.0)
            elif array.is_floating_point():
                array.add_(0.1 * torch.randn_like(array))
    return net.eval()


def numpy_state(net) -> dict[str, np.ndarray]:
    return {name: array.numpy() for name, array in net.state_dict().items()}


def run(model: nnx.Module, method, *inputs: np.ndarray) -> np.ndarray:
    """A method of a model on arrays, compiled."""
    graph, state = nnx.split(model)
    call = jax.jit(lambda state, *inputs: method(nnx.merge(graph, state), *inputs))
    return np.asarray(call(state, *inputs))


@pytest.mark.parametrize(
    "options, size",
    (
        (dict(depth=(1, 2, 1, 2), dim=(8, 12, 24, 40), head_dim=8, num_classes=3), (7, 70, 100)),
        (
            dict(
                depth=(2, 1, 2, 1),
                dim=(6, 8, 32, 32),
                head_dim=16,
                mlp_ratio=2.5,
                qkv_bias=False,
                std=True,
                num_classes=11,
            ),
            (5, 64, 33),
        ),
        (
            dict(depth=(1, 1, 1, 1), dim=(4, 8, 16, 24), head_dim=8, split=True, num_classes=5),
            (8, 48, 64),
        ),
        (
            dict(
                depth=(1, 1, 2, 1),
                dim=(4, 8, 12, 12),
                head_dim=4,
                split=True,
                std=True,
                num_classes=2,
            ),
            (3, 95, 32),
        ),
    ),
    ids=("plain", "std", "split", "split and std"),
)
def test_uniformer(torch_uniformer, rng, options, size):
    net = randomised(torch_uniformer.UniFormer(**options), seed=1)
    video_bthwc = rng.normal(size=(2, *size, 3)).astype(np.float32)
    with torch.no_grad():
        want = net(torch.from_numpy(video_bthwc.transpose(0, 4, 1, 2, 3).copy())).numpy()
    config = {name: value for name, value in options.items() if name != "num_classes"}
    model = conversion.from_state_dict("uniformer", numpy_state(net), UniFormerConfig(**config))
    got = run(model, type(model).__call__, video_bthwc)
    assert np.ptp(want) > 0.1
    np.testing.assert_allclose(got, want, atol=5e-5, rtol=0)


@pytest.mark.parametrize("variant, count", (("S", 21_400_400), ("B", 49_813_200)))
def test_parameter_count_of_the_torch_uniformer(torch_uniformer, variant, count):
    with torch.device("meta"):
        net = torch_uniformer.UniFormer(**getattr(torch_uniformer, variant))
    assert sum(parameter.numel() for parameter in net.parameters()) == count


ASTS = (
    dict(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=60,
        frequency_stride=10,
        time_stride=10,
        max_length=76,
        num_mel_bins=64,
        num_labels=5,
    ),
    dict(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=128,
        frequency_stride=9,
        time_stride=13,
        max_length=101,
        num_mel_bins=47,
        num_labels=17,
        layer_norm_eps=1e-5,
    ),
    dict(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=16,
        frequency_stride=16,
        time_stride=7,
        max_length=40,
        num_mel_bins=128,
        num_labels=2,
        qkv_bias=False,
    ),
)


def ast_config(theirs: dict) -> ASTConfig:
    return ASTConfig(
        dim=theirs["hidden_size"],
        depth=theirs["num_hidden_layers"],
        num_heads=theirs["num_attention_heads"],
        mlp_ratio=theirs["intermediate_size"] / theirs["hidden_size"],
        stride=(theirs["frequency_stride"], theirs["time_stride"]),
        qkv_bias=theirs.get("qkv_bias", True),
        norm_eps=theirs.get("layer_norm_eps", 1e-12),
    )


@pytest.mark.parametrize("options", ASTS, ids=("one stride", "two strides", "no query bias"))
def test_ast(rng, options):
    config = transformers.ASTConfig(**options)
    net = randomised(transformers.ASTForAudioClassification(config), seed=2)
    fbank_bsf = rng.normal(size=(2, options["max_length"], options["num_mel_bins"]))
    fbank_bsf = fbank_bsf.astype(np.float32)
    with torch.no_grad():
        x = torch.from_numpy(fbank_bsf)
        want_tokens = net.audio_spectrogram_transformer(x).last_hidden_state.numpy()
        want_logits = net(x).logits.numpy()
    ours = ast_config(options)
    model = conversion.from_state_dict("ast", numpy_state(net), ours)
    np.testing.assert_allclose(
        run(model, AST.all_tokens, fbank_bsf), want_tokens, atol=1e-4, rtol=0
    )
    assert np.ptp(want_logits) > 0.1
    np.testing.assert_allclose(run(model, AST.__call__, fbank_bsf), want_logits, atol=1e-4, rtol=0)
    encoder = conversion.from_state_dict(
        "ast", numpy_state(net.audio_spectrogram_transformer), ours
    )
    assert not hasattr(encoder, "head")
    np.testing.assert_allclose(
        run(encoder, AST.all_tokens, fbank_bsf), want_tokens, atol=1e-4, rtol=0
    )


def test_names_in_a_saved_file_give_the_same_model(rng, tmp_path):
    numpy_files = pytest.importorskip("safetensors.numpy")
    options = ASTS[1]
    net = randomised(
        transformers.ASTForAudioClassification(transformers.ASTConfig(**options)), seed=3
    )
    net.save_pretrained(tmp_path)
    saved = numpy_files.load_file(tmp_path / "model.safetensors")
    # transformers 5 renames what it holds in memory when it writes.
    assert set(saved) != set(net.state_dict())
    fbank_bsf = rng.normal(size=(1, options["max_length"], options["num_mel_bins"]))
    fbank_bsf = fbank_bsf.astype(np.float32)
    with torch.no_grad():
        want = net(torch.from_numpy(fbank_bsf)).logits.numpy()
    model = conversion.from_state_dict("ast", saved, ast_config(options))
    np.testing.assert_allclose(run(model, AST.__call__, fbank_bsf), want, atol=1e-4, rtol=0)
