"""From the config block `model` to a model.

`MODELS` and `RENAMED` are here; `VIDEO_ENCODERS`, `AUDIO_ENCODERS` and `FUSIONS` stand beside their
modules. Whatever a registry names can be built, profiled and compared without further edits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from flax import nnx

from avt_jax.errors import UserError, nearest
from avt_jax.models.avt import AVT, AVTConfig
from avt_jax.models.encoders import Encoder, ast
from avt_jax.models.encoders.choice import CHOICES, EncoderChoice, remat_by_name
from avt_jax.models.encoders.tokens import check as check_tokens
from avt_jax.models.encoders.vit import check_patches
from avt_jax.models.fusions import FUSIONS
from avt_jax.models.inputs import InputSpec
from avt_jax.models.kernels.choice import AUTO, Kernels
from avt_jax.models.kernels.choice import check as check_kernels
from avt_jax.models.layers.lora import LoRAConfig, add_adapters
from avt_jax.models.mbt import MBT, MBTConfig
from avt_jax.settings import Block, fields_of, setting

Placed = list[tuple[str, Block]]


class ModelBlocks(Protocol):
    """The checked config blocks of one kind of model."""

    @property
    def config(self) -> Any:
        """The model's own block; it has `abilities`, and `kernels` where it has forms."""

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Self:
        """Checks the block `model` less its name; raises UserError."""

    def to_dict(self) -> dict[str, Any]:
        """The block with every field, less its name."""

    def placed(self) -> Placed:
        """The blocks, each with its place in the config."""

    def build(self, num_classes: Mapping[str, int], spec: InputSpec, rngs: nnx.Rngs) -> nnx.Module:
        """The model; raises UserError for inputs that are too small."""


def _divided(
    fields: Mapping[str, Any], blocks: Sequence[type[Block]], others: Sequence[str] = ()
) -> list[Any]:
    """The blocks that share one place in the config, each with its own of the fields.

    Args:
      fields: of all of them.
      blocks: their classes.
      others: fields that none of them has and that are right.

    Raises:
      UserError: an unknown field (the nearest one is named), or a bad value.
    """
    owners = {field.name: one for one in blocks for field in fields_of(one)}
    names = [*owners, *others]
    for name in fields:
        if name not in names:
            raise UserError(
                f"config.model.{name} is not a field{nearest(name, names)}; "
                f"the fields are {', '.join(names)}."
            )
    return [
        one.of({key: value for key, value in fields.items() if owners.get(key) is one})
        for one in blocks
    ]


@dataclass(frozen=True)
class AVTBlocks:
    """AVT's block: its own fields, those of every fusion, and a block for each encoder.

    Attributes:
      config: AVT's own fields.
      lora: those of adapters.
      fusions: {name: the fields that only this fusion has}; they stand among AVT's own.
      encoders: {modality: (its name and variant, its own fields)}.
    """

    config: AVTConfig
    lora: LoRAConfig
    fusions: Mapping[str, Block]
    encoders: Mapping[str, tuple[EncoderChoice, Block]]

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Self:
        """See `ModelBlocks`."""
        own = [module.Config for module in FUSIONS.values()]
        encoders = [f"{modality}_encoder" for modality in CHOICES]
        config, lora, *fusions = _divided(fields, [AVTConfig, LoRAConfig, *own], encoders)
        return cls(
            config,
            lora,
            dict(zip(FUSIONS, fusions, strict=True)),
            {m: choice.read(fields.get(f"{m}_encoder")) for m, choice in CHOICES.items()},
        )

    def to_dict(self) -> dict[str, Any]:
        """See `ModelBlocks`."""
        found = self.config.to_dict()
        for block in (*self.fusions.values(), self.lora):
            found |= block.to_dict()
        for modality, (choice, config) in self.encoders.items():
            found[f"{modality}_encoder"] = choice.to_dict() | config.to_dict()
        return found

    def placed(self) -> Placed:
        """See `ModelBlocks`."""
        every = [self.config, *self.fusions.values(), self.lora]
        every += [block for pair in self.encoders.values() for block in pair]
        return [(block.where, block) for block in every]

    def build(self, num_classes: Mapping[str, int], spec: InputSpec, rngs: nnx.Rngs) -> AVT:
        """See `ModelBlocks`."""
        chosen = {name: self.encoders[name][0].name for name in self.config.names}
        check_tokens(chosen, self.config.decoders, spec)
        encoders: dict[str, Encoder] = {
            modality: choice.known[choice.name].build(
                config, spec, dtype=self.config.dtype, rngs=rngs
            )
            for modality, (choice, config) in self.encoders.items()
            if modality in self.config.names
        }
        return AVT(
            self.config,
            num_classes=num_classes,
            fusion=self.fusions[self.config.fusion],
            video_encoder=encoders.get("video"),
            audio_encoder=encoders.get("audio"),
            patch_values=_patch_values(encoders, spec),
            rngs=rngs,
        )


def _patch_values(encoders: Mapping[str, Encoder], spec: InputSpec) -> dict[str, int]:
    """Numbers in the patch of one token, by modality."""
    found = {"audio": ast.PATCH**2}
    if "video" in encoders and not spec.is_tokens:
        clip = (spec.num_frames, spec.frame_size_px, spec.frame_size_px)
        grid = encoders["video"].token_grid((1, *clip, 3))
        found["video"] = 3 * math.prod(n // g for n, g in zip(clip, grid, strict=True))
    return found


@dataclass(frozen=True)
class MBTBlocks:
    """MBT's block.

    Attributes:
      config: MBT's own fields.
      lora: those of adapters.
    """

    config: MBTConfig
    lora: LoRAConfig

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Self:
        """See `ModelBlocks`."""
        config, lora = _divided(fields, [MBTConfig, LoRAConfig])
        return cls(config, lora)

    def to_dict(self) -> dict[str, Any]:
        """See `ModelBlocks`."""
        return self.config.to_dict() | self.lora.to_dict()

    def placed(self) -> Placed:
        """See `ModelBlocks`."""
        return [(block.where, block) for block in (self.config, self.lora)]

    def build(self, num_classes: Mapping[str, int], spec: InputSpec, rngs: nnx.Rngs) -> MBT:
        """See `ModelBlocks`."""
        config = self.config
        if config.modalities != "audio":
            check_patches("MBT", config, spec)
        if config.modalities != "video" and min(spec.fbank_frames, spec.mel_bins) < config.patch_px:
            raise UserError(
                f"config.data.clip_sec gives {spec.fbank_frames} spectrogram frames of "
                f"{spec.mel_bins} mel bins; MBT needs {config.patch_px} or more of both for one "
                "patch."
            )
        check_tokens({config.modalities: "mbt"}, (), spec)
        return MBT(config, num_classes=num_classes, rngs=rngs, **spec.of_clip())


# A new model is one line here.
MODELS: dict[str, type[ModelBlocks]] = {"avt": AVTBlocks, "mbt": MBTBlocks}

# {model: {field: {value of an earlier version: the same thing's value now}}}, for saved configs.
RENAMED: dict[str, dict[str, dict[str, str]]] = {"mbt": {"fusion": {"concat": "merged"}}}


@dataclass(frozen=True)
class ModelChoice(Block, where="config.model"):
    """The model's name."""

    name: str = setting("avt", "the model", choices=lambda: MODELS)


def _read(block: Mapping[str, Any]) -> tuple[ModelChoice, ModelBlocks]:
    fields = remat_by_name(block)
    choice = ModelChoice(**{key: fields.pop(key) for key in ("name",) if key in fields})
    for field, values in RENAMED.get(choice.name, {}).items():
        if field in fields and isinstance(fields[field], str):
            fields[field] = values.get(fields[field], fields[field])
    return choice, MODELS[choice.name].read(fields)


def resolve(block: Mapping[str, Any]) -> dict[str, Any]:
    """The block `model` with every field.

    Args:
      block: what is known of it; what is left out has its default, an encoder's field that of the
        encoder's variant. Values that an earlier version had another name for are translated.

    Returns:
      All fields of the model, of every fusion and of both encoders; resolving it again changes
      nothing.

    Raises:
      UserError: an unknown name or field (the nearest valid one is named), or a bad value.
    """
    choice, blocks = _read(block)
    return choice.to_dict() | blocks.to_dict()


def recipe_block(name: str = "avt") -> dict[str, Any]:
    """The block `model` that a recipe starts from.

    It has every field, but of the encoders only name and variant, so that another variant brings
    its own sizes.
    """
    block = resolve({"name": name})
    for key, value in block.items():
        if isinstance(value, dict):
            block[key] = {"name": value["name"], "variant": value["variant"]}
    return block


def blocks(block: Mapping[str, Any]) -> Placed:
    """What `resolve` fills in, as config blocks that know each field's meaning and range.

    Returns:
      [(place, such as "config.model.video_encoder", block)]; several may have one place.

    Raises:
      UserError: as `resolve`.
    """
    choice, found = _read(block)
    return [(choice.where, choice), *found.placed()]


def switch_encoder(
    block: Mapping[str, Any],
    modality: str,
    name: str | None = None,
    variant: str | None = None,
) -> dict[str, Any]:
    """An encoder's block once another encoder or another variant is chosen.

    Args:
      block: the encoder's block, with all of its fields or some.
      modality: "video" or "audio".
      name: of the new encoder; None keeps the encoder.
      variant: of the new encoder; None keeps the variant's name, or takes the encoder's default
        where it has no such variant.

    Returns:
      Name, variant, and those fields of `block` that differ from its variant's and mean something
      to the new encoder; for `resolve`.

    Raises:
      UserError: `block` is not valid, or there is no such encoder or variant.
    """
    choice_class = CHOICES[modality]
    old, config = choice_class.read(block)
    before = old.known[old.name].VARIANTS[old.variant].to_dict()
    given = {key: value for key, value in config.to_dict().items() if value != before[key]}
    chosen = {"name": old.name if name is None else name}
    module = old.known.get(chosen["name"])
    if variant is not None:
        chosen["variant"] = variant
    elif module is not None and old.variant in module.VARIANTS:
        chosen["variant"] = old.variant
    new, config = choice_class.read(chosen)
    kept: dict[str, Any] = {}
    for key, value in given.items():
        try:
            type(config).of({**kept, key: value}, base=config)
        except UserError:
            continue
        kept[key] = value
    return new.to_dict() | kept


def abilities(block: Mapping[str, Any]) -> frozenset[str]:
    """What a model of this config block can do besides classifying.

    Returns:
      Such as "project" (contrastive embeddings), "match", "reconstruct audio"; what a loss needs is
      among them, or the loss cannot be trained.

    Raises:
      UserError: as `resolve`.
    """
    return _read(block)[1].config.abilities


def build_model(
    block: Mapping[str, Any],
    *,
    num_classes: Mapping[str, int],
    input: InputSpec,
    rngs: nnx.Rngs,
    kernels: Kernels | None = None,
) -> nnx.Module:
    """Builds the model that a config describes.

    Args:
      block: the config block `model`, with all of its fields or some.
      num_classes: {label set: number of classes}.
      input: the shape of what it reads.
      rngs: stream "params" for the initial weights.
      kernels: the block's `kernels` with what was measured; None = nothing was.

    Returns:
      The model.

    Raises:
      UserError: as `resolve`, inputs that are too small, `kernels` that need a package, or adapters
        that the model has no place for.
    """
    blocks = _read(block)[1]
    lora = getattr(blocks, "lora", LoRAConfig())  # not every model has adapters
    if lora.lora_rank and input.is_tokens:
        raise UserError(
            f"config.model.lora_rank is {lora.lora_rank}; cached tokens are read without encoders, "
            "so there is nothing to adapt, give 0."
        )
    name = check_kernels(getattr(blocks.config, "kernels", AUTO))  # not every model has forms
    model = blocks.build(num_classes, input, rngs)
    add_adapters(model, lora, rngs=rngs)
    # From here and not through every constructor: what computes a model is not part of it.
    model.set_attributes(kernels=kernels or Kernels(name), raise_if_not_found=False)
    return model
