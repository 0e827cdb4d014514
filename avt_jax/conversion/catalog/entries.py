"""The catalog of published weights. A further one is one more entry below.

Addresses, scores and licences are those that the publishers state on `page` and in their
repository. Sizes are not: they are 4 bytes for each parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from avt_jax.errors import UserError, nearest


@dataclass(frozen=True)
class Entry:
    """Weights that somebody published.

    Attributes:
      kind: "uniformer", "ast", "vit" or "mbt".
      what: the model, what it was trained on, and the published score.
      url: of the file; "" = it has to be downloaded by hand, from `page`.
      page: where its publisher describes it.
      licence: of the publisher's repository.
      about_mb: how large it is, about.
      sha256: of the file in hexadecimal, or as many of its first digits as are published; "" =
        the publisher states none (Hugging Face and Google's storage state one with the download).
      changes: {field of the model's config: value}, what the weights do not tell.
    """

    kind: str
    what: str
    url: str
    page: str
    licence: str
    about_mb: int
    sha256: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def checksum(self) -> str:
        """What a download is compared with, in words."""
        if self.sha256:
            whole = len(self.sha256) == 64
            return "SHA-256" if whole else f"{len(self.sha256)} digits of SHA-256"
        if self.url.startswith("https://huggingface.co/"):
            return "SHA-256 on arrival"
        if self.url.startswith("https://storage.googleapis.com/"):
            return "MD5 on arrival"
        return "none"

    @property
    def needs_torch(self) -> bool:
        """Whether only PyTorch can read the file."""
        return self.url.endswith((".pth", ".pth?dl=1"))


_UNIFORMER = "https://github.com/Sense-X/UniFormer/tree/main/video_classification"
_SENSE_X = "https://huggingface.co/Sense-X/uniformer_video/resolve/main/"
_MMACTION = "https://github.com/open-mmlab/mmaction2/tree/main/configs/recognition/uniformer"
_OPENMMLAB = "https://download.openmmlab.com/mmaction/v1.0/recognition/uniformerv1/"
_AST = "https://github.com/YuanGongND/ast"
_VIT = "https://github.com/google-research/vision_transformer"
_AUGREG = "https://storage.googleapis.com/vit_models/augreg/"
_MBT = "https://github.com/google-research/scenic/tree/main/scenic/projects/mbt"
_SCENIC = "https://storage.googleapis.com/scenic-bucket/mbt/"
_S_MB, _B_MB, _AST_MB, _VIT_S_MB, _VIT_B_MB, _MBT_MB = 86, 199, 346, 88, 346, 693


def _mmaction(size: str, frames: int, mb: int, digits: str, score: str) -> Entry:
    file = f"uniformer-{size}_imagenet1k-pre_{frames}x4x1_kinetics400-rgb_20221219-{digits}.pth"
    what = f"UniFormer-{size[0].upper()}, Kinetics-400, {frames}x4: top-1 {score}"
    # The authors' weights (MIT), as mmaction2 names them; it puts the digits into its file names.
    return Entry("uniformer", what, _OPENMMLAB + file, _MMACTION, "MIT, Apache-2.0", mb, digits)


def _sense_x(file: str, what: str, mb: int) -> Entry:
    return Entry("uniformer", what, _SENSE_X + file, _UNIFORMER, "MIT", mb)


def _ast(stride: int, place: str, score: str) -> Entry:
    what = f"AST-Base, AudioSet, stride {stride}: mAP {score}"
    return Entry("ast", what, place, _AST, "BSD-3-Clause", _AST_MB, changes={"stride": stride})


def _dropbox(folder: str, file: str) -> str:
    return f"https://www.dropbox.com/s/{folder}/{file}?dl=1"


def _vit(file: str, what: str, mb: int) -> Entry:
    return Entry("vit", what, f"{_AUGREG}{file}.npz", _VIT, "Apache-2.0", mb)


def _mbt(file: str, what: str) -> Entry:
    return Entry("mbt", what, _SCENIC + file, _MBT, "Apache-2.0", _MBT_MB)


_B_21K = "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0"

ENTRIES: dict[str, Entry] = {
    "uniformer-s-k400": _mmaction("small", 16, _S_MB, "c630a037", "80.9"),
    "uniformer-s-k400-16x8": _sense_x(
        "uniformer_small_k400_16x8.pth",
        "UniFormer-S, Kinetics-400, 16x8: top-1 80.8",
        _S_MB,
    ),
    "uniformer-s-k600": _sense_x(
        "uniformer_small_k600_16x8.pth",
        "UniFormer-S, Kinetics-600, 16x8: top-1 82.7",
        _S_MB,
    ),
    "uniformer-s-ssv2": Entry(
        "uniformer",
        "UniFormer-S, SSv2, 16 frames: top-1 67.7",
        "",
        "https://drive.google.com/file/d/1-Wq22024HB7tT8kPX6eSMn2GUNMI-_gY/view",
        "MIT",
        _S_MB,
    ),
    "uniformer-b-k400": _mmaction("base", 16, _B_MB, "157c2e66", "82.0"),
    "uniformer-b-k400-32x4": _mmaction("base", 32, _B_MB, "b776322c", "83.1"),
    "uniformer-b-k600": _sense_x(
        "uniformer_base_k600_32x4.pth",
        "UniFormer-B, Kinetics-600, 32x4: top-1 84.5",
        _B_MB,
    ),
    "uniformer-b-ssv2": _sense_x(
        "uniformer_base_sthv2_32_prek600.pth",
        "UniFormer-B, SSv2, 32 frames: top-1 71.2",
        _B_MB,
    ),
    "ast-audioset-10": _ast(
        10,
        "https://huggingface.co/MIT/ast-finetuned-audioset-10-10-0.4593/resolve/main/"
        "model.safetensors",
        "45.9",
    ),
    "ast-audioset-12": _ast(12, _dropbox("snfhx3tizr4nuc8", "audioset_12_12_0.4467.pth"), "44.7"),
    "ast-audioset-14": _ast(14, _dropbox("z18s6pemtnxm4k7", "audioset_14_14_0.4431.pth"), "44.3"),
    "ast-audioset-16": _ast(16, _dropbox("mdsa4t1xmcimia6", "audioset_16_16_0.4422.pth"), "44.2"),
    "vit-s16-augreg-in21k": _vit(
        "S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0",
        "ViT-S/16, ImageNet-21k",
        _VIT_S_MB,
    ),
    "vit-b16-augreg-in21k": _vit(_B_21K, "ViT-B/16, ImageNet-21k", _VIT_B_MB),
    "vit-b16-augreg-in1k": _vit(
        f"{_B_21K}--imagenet2012-steps_20k-lr_0.01-res_224",
        "ViT-B/16, ImageNet-21k and -1k",
        _VIT_B_MB,
    ),
    "mbt-as-mini": _mbt("mbtb32_as-mini_rgb-spec", "MBT-B, AudioSet mini: mAP 43.9"),
    "mbt-as-500k": _mbt("mbtb32_as-500k_rgb-spec", "MBT-B, AudioSet 500k: mAP 52.3"),
}


def entry_of(name: str) -> Entry:
    """The entry of a name.

    Raises:
      UserError: there is none; names the nearest.
    """
    if name not in ENTRIES:
        raise UserError(
            f"{name!r} is no name of the catalog{nearest(name, ENTRIES)}; 'avt weights list' "
            "prints them."
        )
    return ENTRIES[name]
