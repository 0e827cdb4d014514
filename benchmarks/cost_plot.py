"""The picture of docs/cost.md: how the fusion's cost grows with the tokens."""

from __future__ import annotations

from pathlib import Path

from cost_counts import LENGTHS, K, L, attention_flops, fusion_flops, pairs_flops
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

N, M = 392, 400  # AVT-B: 8 x 7 x 7 video tokens, 8 x 50 audio tokens
TOKENS = (25, 50, 100, 200, 400, 800, 1600, 3200)
_LENGTHS = (*LENGTHS, 100, 200, 400)
_STYLE = {"bottleneck": ("#2563eb", "o"), "merged": ("#d97706", "s")}
_CURVE = {"bottleneck": "(N + L)² + (M + L)²", "merged": "(N + M)²"}


def growth_rows() -> list[tuple[int, int, dict[str, float], dict[str, float]]]:
    """(N, M, measured GFLOP of attention, measured / its curve), each {fusion: number}.

    First N and M grow together, then N alone beside AVT-B's audio.
    """
    rows = []
    for n, m in [(n, n) for n in TOKENS] + [(n, M) for n in TOKENS]:
        measured = {kind: attention_flops(kind, n, m) for kind in _STYLE}
        ratio = {kind: measured[kind] / pairs_flops(kind, n, m) for kind in _STYLE}
        rows.append((n, m, {kind: value / 1e9 for kind, value in measured.items()}, ratio))
    return rows


def draw(path: Path) -> None:
    """Draws and writes the picture."""
    figure = Figure(figsize=(11, 8.2), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    together, share, lengths, whole = figure.subplots(2, 2).flat
    _draw_together(together)
    _draw_share(share)
    _draw_lengths(lengths)
    _draw_whole(whole)
    for axes in (together, share, lengths, whole):
        axes.grid(True, which="major", color="#e5e7eb")
        axes.set_axisbelow(True)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def _points(axes, xs, ys, kind: str) -> None:
    colour, marker = _STYLE[kind]
    axes.plot(xs, ys, marker, color=colour, label=f"{kind}: counted by XLA", markersize=6)


def _curve(axes, xs, ys, kind: str, line: str = "-") -> None:
    label = f"4 K d · [{_CURVE[kind]}]"
    axes.plot(xs, ys, line, color=_STYLE[kind][0], label=label, linewidth=1.4)


def _draw_together(axes) -> None:
    for kind in _STYLE:
        _curve(axes, TOKENS, [pairs_flops(kind, n, n) / 1e9 for n in TOKENS], kind)
        _points(axes, TOKENS, [attention_flops(kind, n, n) / 1e9 for n in TOKENS], kind)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="N = M, tokens of each modality",
        ylabel="GFLOP",
        title=f"Attention of the fusion, K = {K}, L = {L}",
    )
    axes.legend(frameon=False)


def _draw_share(axes) -> None:
    fine = [round(TOKENS[0] * 1.1**i) for i in range(52)]
    curve = [pairs_flops("bottleneck", n, M) / pairs_flops("merged", n, M) for n in fine]
    axes.plot(
        fine, curve, color="#2563eb", linewidth=1.4, label=f"[{_CURVE['bottleneck']}] / (N + M)²"
    )
    counted = [
        attention_flops("bottleneck", n, M) / attention_flops("merged", n, M) for n in TOKENS
    ]
    axes.plot(TOKENS, counted, "o", color="#2563eb", label="counted by XLA")
    axes.axhline(1, color="#d97706", linewidth=1.4, label="merged attention")
    axes.set(
        xscale="log",
        ylim=(0, 1.1),
        xlabel=f"N, with M = {M}",
        ylabel="share of merged attention",
        title="Bottleneck's attention against merged attention",
    )
    axes.legend(frameon=False, loc="lower right")


def _draw_lengths(axes) -> None:
    fine = range(1, 420)
    _curve(
        axes, fine, [pairs_flops("bottleneck", N, M, length=x) / 1e9 for x in fine], "bottleneck"
    )
    counted = [attention_flops("bottleneck", N, M, length=x) / 1e9 for x in _LENGTHS]
    _points(axes, _LENGTHS, counted, "bottleneck")
    axes.axhline(
        pairs_flops("merged", N, M) / 1e9,
        color="#d97706",
        linewidth=1.4,
        label=f"4 K d · {_CURVE['merged']}",
    )
    axes.set(
        xscale="log",
        ylim=(0, None),
        xlabel="L, bottleneck tokens",
        ylabel="GFLOP",
        title=f"Attention of the fusion in AVT-B: N = {N}, M = {M}, K = {K}",
    )
    axes.legend(frameon=False, loc="upper left")


def _draw_whole(axes) -> None:
    for kind in _STYLE:
        _points(axes, TOKENS, [fusion_flops(kind, n, n) / 1e9 for n in TOKENS], kind)
    linear = [fusion_flops("merged", n, n, without_attention=True) / 1e9 for n in TOKENS]
    axes.plot(
        TOKENS,
        linear,
        "--",
        color="#6b7280",
        linewidth=1.4,
        label="linear part: projections, MLPs, norms",
    )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="N = M, tokens of each modality",
        ylabel="GFLOP",
        title="The whole fusion",
    )
    axes.legend(frameon=False)
