"""MBT in Flax Linen, with the original's parameter names: the other side of the tests.

Written from the paper and the original's parameter tree, without the library's own model, so that a
misreading of one does not hide in the other.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

# What the original appends to the names of a modality's parameters; also the order of the tokens.
SUFFIXES = {"spectrogram": "_spectrogram", "rgb": ""}


class MlpBlock(nn.Module):
    """Dense, tanh GELU, dense."""

    hidden: int

    @nn.compact
    def __call__(self, x):
        hidden = nn.gelu(nn.Dense(self.hidden)(x), approximate=True)
        return nn.Dense(x.shape[-1])(hidden)


class Block(nn.Module):
    """Pre-norm transformer block."""

    num_heads: int
    hidden: int

    @nn.compact
    def __call__(self, x):
        normal = nn.LayerNorm(epsilon=1e-6)(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=self.num_heads)(normal, normal)
        return x + MlpBlock(self.hidden)(nn.LayerNorm(epsilon=1e-6)(x))


class Positions(nn.Module):
    """Adds learned positions."""

    @nn.compact
    def __call__(self, x):
        shape = (1, *x.shape[1:])
        return x + self.param("pos_embedding", nn.initializers.normal(0.02), shape)


class Transformer(nn.Module):
    """Both towers and their exchange; see `LinenMBT`."""

    depth: int
    num_heads: int
    hidden: int
    fusion: str
    fusion_layer: int
    share_encoder: bool

    @nn.compact
    def __call__(self, tokens: dict[str, Any], bottleneck, exchange: bool) -> dict[str, Any]:
        tokens = {
            name: Positions(name=f"posembed_input{SUFFIXES[name]}")(x) for name, x in tokens.items()
        }
        for layer in range(self.depth):
            blocks = self._blocks(layer, tokens)
            if layer < self.fusion_layer or not exchange or len(tokens) == 1:
                tokens = {name: blocks[name](x) for name, x in tokens.items()}
            elif self.fusion == "bottleneck":
                tokens, bottleneck = through_bottleneck(blocks, tokens, bottleneck)
            elif self.share_encoder:
                tokens = jointly(blocks["rgb"], tokens)
            else:
                tokens = beside_the_other(blocks, tokens)
        norm = nn.LayerNorm(epsilon=1e-6, name="encoder_norm")
        lengths = {name: x.shape[1] for name, x in tokens.items()}
        joint = norm(jnp.concatenate([tokens[name] for name in order(tokens)], 1))
        return cut(joint, lengths)

    def _blocks(self, layer, tokens):
        def block(suffix):
            return Block(self.num_heads, self.hidden, name=f"encoderblock_{layer}{suffix}")

        if self.share_encoder:
            shared = block("")
            return dict.fromkeys(tokens, shared)
        return {name: block(SUFFIXES[name]) for name in tokens}


def order(tokens):
    """The modalities that are there, in the original's order."""
    return [name for name in SUFFIXES if name in tokens]


def cut(joint, lengths):
    """The joint sequence [spectrogram | rgb] into its modalities."""
    parts, start = {}, 0
    for name in order(lengths):
        parts[name] = joint[:, start : start + lengths[name]]
        start += lengths[name]
    return parts


def through_bottleneck(blocks, tokens, bottleneck):
    """Each modality with the same bottleneck tokens; their copies are averaged."""
    after, copies = {}, []
    for name, x in tokens.items():
        out = blocks[name](jnp.concatenate([x, bottleneck], 1))
        after[name] = out[:, : x.shape[1]]
        copies.append(out[:, x.shape[1] :])
    return after, sum(copies) / len(copies)


def jointly(block, tokens):
    """One block on all tokens."""
    lengths = {name: x.shape[1] for name, x in tokens.items()}
    return cut(block(jnp.concatenate([tokens[name] for name in order(tokens)], 1)), lengths)


def beside_the_other(blocks, tokens):
    """Each modality's block sees both and keeps its own; both read the layer's input."""
    after = {}
    for name, x in tokens.items():
        others = [tokens[other] for other in tokens if other != name]
        after[name] = blocks[name](jnp.concatenate([*others, x], 1))[:, -x.shape[1] :]
    return after


class LinenMBT(nn.Module):
    """Multimodal Bottleneck Transformer (arXiv:2107.00135) with the original's parameter names.

    Args:
      dim, depth, num_heads, hidden: of both towers; hidden is the width within the MLP.
      patch_px: side of the square patches.
      tubelet_frames: frames of a tubelet; None is 2-D patches of each frame.
      fusion: "bottleneck" or "concat".
      fusion_layer: first layer with an exchange.
      num_bottleneck: bottleneck tokens; the token classifier has one more.
      share_encoder: one set of blocks for both modalities.
      classifier: "token" or "gap".
      num_classes: logits.
    """

    dim: int
    depth: int
    num_heads: int
    hidden: int
    num_classes: int
    patch_px: int = 16
    tubelet_frames: int | None = 2
    fusion: str = "bottleneck"
    fusion_layer: int = 8
    num_bottleneck: int = 4
    share_encoder: bool = False
    classifier: str = "token"

    @nn.compact
    def __call__(self, rgb=None, spectrogram=None, *, exchange: bool = True) -> dict[str, Any]:
        """Logits and tokens.

        Args:
          rgb: [b, t, h, w, 3] float32 or None.
          spectrogram: [b, s, f, 3] float32 or None.
          exchange: False tests without the exchange: each modality alone in all layers.

        Returns:
          {"logits": [b, y], "logits_of": {modality: [b, y]} with the token classifier,
          "tokens": [b, n, d] after the last norm, [spectrogram | rgb]}.
        """
        inputs = {"spectrogram": spectrogram, "rgb": rgb}
        tokens = {name: self._embed(name, x) for name, x in inputs.items() if x is not None}
        batch = next(iter(tokens.values())).shape[0]
        bottleneck = None
        if self.fusion == "bottleneck" and len(tokens) > 1:
            count = self.num_bottleneck + (self.classifier == "token")
            shape = (1, count, self.dim)
            bottleneck = self.param("bottleneck", nn.initializers.normal(0.02), shape)
            bottleneck = jnp.tile(bottleneck, (batch, 1, 1))
        tokens = Transformer(
            self.depth,
            self.num_heads,
            self.hidden,
            self.fusion,
            self.fusion_layer,
            self.share_encoder,
            name="Transformer",
        )(tokens, bottleneck, exchange)
        head = nn.Dense(self.num_classes, name="output_projection")
        joint = jnp.concatenate([tokens[name] for name in order(tokens)], 1)
        if self.classifier == "gap":
            return {"logits": head(joint.mean(1)), "tokens": joint}
        logits_of = {name: head(x[:, 0]) for name, x in tokens.items()}
        logits = sum(logits_of.values()) / len(logits_of)
        return {"logits": logits, "logits_of": logits_of, "tokens": joint}

    def _embed(self, name, x):
        sizes = (self.patch_px, self.patch_px)
        shape = x.shape
        if name == "rgb" and self.tubelet_frames is None:
            x = x.reshape(-1, *shape[2:])  # frames are pictures of their own
        elif name == "rgb":
            sizes = (self.tubelet_frames, *sizes)
        conv = nn.Conv(
            self.dim, sizes, strides=sizes, padding="VALID", name=f"embedding{SUFFIXES[name]}"
        )
        x = conv(x).reshape(shape[0], -1, self.dim)
        if self.classifier == "token":
            label = "cls" if name == "rgb" else "clsspectrogram"
            token = self.param(label, nn.initializers.zeros, (1, 1, self.dim))
            x = jnp.concatenate([jnp.tile(token, (shape[0], 1, 1)), x], 1)
        return x


def flat(params) -> dict[str, Any]:
    """{"/"-joined name: array} of a parameter tree."""
    return traverse_util.flatten_dict(params, sep="/")


def unflat(arrays) -> dict[str, Any]:
    """A parameter tree of {"/"-joined name: array}."""
    return traverse_util.unflatten_dict(arrays, sep="/")


def shapes_of(model: LinenMBT, *inputs) -> dict[str, tuple[int, ...]]:
    """{"/"-joined name: shape} of a model's parameters, without making them."""
    variables = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    return {name: leaf.shape for name, leaf in flat(variables["params"]).items()}
