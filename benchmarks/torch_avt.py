"""Compact AVT and MBT in PyTorch, to measure ours against on a GPU.

Written from the facts of the architectures (arXiv:2401.04154, arXiv:2107.00135), with PyTorch's own
scaled-dot-product attention. They do the same products on the same tokens; what costs next to
nothing is left out: drop path (0), MixUp, the losses beside classification and contrastive. Not
part of the package.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F
from torch_uniformer import Attention, Mlp, UniFormer


class Block(nn.Module):
    """Transformer block over [b, n, d], normalised before."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads, qkv_bias=True)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), nn.Linear)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Patches(nn.Module):
    """Patches of an image or of every frame, with learned positions and some class tokens.

    Args:
      size: (frames, height, width) of the input [b, channels, t, h, w].
      patch: (height, width) of a patch.
      stride: between patches.
      channels: of the input.
      dim: width of a token.
      class_tokens: how many are put in front.
    """

    def __init__(
        self,
        size: tuple[int, int, int],
        patch: int,
        stride: int,
        channels: int,
        dim: int,
        class_tokens: int,
    ):
        super().__init__()
        self.proj = nn.Conv3d(channels, dim, (1, patch, patch), (1, stride, stride))
        rows, columns = ((n - patch) // stride + 1 for n in size[1:])
        tokens = size[0] * rows * columns + class_tokens
        self.positions = nn.Parameter(0.02 * torch.randn(1, tokens, dim))
        self.first = nn.Parameter(torch.zeros(1, class_tokens, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1).to(x.dtype), x], 1)
        return x + self.positions


class Bottleneck(nn.Module):
    """Blocks of two modalities that exchange through a few tokens, averaged after each."""

    def __init__(self, depth: int, dim: int, heads: int, mlp_ratio: float, length: int):
        super().__init__()
        self.tokens = nn.Parameter(0.02 * torch.randn(1, length, dim))
        self.towers = nn.ModuleList(
            nn.ModuleList(Block(dim, heads, mlp_ratio) for _ in range(depth)) for _ in range(2)
        )

    def forward(self, both: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        shared = self.tokens.expand(len(both[0]), -1, -1).to(both[0].dtype)
        for layer in zip(*self.towers, strict=True):
            after, written = [], []
            for block, own in zip(layer, both, strict=True):
                joint = block(torch.cat([own, shared], 1))
                after.append(joint[:, : own.shape[1]])
                written.append(joint[:, own.shape[1] :])
            both, shared = after, (written[0] + written[1]) / 2
        return list(both)


class AVT(nn.Module):
    """UniFormer and AST, bottleneck fusion, one linear head; returns (logits, video, audio).

    Args:
      num_classes: of the head.
      fbank: (frames, mel bins) of the spectrogram.
      uniformer: sizes of the video encoder.
      ast_depth: blocks of the audio encoder.
      ast_stride: between its patches.
      dim: width of the audio encoder and of the fusion.
      heads: attention heads of both.
      mlp_ratio: hidden width of an MLP over its width.
      num_blocks: blocks of the fusion.
      num_bottleneck: bottleneck tokens.
      projection: width of the contrastive embeddings.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        fbank: tuple[int, int],
        uniformer: dict,
        ast_depth: int = 12,
        ast_stride: int = 16,
        dim: int = 768,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        num_blocks: int = 4,
        num_bottleneck: int = 4,
        projection: int = 256,
    ):
        super().__init__()
        self.video = UniFormer(**uniformer, num_classes=1)
        del self.video.head
        self.video_proj = nn.Linear(uniformer["dim"][-1], dim)
        self.patches = Patches((1, fbank[1], fbank[0]), 16, ast_stride, 1, dim, class_tokens=2)
        self.audio = nn.Sequential(*(Block(dim, heads, mlp_ratio) for _ in range(ast_depth)))
        self.audio_norm = nn.LayerNorm(dim, eps=1e-6)
        self.fusion = Bottleneck(num_blocks, dim, heads, mlp_ratio, num_bottleneck)
        self.norms = nn.ModuleList(nn.LayerNorm(dim, eps=1e-6) for _ in range(2))
        self.head = nn.Linear(2 * dim, num_classes)
        self.embed = nn.ModuleList(nn.Linear(dim, projection, bias=False) for _ in range(2))

    def forward(
        self, video_bcthw: torch.Tensor, audio_bsf: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        video = self.video_proj(self.video.features(video_bcthw).flatten(2).transpose(1, 2))
        audio = self.patches(audio_bsf.transpose(1, 2)[:, None, None])
        audio = self.audio_norm(self.audio(audio))[:, 2:]
        both = (video, audio)
        z = [
            F.normalize(layer(x.mean(1)), dim=-1) for layer, x in zip(self.embed, both, strict=True)
        ]
        pooled = [norm(x).mean(1) for norm, x in zip(self.norms, self.fusion(both), strict=True)]
        return self.head(torch.cat(pooled, -1)), *z


class MBT(nn.Module):
    """ViT towers of both modalities that meet in their last blocks; returns (logits,).

    Args:
      num_classes: of the head.
      video: (frames, height, width) of the video.
      fbank: (frames, mel bins) of the spectrogram.
      depth: blocks of each tower.
      fusion_layer: blocks before they meet.
      dim: width.
      heads: attention heads.
      mlp_ratio: hidden width of an MLP over its width.
      num_bottleneck: bottleneck tokens beside one more for the class tokens.
      patch: height and width of a patch.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        video: tuple[int, int, int],
        fbank: tuple[int, int],
        depth: int = 12,
        fusion_layer: int = 8,
        dim: int = 768,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        num_bottleneck: int = 4,
        patch: int = 16,
    ):
        super().__init__()
        sizes = (video, (1, *fbank))
        self.embed = nn.ModuleList(
            Patches(size, patch, patch, 3, dim, class_tokens=1) for size in sizes
        )
        self.towers = nn.ModuleList(
            nn.Sequential(*(Block(dim, heads, mlp_ratio) for _ in range(fusion_layer)))
            for _ in range(2)
        )
        self.fusion = Bottleneck(depth - fusion_layer, dim, heads, mlp_ratio, num_bottleneck + 1)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, video_bcthw: torch.Tensor, audio_bsf: torch.Tensor) -> tuple[torch.Tensor]:
        inputs = (video_bcthw, audio_bsf[:, None, None].expand(-1, 3, -1, -1, -1))
        both = [
            tower(embed(x)) for tower, embed, x in zip(self.towers, self.embed, inputs, strict=True)
        ]
        fused = self.fusion(both)
        return (sum(self.head(self.norm(x[:, 0])) for x in fused) / 2,)
