"""Which encoder a config names, and which of its variants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from avt_jax.errors import UserError, nearest
from avt_jax.models.encoders import AUDIO_ENCODERS, VIDEO_ENCODERS, EncoderModule
from avt_jax.settings import Block, setting


@dataclass(frozen=True)
class EncoderChoice(Block):
    """Which encoder, and which of its variants the other fields start from."""

    known: ClassVar[Mapping[str, EncoderModule]]

    name: str
    variant: str

    def check(self) -> None:
        """Refuses a variant that the encoder does not have."""
        variants = self.known[self.name].VARIANTS
        if self.variant not in variants:
            raise UserError(
                f"{self.where}.variant is {self.variant!r}{nearest(self.variant, variants)}; "
                f"{self.name} has {', '.join(variants)}."
            )

    @classmethod
    def read(cls, block: Mapping[str, Any] | None) -> tuple[Self, Block]:
        """The choice, and the encoder's own fields: the variant's but for what `block` gives."""
        fields = {} if block is None else remat_by_name(block)
        chosen = {key: fields.pop(key) for key in ("name", "variant") if key in fields}
        name = chosen.get("name", next(iter(cls.known)))
        if name in cls.known:
            chosen.setdefault("variant", _first_variant(cls.known[name]))
        choice = cls(**chosen)
        base = choice.known[choice.name].VARIANTS[choice.variant]
        return choice, type(base).of(fields, base=base)


def _first_variant(encoder: EncoderModule) -> str:
    return next(iter(encoder.VARIANTS))


def _variants(known: Mapping[str, EncoderModule]) -> str:
    listed = "; ".join(f"of {name}: {', '.join(one.VARIANTS)}" for name, one in known.items())
    return f"what the encoder's other fields start from; {listed}"


@dataclass(frozen=True)
class VideoEncoderChoice(EncoderChoice, where="config.model.video_encoder"):
    """The video encoder's name and variant."""

    known: ClassVar[Mapping[str, EncoderModule]] = VIDEO_ENCODERS

    name: str = setting("uniformer", "the video encoder", choices=lambda: VIDEO_ENCODERS)
    variant: str = setting("S", _variants(VIDEO_ENCODERS))


@dataclass(frozen=True)
class AudioEncoderChoice(EncoderChoice, where="config.model.audio_encoder"):
    """The audio encoder's name and variant."""

    known: ClassVar[Mapping[str, EncoderModule]] = AUDIO_ENCODERS

    name: str = setting("ast", "the audio encoder", choices=lambda: AUDIO_ENCODERS)
    variant: str = setting("base", _variants(AUDIO_ENCODERS))


CHOICES: dict[str, type[EncoderChoice]] = {
    "video": VideoEncoderChoice,
    "audio": AudioEncoderChoice,
}


def remat_by_name(fields: Mapping[str, Any]) -> dict[str, Any]:
    """With the field `remat` as it is now, where an earlier version had true or false."""
    named = {False: "none", True: "blocks"}
    found = dict(fields)
    if isinstance(found.get("remat"), bool):
        found["remat"] = named[found["remat"]]
    for key, value in found.items():
        if key.endswith("_encoder") and isinstance(value, Mapping):
            found[key] = remat_by_name(value)
    return found
