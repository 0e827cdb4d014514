"""Parameters and measured operations of a model, part by part."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from avt_jax import tree
from avt_jax.models.inputs import InputSpec
from avt_jax.profiling import xla
from avt_jax.profiling.flops import AUDIO, FUSION, HEADS, PARTS, VIDEO

# The first that is found in a parameter's path decides.
_AVT = (
    (r"^video_(encoder|proj)/", VIDEO),
    (r"^audio_(encoder|proj)/", AUDIO),
    (r"^fusion/", FUSION),
    (r".*", HEADS),
)
_MBT = ((r"^video/", VIDEO), (r"^audio/", AUDIO), (r"^bottleneck$", FUSION), (r".*", HEADS))
_LAYER = re.compile(r"^(?:video|audio)/blocks/(\d+)/")


def part_of(block: Mapping[str, Any], path: str) -> str:
    """The part of the model that a parameter belongs to.

    Blocks that MBT's modalities share count as the video encoder's, below the fusion layer.

    Args:
      block: the config block `model`.
      path: the parameter's.

    Raises:
      ValueError: an unknown model.
    """
    if block["name"] == "avt":
        return tree.first_match(_AVT, path)
    if block["name"] != "mbt":
        raise ValueError(f"the parts of the model {block['name']!r} are not known here")
    layer = _LAYER.match(path)
    if layer and int(layer[1]) >= block["fusion_layer"]:
        return FUSION
    return tree.first_match(_MBT, path)


def parameters(block: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, int]:
    """{part: number of scalars} of flat parameters; the contrastive projections are heads."""
    found = dict.fromkeys(PARTS, 0)
    for path, leaf in params.items():
        found[part_of(block, path)] += int(leaf.size)
    return {part: number for part, number in found.items() if number}


def inputs(input: InputSpec, batch_size: int = 1) -> tuple[Any, Any]:
    """Shapes of what the model reads: (video [b, t, h, w, 3], audio [b, s, f]), float32."""
    side = input.frame_size_px
    video = (batch_size, input.num_frames, side, side, 3)
    audio = (batch_size, input.fbank_frames, input.mel_bins)
    return jax.ShapeDtypeStruct(video, jnp.float32), jax.ShapeDtypeStruct(audio, jnp.float32)


class ForwardPass:
    """A model's forward pass in evaluation and its parts, as functions of shapes.

    Args:
      skeleton: the model's structure.
      modalities: "av", "audio" or "video".
      input: the shape of what it reads.
      batch_size: clips.
    """

    def __init__(
        self, skeleton: tree.Skeleton, modalities: str, input: InputSpec, batch_size: int = 1
    ):
        self._variables = (skeleton.params, skeleton.stats)
        self._skeleton = skeleton
        video, audio = inputs(input, batch_size)
        self._video = video if modalities != "audio" else None
        self._audio = audio if modalities != "video" else None

    def _logits(self, params, stats, video, audio):
        model = self._skeleton.merge(params, stats)
        return model.fuse(*model.encode(video, audio))["logits"]

    def _call(self, what, *args):
        """(function of the variables and arguments, all arguments) of a method of the model."""

        def function(params, stats, *args):
            return what(self._skeleton.merge(params, stats), *args)

        return function, *self._variables, *args

    def flops(self) -> dict[str, int]:
        """{part: FLOPs as XLA counts them}, without the encoder of a missing modality."""
        found = {}
        if self._video is not None:
            encode = self._call(lambda model, x: model.encode(x, None)[0], self._video)
            found[VIDEO] = xla.flops(*encode)
        if self._audio is not None:
            encode = self._call(lambda model, x: model.encode(None, x)[1], self._audio)
            found[AUDIO] = xla.flops(*encode)
        tokens = jax.eval_shape(
            *self._call(lambda model, *x: model.encode(*x), self._video, self._audio)
        )
        found[FUSION] = xla.flops(*self._call(lambda model, *x: model.fusion(*x), *tokens))
        both = xla.flops(*self._call(lambda model, *x: model.fuse(*x)["logits"], *tokens))
        return found | {HEADS: both - found[FUSION]}

    def temporary_bytes(self) -> int | None:
        """Peak memory of activations, see `xla.temporary_bytes`; compiles."""
        return xla.temporary_bytes(self._logits, *self._variables, self._video, self._audio)
