"""Writes docs/cost.md: what the models cost, from shapes alone.

    python benchmarks/cost_table.py

Parameters, FLOPs of the forward pass (products and convolutions, and as XLA counts them) and of a
training step, per part; the bottleneck's L and K; and a picture of how the fusion grows. Nothing
is run, so any machine gives the same counts; the memory column compiles for the machine's backend.
"""

from __future__ import annotations

import argparse
import bisect
import platform
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import cost_counts as counts
import cost_plot
import jax

from avt_jax.experiment.cost import Profile, profile_config
from avt_jax.models.scopes import PARTS

COMMAND = "python benchmarks/cost_table.py"
_START_SEC = time.monotonic()

PAGE = """# What the models cost

    {command}

writes this page and its picture in about five minutes on two cores; `avt profile --config ...`
prints the same for any config. Counts come from shapes and do not depend on the machine. Made with
{versions}.

- One clip, float32. A multiply-add is two FLOPs.
- **Analytic**: matrix products, attention's among them, and convolutions in the traced program
  (`avt_jax/profiling/flops.py`).
- **XLA**: what XLA counts in the lowered, not yet optimised program for an accelerator, with
  element-wise work such as norms and softmax's sums, and with loops counted as often as they run
  (`avt_jax/profiling/xla.py`).
- **Training step**: gradients and optimiser, XLA.
- **Memory**: peak of activations and scratch space in the forward pass, without parameters and
  input, as the compiler for the {backend} plans it. Another backend plans otherwise.

## Encoders

With a classification head of 400 (UniFormer) or 527 classes (AST); the training step is
cross-entropy and AdamW. The last column is the authors' own figure. It also counts norms (5
operations an element of a LayerNorm, 2 of a BatchNorm), and with them our counts give every
printed digit (`tests/profiling/test_flops.py`).

{encoders}

## Whole models

16 frames of 224 x 224 (AVT) or 8 (MBT: 16 x 16 patches, 1568 tokens), and the spectrogram of the
same 8 s, 800 x 128; 527 classes. AVT-B is UniFormer-B and AST-Base at stride 16 with K = L = 4, the
recipe `vggsound`; AVT-S has UniFormer-S. MBT-B is the recipe `mbt_vggsound`, with a bottleneck of 4
tokens from layer 8. "Merged attention" is one transformer of K blocks over the tokens of both
modalities. The training step is AdamW with the classification and contrastive losses for AVT, SGD
with the classification loss for MBT. "Whole objective" is the recipe as it is: with matching, which
fuses a second time, and masked audio, which encodes the sound and fuses once more. Trained
on it, AVT-B costs more a step than MBT-B does.

{systems}

**AVT-B needs {ratio:.2f} x fewer FLOPs than MBT-B** by XLA's count, {ratio_analytic:.2f} x by
products and {ratio_step:.2f} x in a training step. Element-wise work is {elementwise:.1%} of
XLA's count of AVT-B's video encoder and {elementwise_mbt:.1%} of MBT-B's.

By part: forward GFLOP by XLA (analytic), millions of parameters. The encoders reach to the first
layer in which the modalities meet; with one modality, "fusion" is the layers from 8 on.

{parts}

The authors' own implementation of MBT, in the same order and at the same sizes, has {original}
GFLOP by XLA's count; ours is within {deviation:.2%} of each.

## Bottleneck tokens and blocks

AVT-B with L bottleneck tokens in K blocks, GFLOP. "Forward + backward" is the fusion's, with the
gradients of its parameters and tokens.

{grid}

Each block costs {per_block:.1f} GFLOP, each further bottleneck token {per_token:.3f} in every
block. The paper leaves both open. By this count L up to 50 is nearly free, and K is not.

## How the fusion grows

![Cost of the fusion against the number of tokens](images/fusion_cost.png)

With N video tokens, M audio tokens and L bottleneck tokens, all of width d = 768, attention sees
(N + L)² + (M + L)² pairs of tokens a block with the bottleneck, and (N + M)² merged; a pair costs
4 d FLOPs. The points are XLA's count of the fusion module less its count of the same module with
every token's own value in the place of attention. What is left is exactly attention, its two
products and the softmax, and no projection. Nothing is fitted. Measured over its own curve is
{low:.3f} to {high:.3f} (the excess is the softmax); the bottleneck's over the **other** curve,
(N + M)², is anything from {low_other:.3f} to {high_other:.3f}.

{growth}

What this saves and what not: attention is cut by at most half, where N = M. Everything else in a
block is linear in the tokens and is not cut. At AVT-B's {n} and {m} tokens attention is
{attention:.1f} of the fusion's {fusion:.1f} GFLOP, and {attention_merged:.1f} of
{fusion_merged:.1f} merged, so the bottleneck saves {saved:.1%} of the fusion and
{saved_model:.1%} of the model, more for longer clips. With fewer than {even} tokens of each
modality it costs more than merging, because both modalities' blocks carry the bottleneck tokens;
and with L above {crossing}, AVT-B's attention would cost more than merged. Merged attention
has half the fusion's parameters: one set of blocks, not one for each modality. AVT-B's lead over
MBT-B comes from the video encoder and from fewer
tokens after it, not from the bottleneck, which both have.
"""


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def encoder_table(found: Mapping[str, counts.EncoderCost]) -> str:
    header = (
        "encoder",
        "parameters",
        "GFLOP analytic",
        "GFLOP XLA",
        "training step",
        "10^9 multiply-adds",
        "published",
    )
    return table(
        header,
        (
            (
                name,
                f"{cost.parameters:,}",
                f"{cost.analytic:.1f}",
                f"{cost.xla:.1f}",
                f"{cost.step:.1f}",
                f"{cost.analytic / 2:.2f}",
                cost.published_gmac or "-",
            )
            for name, cost in found.items()
        ),
    )


def gflop(found: Profile, kind: str = "xla_flops") -> float:
    """GFLOP of all parts."""
    return sum(getattr(found, kind).values()) / 1e9


def system_table(found: Mapping[str, Profile]) -> str:
    header = (
        "model",
        "parameters",
        "GFLOP analytic",
        "GFLOP XLA",
        "training step",
        "MBT-B / this",
        "memory, MB",
    )
    base = gflop(found["MBT-B"])
    return table(
        header,
        (
            (
                name,
                f"{sum(cost.parameters.values()):,}",
                f"{gflop(cost, 'analytic_flops'):.1f}",
                f"{gflop(cost):.1f}",
                f"{cost.step_flops / 1e9:.1f}",
                f"{base / gflop(cost):.2f}",
                f"{cost.forward_bytes / 1e6:.0f}",
            )
            for name, cost in found.items()
        ),
    )


def part_table(found: Mapping[str, Profile]) -> str:
    """Forward GFLOP, XLA and in brackets analytic, and millions of parameters, by part."""

    def cell(cost: Profile, part: str) -> str:
        if part not in cost.xla_flops:
            return "-"
        values = (cost.xla_flops[part] / 1e9, cost.analytic_flops[part] / 1e9)
        digits = 3 if part == "heads" else 1
        measured, products = (f"{value:.{digits}f}" for value in values)
        return f"{measured} ({products}), {cost.parameters.get(part, 0) / 1e6:.1f} M"

    header = ("XLA (analytic), parameters", *PARTS)
    return table(
        header, ((name, *(cell(cost, part) for part in PARTS)) for name, cost in found.items())
    )


def grid_table(avt: Profile, mbt_gflop: float) -> str:
    """L and K, from the whole AVT-B with its fusion exchanged."""
    header = (
        "K",
        "L",
        "parameters",
        "fusion analytic",
        "fusion XLA",
        "forward + backward",
        "model analytic",
        "model XLA",
        "MBT-B / this",
    )
    others = {
        kind: sum(value for part, value in getattr(avt, kind).items() if part != "fusion")
        for kind in ("parameters", "analytic_flops", "xla_flops")
    }
    n, m = cost_plot.N, cost_plot.M
    rows = []
    for k in counts.DEPTHS:
        for length in counts.LENGTHS:
            how = dict(k=k, length=length)
            own = counts.fusion_parameters("bottleneck", **how)
            products = counts.fusion_products("bottleneck", n, m, **how)
            measured = counts.fusion_flops("bottleneck", n, m, **how)
            trained = counts.fusion_flops("bottleneck", n, m, backward=True, **how)
            model = (others["xla_flops"] + measured) / 1e9
            rows.append(
                (
                    k,
                    length,
                    f"{others['parameters'] + own:,}",
                    f"{products / 1e9:.1f}",
                    f"{measured / 1e9:.1f}",
                    f"{trained / 1e9:.1f}",
                    f"{(others['analytic_flops'] + products) / 1e9:.1f}",
                    f"{model:.1f}",
                    f"{mbt_gflop / model:.2f}",
                )
            )
    return table(header, rows)


def growth_table(rows) -> str:
    header = (
        "N",
        "M",
        "bottleneck, GFLOP",
        "/ its curve",
        "/ (N + M)² curve",
        "merged, GFLOP",
        "/ its curve",
    )
    lines = []
    for n, m, measured, ratio in rows:
        other = measured["bottleneck"] * 1e9 / counts.pairs_flops("merged", n, m)
        lines.append(
            (
                n,
                m,
                f"{measured['bottleneck']:.3f}",
                f"{ratio['bottleneck']:.3f}",
                f"{other:.3f}",
                f"{measured['merged']:.3f}",
                f"{ratio['merged']:.3f}",
            )
        )
    return table(header, lines)


def _encoder_figures(found: Mapping[str, Profile]) -> dict[str, object]:
    avt, mbt = found["AVT-B"], found["MBT-B"]

    def excess(cost: Profile) -> float:
        return 1 - cost.analytic_flops["video encoder"] / cost.xla_flops["video encoder"]

    deviations = [
        abs(gflop(found[name]) / value - 1) for name, value in counts.ORIGINAL_GFLOP.items()
    ]
    *most, last = (f"{value:g}" for value in counts.ORIGINAL_GFLOP.values())
    return dict(
        ratio=gflop(mbt) / gflop(avt),
        ratio_analytic=gflop(mbt, "analytic_flops") / gflop(avt, "analytic_flops"),
        ratio_step=mbt.step_flops / avt.step_flops,
        elementwise=excess(avt),
        elementwise_mbt=excess(mbt),
        original=f"{', '.join(most)} and {last}",
        deviation=max(deviations),
    )


def _fusion_figures(found: Mapping[str, Profile], rows) -> dict[str, object]:
    n, m = cost_plot.N, cost_plot.M
    total = gflop(found["AVT-B"])
    fusion, merged = (counts.fusion_flops(kind, n, m) / 1e9 for kind in ("bottleneck", "merged"))
    attention, attention_merged = (
        counts.attention_flops(kind, n, m) / 1e9 for kind in ("bottleneck", "merged")
    )
    own = [ratio[kind] for *_, ratio in rows for kind in ratio]
    other = [
        measured["bottleneck"] * 1e9 / counts.pairs_flops("merged", n, m)
        for n, m, measured, _ in rows
    ]

    def products(length: int) -> float:
        return counts.fusion_products("bottleneck", n, m, k=1, length=length) / 1e9

    def merging_costs_more(x: int) -> bool:
        bottleneck, merged = (
            counts.fusion_products(kind, x, x) for kind in ("bottleneck", "merged")
        )
        return bottleneck <= merged

    merged_pairs = counts.pairs_flops("merged", n, m)
    return dict(
        n=n,
        m=m,
        fusion=fusion,
        fusion_merged=merged,
        attention=attention,
        attention_merged=attention_merged,
        saved=1 - fusion / merged,
        saved_model=(merged - fusion) / (total - fusion + merged),
        low=min(own),
        high=max(own),
        low_other=min(other),
        high_other=max(other),
        crossing=max(
            x for x in range(400) if counts.pairs_flops("bottleneck", n, m, length=x) < merged_pairs
        ),
        # The difference falls with the tokens, so its sign changes once.
        even=1 + bisect.bisect_left(range(1, 800), True, key=merging_costs_more),
        per_block=products(counts.L),
        per_token=products(counts.L + 1) - products(counts.L),
    )


def page(encoders: Mapping[str, counts.EncoderCost], systems: Mapping[str, Profile]) -> str:
    """The whole page in Markdown."""
    rows = cost_plot.growth_rows()
    names = ("jax", "jaxlib", "flax", "optax")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    return PAGE.format(
        command=COMMAND,
        versions=f"Python {platform.python_version()}, {versions}",
        backend={"cpu": "CPU", "gpu": "GPU", "tpu": "TPU"}[jax.default_backend()],
        encoders=encoder_table(encoders),
        systems=system_table(systems),
        parts=part_table(systems),
        grid=grid_table(systems["AVT-B"], gflop(systems["MBT-B"])),
        growth=growth_table(rows),
        **_encoder_figures(systems),
        **_fusion_figures(systems, rows),
    )


def say(line: str) -> None:
    print(f"[{time.monotonic() - _START_SEC:5.0f} s] {line}", file=sys.stderr, flush=True)


def main() -> None:
    """Measures everything and writes the page and its picture."""
    docs = Path(__file__).resolve().parent.parent / "docs"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=docs, help="folder (%(default)s)")
    out = parser.parse_args().out
    encoders, systems = {}, {}
    for name in counts.ENCODERS:
        say(name)
        encoders[name] = counts.encoder_cost(name)
    for name in counts.SYSTEMS:
        say(name)
        config = counts.system_config(name)
        systems[name] = profile_config(config, counts.CLASSES, training_memory=False)
    say("the bottleneck's L and K, and how the fusion grows")
    text = page(encoders, systems)
    (out / "images").mkdir(parents=True, exist_ok=True)
    cost_plot.draw(out / "images" / "fusion_cost.png")
    (out / "cost.md").write_text(text, encoding="utf-8")
    say(f"wrote {out / 'cost.md'}")


if __name__ == "__main__":
    main()
