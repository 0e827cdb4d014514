"""Measures the encoders against PyTorch, the two taking turns.

    python benchmarks/encoders.py
    python benchmarks/encoders.py --model ast --repeats 20 --same-process

UniFormer against the PyTorch model beside this file, AST against `transformers`; the forward pass
in evaluation mode, and the forward and backward pass in training mode with the gradients of all
parameters. Each framework has a process of its own and waits while the other works, so neither
suffers from the other's threads or memory. PyTorch is first tried in its variants (memory formats,
attention implementations), and the fastest of each pass takes part.

Needs `pip install torch transformers`. Compilation is not counted.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib import metadata

PASSES = ("forward", "forward + backward")
MODELS = ("uniformer_s", "uniformer_b", "ast")
# A name to call what was timed by: "ours", or a variant of PyTorch's.
Timed = dict[str, Callable[[], object]]
_CLIP = (16, 224, 224)
_FBANK = (1024, 128)
_CLASSES = {"uniformer_s": 400, "uniformer_b": 400, "ast": 527}


def main() -> None:
    """Prints the table."""
    args = parse_args()
    if hasattr(os, "sched_setaffinity"):
        # XLA makes as many threads as it may use cores; PyTorch is told the number.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    print_machine(args)
    for model in args.model:
        make = SameProcess if args.same_process else OwnProcess
        ours, theirs = make(jax_passes, model, args), make(torch_passes, model, args)
        try:
            for name in PASSES:
                print(row(model, name, ours, theirs, args.repeats), flush=True)
        finally:
            ours.close()
            theirs.close()


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", choices=MODELS, default=["uniformer_s", "ast"])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--same-process", action="store_true", help="both frameworks in this process"
    )
    return parser.parse_args()


def print_machine(args: argparse.Namespace) -> None:
    """Says what the table was measured with, and opens it."""
    names = ("jax", "jaxlib", "flax", "torch", "transformers")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    where = "one process" if args.same_process else "a process each"
    print(
        f"{platform.machine()}, {args.threads} threads, {where}, load average "
        f"{os.getloadavg()[0]:.1f} at the start, Python {platform.python_version()}, {versions}; "
        f"batch {args.batch}, {args.dtype}; seconds; {args.repeats} repeats\n\n"
        "| model | pass | ours: min | median | max | PyTorch: min | median | max | its variant "
        "| our time / its |\n"
        "|---|---|---|---|---|---|---|---|---|---|"
    )


def row(model: str, name: str, ours, theirs, repeats: int) -> str:
    """One line of the table: warms up, picks PyTorch's fastest variant, then takes turns."""
    ours.seconds(name, "ours")
    variants = theirs.variants(name)
    tried = {
        # The first call warms up.
        variant: min([theirs.seconds(name, variant) for _ in range(3)][1:])
        for variant in variants
    }
    best = min(tried, key=tried.get)
    times_sec: dict[str, list[float]] = {"ours": [], best: []}
    for _ in range(repeats):
        for label, values in times_sec.items():
            values.append((ours if label == "ours" else theirs).seconds(name, label))
    cells = [f"{f(v):.2f}" for v in times_sec.values() for f in (min, statistics.median, max)]
    ratio = statistics.median(times_sec["ours"]) / statistics.median(times_sec[best])
    cells.insert(6, best)
    return f"| {model} | {name} | {' | '.join(cells)} | {ratio:.2f} |"


class SameProcess:
    """Times the passes of one framework here."""

    def __init__(self, build, model: str, args: argparse.Namespace):
        self._passes: dict[str, Timed] = build(model, args)

    def variants(self, name: str) -> list[str]:
        """Names of what can be timed for a pass."""
        return list(self._passes[name])

    def seconds(self, name: str, variant: str) -> float:
        """Wall-clock time of one call."""
        call = self._passes[name][variant]
        start_sec = time.perf_counter()
        call()
        return time.perf_counter() - start_sec

    def close(self) -> None:
        """Nothing to release."""


class OwnProcess:
    """Times the passes of one framework in a process that sleeps in between."""

    def __init__(self, build, model: str, args: argparse.Namespace):
        context = multiprocessing.get_context("spawn")
        self._pipe, end = context.Pipe()
        self._process = context.Process(target=_serve, args=(end, build, model, args), daemon=True)
        self._process.start()
        end.close()

    def _ask(self, *request):
        self._pipe.send(request)
        return self._pipe.recv()

    def variants(self, name: str) -> list[str]:
        """Names of what can be timed for a pass."""
        return self._ask("variants", name)

    def seconds(self, name: str, variant: str) -> float:
        """Wall-clock time of one call, as the process itself took it."""
        return self._ask("seconds", name, variant)

    def close(self) -> None:
        """Ends the process."""
        self._pipe.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.terminate()


def _serve(pipe, build, model: str, args: argparse.Namespace) -> None:
    here = SameProcess(build, model, args)
    while True:
        try:
            method, *rest = pipe.recv()
        except EOFError:
            return
        pipe.send(getattr(here, method)(*rest))


def jax_passes(model: str, args: argparse.Namespace) -> dict[str, Timed]:
    """Our model, both passes."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from avt_jax import tree
    from avt_jax.models.encoders import ast, uniformer

    kind = dict(num_classes=_CLASSES[model], dtype=jnp.dtype(args.dtype))
    if model == "ast":
        base = dict(dim=768, depth=12, num_heads=12, stride=10)
        shape = (args.batch, *_FBANK)

        def build():
            return ast.AST(
                ast.ASTConfig(**base),
                num_frames=_FBANK[0],
                mel_bins=_FBANK[1],
                **kind,
                rngs=nnx.Rngs(0),
            )
    else:
        shape = (args.batch, *_CLIP, 3)

        def build():
            config = uniformer.VARIANTS[model[-1].upper()]
            return uniformer.UniFormer(config, **kind, rngs=nnx.Rngs(0))

    skeleton = tree.Skeleton(build)
    params, stats = jax.jit(lambda: tree.split(build()))()
    x = jax.random.normal(jax.random.key(1), shape)
    labels_b = jnp.zeros(args.batch, jnp.int32)

    def loss_of(params, stats, x):
        net = skeleton.merge(params, stats)
        logits_by = net(x, train=True).astype(jnp.float32)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits_by, labels_b).mean()
        return loss, tree.split(net)[1]

    calls = {
        "forward": lambda params, stats, x: skeleton.merge(params, stats)(x),
        "forward + backward": jax.value_and_grad(loss_of, has_aux=True),
    }
    ready = {name: jax.jit(call).lower(params, stats, x).compile() for name, call in calls.items()}
    return {
        name: {"ours": lambda run=run: jax.block_until_ready(run(params, stats, x))}
        for name, run in ready.items()
    }


def torch_passes(model: str, args: argparse.Namespace) -> dict[str, Timed]:
    """PyTorch's model in its variants, both passes."""
    import torch

    torch.set_num_threads(args.threads)
    nets = torch_ast(args) if model == "ast" else torch_uniformer(model, args)
    labels_b = torch.zeros(args.batch, dtype=torch.long)
    cast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.dtype == "bfloat16")

    def forward(net, x):
        with torch.inference_mode(), cast:
            net.eval()(x)

    def forward_backward(net, x):
        net.train().zero_grad()
        with cast:
            loss = torch.nn.functional.cross_entropy(net(x), labels_b)
        loss.backward()

    return {
        name: {variant: lambda call=call, pair=pair: call(*pair) for variant, pair in nets.items()}
        for name, call in zip(PASSES, (forward, forward_backward), strict=True)
    }


def torch_uniformer(model: str, args: argparse.Namespace) -> dict[str, tuple]:
    """{memory format: (net, input)} of the UniFormer beside this file."""
    import torch
    import torch_uniformer as theirs

    found = {}
    for name, layout in (
        ("channels first", torch.contiguous_format),
        ("channels last", torch.channels_last_3d),
    ):
        net = theirs.UniFormer(**getattr(theirs, model[-1].upper()), num_classes=_CLASSES[model])
        x = torch.randn(args.batch, 3, *_CLIP)
        found[name] = net.to(memory_format=layout), x.to(memory_format=layout)
    return found


def torch_ast(args: argparse.Namespace) -> dict[str, tuple]:
    """{attention implementation: (net, input)} of the AST in transformers, base size."""
    import torch
    from transformers import ASTConfig, ASTForAudioClassification

    class Logits(torch.nn.Module):
        def __init__(self, implementation):
            super().__init__()
            config = ASTConfig(
                num_labels=_CLASSES["ast"],
                max_length=_FBANK[0],
                num_mel_bins=_FBANK[1],
                frequency_stride=10,
                time_stride=10,
                attn_implementation=implementation,
            )
            self.net = ASTForAudioClassification(config)

        def forward(self, x):
            return self.net(x).logits

    x = torch.randn(args.batch, *_FBANK)
    return {name: (Logits(name), x) for name in ("eager", "sdpa")}


if __name__ == "__main__":
    main()
