"""How far below the output a parameter lies, read from its path."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

# "video_encoder/blocks3/7/mlp/fc1/kernel", "fusion/audio_blocks/2/...", "video/blocks/0/...".
_LAYER = re.compile(r"^(?P<part>[^/]+)/(?:\w+_)?blocks(?P<stage>\d*)/(?P<index>\d+)/")
# UniFormer's stages begin with a patch embedding each; only the first is the stem.
_STAGE = re.compile(r"/patch_embed(?P<stage>[2-9])/")
_FUSION = "fusion"
_ON_TOP = re.compile(r"_decoder$")
# What stands outside of the encoder to which it belongs.
_MASK_TOKEN, _TO_FUSION = re.compile(r"^(\w+)_mask_token$"), re.compile(r"^\w+_proj/")

_Place = tuple[int, int]


def layers_above(paths: Collection[str]) -> dict[str, int]:
    """The number of layers between each parameter of a model and its heads.

    - 0: heads, decoders, contrastive projections and scalars, and the last layer;
    - fusion: its last block has 0, its first one K - 1; so have the bottleneck tokens;
    - an encoder of n blocks, over all its stages: the last one has K, the first one K + n - 1. Its
      final norm, and its projection to the fusion's width, count as its last block; the patch
      embedding of a later stage as that stage's first block;
    - patch embedding, class tokens, positions, mask token: K + n.

    MBT's towers are encoders with K = 0, its bottleneck tokens and final norm belong to the heads.

    Args:
      paths: of all parameters of one model, flat.
    """
    parts: dict[str, list[_Place]] = {}
    for path in paths:
        found = _LAYER.match(path)
        if found and not _ON_TOP.search(found["part"]):
            places = parts.setdefault(found["part"], [])
            if _place(found) not in places:
                places.append(_place(found))
    parts = {name: sorted(places) for name, places in parts.items()}
    return {path: _above(path, parts) for path in paths}


def _above(path: str, parts: dict[str, list[_Place]]) -> int:
    fusion = len(parts.get(_FUSION, ()))
    mask = _MASK_TOKEN.match(path)
    part = f"{mask[1]}_encoder" if mask else path.split("/", 1)[0]
    if _TO_FUSION.match(path):
        return fusion
    if part not in parts:
        return 0
    layer, stage = _LAYER.match(path), _STAGE.search(path)
    below = fusion if part != _FUSION else 0
    number = len(parts[part])
    if layer:
        return below + number - 1 - parts[part].index(_place(layer))
    if part == _FUSION:
        return number - 1
    if stage:
        return below + number - 1 - _first(parts[part], int(stage["stage"]))
    return below if path.startswith(f"{part}/norm/") else below + number


def _first(places: Iterable[_Place], stage: int) -> int:
    return next((i for i, (one, _) in enumerate(places) if one >= stage), 0)


def _place(layer: re.Match[str]) -> _Place:
    return int(layer["stage"] or 0), int(layer["index"])
