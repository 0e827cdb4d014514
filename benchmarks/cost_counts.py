"""What benchmarks/cost_table.py counts: encoders, whole models, and the fusion alone."""

from __future__ import annotations

import dataclasses
from functools import cache
from unittest import mock

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from avt_jax import tree
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.config import load_config
from avt_jax.models import layers
from avt_jax.models.encoders.ast import AST
from avt_jax.models.encoders.ast import VARIANTS as AST_VARIANTS
from avt_jax.models.encoders.uniformer import VARIANTS as UNIFORMER_VARIANTS
from avt_jax.models.encoders.uniformer import UniFormer
from avt_jax.models.fusions.bottleneck import AVBottleneck
from avt_jax.models.fusions.merged import MergedAttention
from avt_jax.profiling import flops, xla
from avt_jax.profiling.forward_pass import ForwardPass

CLASSES = {"label": 527}
WIDTH, HEADS, K, L = 768, 12, 4, 4
LENGTHS, DEPTHS = (4, 5, 10, 20, 50), (1, 2, 4, 8)

# name -> (recipe, what is changed in it). All are counted at 16 (AVT) or 8 (MBT) frames and 8 s.
_MODEL = "--config.model."
_WEIGHTS = "--config.losses.weights."
_TWO_TERMS = (f"{_WEIGHTS}matching=0", f"{_WEIGHTS}masked_audio=0", f"{_MODEL}decoders=()")
SYSTEMS = {
    "MBT-B": ("mbt_vggsound", ()),
    "MBT-B, concatenation at 8": ("mbt_vggsound", (f"{_MODEL}fusion=merged",)),
    "MBT-B, concatenation at 0": (
        "mbt_vggsound",
        (f"{_MODEL}fusion=merged", f"{_MODEL}fusion_layer=0"),
    ),
    "MBT-B, video only": ("mbt_vggsound", (f"{_MODEL}modalities=video",)),
    "MBT-B, audio only": ("mbt_vggsound", (f"{_MODEL}modalities=audio",)),
    "AVT-S": ("vggsound", (f"{_MODEL}video_encoder.variant=S", *_TWO_TERMS)),
    "AVT-B": ("vggsound", _TWO_TERMS),
    "AVT-B, merged attention": ("vggsound", (f"{_MODEL}fusion=merged", *_TWO_TERMS)),
    "AVT-B, whole objective": ("vggsound", ()),
}
# GFLOP (forward, XLA) that the authors' own implementation of MBT has.
ORIGINAL_GFLOP = {
    "MBT-B": 437.05,
    "MBT-B, concatenation at 8": 612.3,
    "MBT-B, concatenation at 0": 964.4,
    "MBT-B, video only": 361.4,
    "MBT-B, audio only": 74.8,
}
# name -> (AST stride or UniFormer variant, frames, classes, published multiply-adds in 1e9).
ENCODERS = {
    "UniFormer-S, 16 x 224 x 224": ("S", 16, 400, 41.76),
    "UniFormer-B, 16 x 224 x 224": ("B", 16, 400, 96.74),
    "AST stride 10, 128 x 1024": (10, 1024, 527, 130.6),
    "AST stride 16, 128 x 1024": (16, 1024, 527, 48.7),
    "AST stride 10, 128 x 800": (10, 800, 527, None),
    "AST stride 16, 128 x 800": (16, 800, 527, None),
}


def system_config(name: str):
    """The config of one of `SYSTEMS`, in float32: conversions to bfloat16 would be counted."""
    recipe, changes = SYSTEMS[name]
    return load_config(recipe, [*changes, f"{_MODEL}precision=float32"])


def analytic_gflop(name: str) -> dict[str, float]:
    """GFLOP of the forward pass's products and convolutions, {part: GFLOP}."""
    experiment = Experiment(system_config(name), classes=CLASSES)
    modalities = experiment.parts.model["modalities"]
    forward = ForwardPass(experiment.skeleton, modalities, experiment.spec)
    return {part: value / 1e9 for part, value in forward.flops().items()}


def shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


@dataclasses.dataclass(frozen=True)
class EncoderCost:
    """An encoder with its head on one clip; GFLOP."""

    parameters: int
    analytic: float
    xla: float
    step: float
    published_gmac: float | None


def encoder_cost(name: str) -> EncoderCost:
    """Counts one of `ENCODERS`; its training step is cross-entropy, gradient and AdamW."""
    kind, frames, classes, published = ENCODERS[name]
    if isinstance(kind, str):
        config = UNIFORMER_VARIANTS[kind]
        skeleton = tree.Skeleton(lambda: UniFormer(config, num_classes=classes, rngs=nnx.Rngs(0)))
        x = shape(1, frames, 224, 224, 3)
    else:
        config = dataclasses.replace(AST_VARIANTS["base"], stride=kind)
        sizes = dict(num_frames=frames, num_classes=classes)
        skeleton = tree.Skeleton(lambda: AST(config, **sizes, rngs=nnx.Rngs(0)))
        x = shape(1, frames, 128)
    optimizer = optax.adamw(1e-4)

    def step(params, stats, opt_state, x, label_b):
        def loss(params):
            model = skeleton.merge(params, stats)
            logits = model(x, train=True)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, label_b)
            return losses.mean(), tree.split(model)[1]

        grads, stats = jax.grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), stats, opt_state

    variables = (skeleton.params, skeleton.stats)
    label_b = jax.ShapeDtypeStruct((1,), jnp.int32)
    opt_state = jax.eval_shape(optimizer.init, skeleton.params)

    def forward(params, stats, x):
        return skeleton.merge(params, stats)(x)

    trained = xla.flops(step, *variables, opt_state, x, label_b)
    return EncoderCost(
        parameters=tree.parameter_count(skeleton.params),
        analytic=flops.total(forward, *variables, x) / 1e9,
        xla=xla.flops(forward, *variables, x) / 1e9,
        step=trained / 1e9,
        published_gmac=published,
    )


@cache
def fusion_skeleton(kind: str, k: int, length: int) -> tree.Skeleton:
    if kind == "merged":
        return tree.Skeleton(lambda: MergedAttention(WIDTH, HEADS, num_blocks=k, rngs=nnx.Rngs(0)))
    return tree.Skeleton(
        lambda: AVBottleneck(WIDTH, HEADS, num_blocks=k, num_bottleneck=length, rngs=nnx.Rngs(0))
    )


def _fusion(kind: str, n: int, m: int, k: int, length: int):
    """(fusion module alone as a function, shapes of its arguments)."""
    skeleton = fusion_skeleton(kind, k, length)

    def forward(params, video, audio):
        return skeleton.merge(params, {})(video, audio)

    return forward, (skeleton.params, shape(1, n, WIDTH), shape(1, m, WIDTH))


@cache
def fusion_flops(
    kind: str,
    n: int,
    m: int,
    *,
    k: int = K,
    length: int = L,
    without_attention: bool = False,
    backward: bool = False,
) -> int:
    """FLOPs of the fusion module alone, XLA.

    Args:
      kind: "bottleneck" or "merged".
      n: video tokens.
      m: audio tokens.
      k: blocks.
      length: bottleneck tokens.
      without_attention: put each token's own value in the place of attention, so that the
        difference to the whole is exactly what the attention (products and softmax) costs.
      backward: with the gradients of parameters and tokens.
    """
    forward, args = _fusion(kind, n, m, k, length)

    def both(*args):
        out, back = jax.vjp(forward, *args)
        return out, back(out)

    replacement = (lambda q, k, v, **_: v) if without_attention else layers.dot_product_attention
    with mock.patch.object(layers, "dot_product_attention", replacement):
        return xla.flops(both if backward else forward, *args)


def attention_flops(kind: str, n: int, m: int, **how) -> int:
    """What attention costs within the fusion: the whole less the whole without it."""
    return fusion_flops(kind, n, m, **how) - fusion_flops(kind, n, m, without_attention=True, **how)


def pairs_flops(kind: str, n: int, m: int, *, k: int = K, length: int = L) -> int:
    """The curve: 4 K d FLOPs for each pair of tokens that see each other."""
    pairs = (n + m) ** 2 if kind == "merged" else (n + length) ** 2 + (m + length) ** 2
    return 4 * k * WIDTH * pairs


def fusion_parameters(kind: str, *, k: int, length: int) -> int:
    """Scalars of the fusion module."""
    return tree.parameter_count(fusion_skeleton(kind, k, length).params)


@cache
def fusion_products(kind: str, n: int, m: int, *, k: int = K, length: int = L) -> int:
    """FLOPs of the fusion module's products alone; arguments as those of `fusion_flops`."""
    function, args = _fusion(kind, n, m, k, length)
    return flops.total(function, *args)
