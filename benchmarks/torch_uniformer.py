"""A compact UniFormer (video) in PyTorch, to measure and test ours against.

Written from the facts of the architecture (Li et al., arXiv:2201.04676); its state dict has the
names and shapes of the published weights. Drop path, which has no parameters, is left at 0. Not
part of the package: it needs PyTorch, which only benchmarks and the `live_torch` tests use.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

S = dict(depth=(3, 4, 8, 3), dim=(64, 128, 320, 512))
B = dict(depth=(5, 8, 20, 7), dim=(64, 128, 320, 512))


def _depthwise(dim: int, size: int) -> nn.Conv3d:
    return nn.Conv3d(dim, dim, size, padding=size // 2, groups=dim)


class PatchEmbed(nn.Module):
    """Strided convolution, then layer normalisation over channels (eps 1e-5)."""

    def __init__(self, channels: int, dim: int, time: tuple[int, int], space: int):
        super().__init__()
        kernel, stride = time
        self.proj = nn.Conv3d(
            channels, dim, (kernel, space, space), (stride, space, space), (kernel // 2, 0, 0)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.proj(x).movedim(1, -1)).movedim(-1, 1)


class Mlp(nn.Module):
    """Two layers around an exact GELU; `layer` makes them, from the widths before and after."""

    def __init__(self, dim: int, hidden: int, layer):
        super().__init__()
        self.fc1, self.fc2 = layer(dim, hidden), layer(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Attention(nn.Module):
    """Multi-head self-attention over [b, n, d]."""

    def __init__(self, dim: int, heads: int, qkv_bias: bool):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(query, key, value)
        return self.proj(out.transpose(1, 2).flatten(2))


def _pointwise(before: int, after: int) -> nn.Conv3d:
    return nn.Conv3d(before, after, 1)


class CBlock(nn.Module):
    """Local block: convolutions and BatchNorm."""

    def __init__(self, dim: int, mlp_ratio: float):
        super().__init__()
        self.pos_embed = _depthwise(dim, 3)
        self.norm1 = nn.BatchNorm3d(dim)
        self.conv1, self.conv2 = _pointwise(dim, dim), _pointwise(dim, dim)
        self.attn = _depthwise(dim, 5)
        self.norm2 = nn.BatchNorm3d(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), _pointwise)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.pos_embed(x)
        x = x + self.conv2(self.attn(self.conv1(self.norm1(x))))
        return x + self.mlp(self.norm2(x))


class SABlock(nn.Module):
    """Global block: attention over all positions, or first over time and then over space."""

    def __init__(self, dim: int, head_dim: int, mlp_ratio: float, qkv_bias: bool, split: bool):
        super().__init__()
        heads = dim // head_dim
        self.pos_embed = _depthwise(dim, 3)
        self.split = split
        if split:
            self.t_norm = nn.LayerNorm(dim, eps=1e-6)
            self.t_attn = Attention(dim, heads, qkv_bias)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads, qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), nn.Linear)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x + self.pos_embed(x)).movedim(1, -1)
        shape = x.shape
        b, t, h, w, d = shape
        if self.split:
            rows = x.reshape(b, t, h * w, d).transpose(1, 2).reshape(b * h * w, t, d)
            rows = rows + self.t_attn(self.t_norm(rows))
            frames = rows.reshape(b, h * w, t, d).transpose(1, 2).reshape(b * t, h * w, d)
            # The residual is from before the attention over time.
            x = x.reshape(b * t, h * w, d) + self.attn(self.norm1(frames))
            x = x.reshape(b, t * h * w, d)
        else:
            x = x.reshape(b, t * h * w, d)
            x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return x.reshape(shape).movedim(-1, 1)


class UniFormer(nn.Module):
    """UniFormer over [b, 3, t, h, w] normalised video; returns logits [b, num_classes].

    Args:
      depth: blocks in each of the four stages.
      dim: width of each stage.
      head_dim: width of an attention head in stages 3 and 4.
      mlp_ratio: hidden width of an MLP over its width.
      qkv_bias: bias for queries, keys and values.
      split: attend over time and over space separately.
      std: patch embeddings of stages 2 to 4 look at three frames each instead of one.
      num_classes: classes of the head.
    """

    def __init__(
        self,
        *,
        depth=S["depth"],
        dim=S["dim"],
        head_dim: int = 64,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        split: bool = False,
        std: bool = False,
        num_classes: int = 400,
    ):
        super().__init__()
        channels = (3, *dim[:3])
        for stage in range(4):
            time, space = ((3, 2), 4) if stage == 0 else ((3 if std else 1, 1), 2)
            embed = PatchEmbed(channels[stage], dim[stage], time, space)
            make = (
                (lambda width: CBlock(width, mlp_ratio))
                if stage < 2
                else (lambda width: SABlock(width, head_dim, mlp_ratio, qkv_bias, split))
            )
            blocks = nn.ModuleList([make(dim[stage]) for _ in range(depth[stage])])
            setattr(self, f"patch_embed{stage + 1}", embed)
            setattr(self, f"blocks{stage + 1}", blocks)
        self.norm = nn.BatchNorm3d(dim[3])
        self.head = nn.Linear(dim[3], num_classes)

    def features(self, video_bcthw: torch.Tensor) -> torch.Tensor:
        """What the head takes the mean of: [b, d, t, h, w]."""
        x = video_bcthw
        for stage in range(1, 5):
            x = getattr(self, f"patch_embed{stage}")(x)
            for block in getattr(self, f"blocks{stage}"):
                x = block(x)
        return self.norm(x)

    def forward(self, video_bcthw: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(video_bcthw).flatten(2).mean(2))
