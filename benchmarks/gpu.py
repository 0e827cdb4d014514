"""Measures on a GPU what has been written for one: kernels, training steps, inference.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --tiny        # on a CPU, to see that all of it runs

In one call and within `--limit-min`: the training steps and the inference of AVT-B and MBT-B in
bfloat16 at some batch sizes; the same of PyTorch twins (torch_avt.py) under `torch.compile`; every
form of both kernels at the models' shapes. AVT-B's step is measured twice: with all its losses, and
with those alone that the twin has, classification and contrastive; the ratio is of the latter.

Compiling takes most of the time and is not counted: `--jobs` processes compile side by side, small
batches first, and then all take turns, so that whoever is measured has the GPU to itself. What is
not done in time, or does not fit, is said. Figures go to results/gpu.json after each turn.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
RECIPES = {"AVT-B": "vggsound", "MBT-B": "mbt_vggsound"}
WORK = ("ours", "torch", "forms")
CLASSES = 309
# Of the time there is: when whoever has not compiled is left out.
_COMPILED_BY = 0.6
# Only losses that the twin has.
_COMPARED = {"losses.weights.matching": 0.0, "losses.weights.masked_audio": 0.0}


def main() -> int:
    """Runs every part, and writes the tables."""
    args = parse_args()
    if args.part:
        for row in PARTS[args.part](args):
            print(json.dumps(row), flush=True)
        return 0
    start_sec, limit_sec = time.monotonic(), 60 * args.limit_min
    end_sec = start_sec + limit_sec
    found: dict[str, Any] = {"command": sys.argv, "machine": machine(), "rows": []}

    def keep(rows: list[dict[str, Any]]) -> None:
        found["rows"] += rows
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    side_by_side = [("torch", model, args.batch) for model in args.model]
    side_by_side += [("ours", model, [batch]) for batch in args.batch for model in args.model]
    parts = [Part(*one) for one in side_by_side if one[0] in args.only]
    compiled_by = start_sec + _COMPILED_BY * limit_sec
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda part: part.compile(compiled_by), parts))
    for part in parts:
        keep(part.measure(end_sec))
    for model in args.model if "forms" in args.only else ():
        part = Part("forms", model, args.batch[:1])
        part.compile(end_sec)
        keep(part.measure(end_sec))
    print(page_of(found))
    return 0


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", nargs="+", choices=tuple(RECIPES), default=list(RECIPES))
    add("--only", nargs="+", choices=WORK, default=list(WORK), help="parts (default: all)")
    add("--batch", nargs="+", type=int, help="clips (default: 8 16 32)")
    add("--repeats", type=int, default=10)
    add("--limit-min", type=float, default=9.5)
    add("--jobs", type=int, default=3, help="processes that compile at a time (default: 3)")
    add("--tiny", action="store_true", help="the recipes' :smoke, 2 clips")
    add("--out", type=Path, default=RESULTS / "gpu.json")
    add(
        "--part",
        choices=WORK,
        help="one part of one model, in this process: it prints {} when it "
        "has compiled, and then waits for a line",
    )
    args = parser.parse_args()
    args.batch = args.batch or ([2] if args.tiny else [8, 16, 32])
    return args


def machine() -> dict[str, Any]:
    """What the figures were made with; the GPU says its own name in the rows."""
    versions = {}
    for name in ("jax", "jaxlib", "flax", "torch", "triton", "tokamax"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": platform.machine(), "cores": cores, "versions": versions}


class Part:
    """A part of the work in a process of its own, which compiles and then waits for its turn."""

    def __init__(self, part: str, model: str, batches: list[int]):
        self.about: dict[str, Any] = {"part": part, "model": model}
        self._batches = batches
        self._process: subprocess.Popen[str] | None = None
        self._is_ready, self._done = threading.Event(), threading.Event()
        self._rows: list[dict[str, Any]] = []

    def compile(self, end_sec: float) -> None:
        """Starts it, and returns when it has compiled; at that time it is ended if it has not."""
        start_sec = time.monotonic()
        if end_sec - start_sec < 1:
            return
        words = [f"--{name}={value}" for name, value in self.about.items()]
        command = [sys.executable, __file__, *sys.argv[1:], *words, "--batch"]
        # XLA would take most of the GPU's memory at once, and the peak would say nothing.
        env = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self._process = subprocess.Popen(
            [*command, *map(str, self._batches)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()
        ready = self._is_ready.wait(end_sec - start_sec)
        took = f"after {time.monotonic() - start_sec:.0f} s"
        print(self.about, self._batches, took, file=sys.stderr, flush=True)
        if not ready:
            self._stop(f"had not compiled {took}")

    def _read(self) -> None:
        process = self._process
        assert process is not None and process.stdout is not None
        for line in process.stdout:
            if line.startswith("{}"):
                self._is_ready.set()
            elif line.startswith("{"):
                self._rows.append(self.about | json.loads(line))
        process.wait()
        self._done.set()
        self._is_ready.set()  # it will say no more

    def measure(self, end_sec: float) -> list[dict[str, Any]]:
        """Lets it measure; its rows, and why there are no more."""
        if self._process is None:
            return [self.about | {"batch": self._batches, "failed": "no time was left"}]
        if not self._done.is_set():
            assert self._process.stdin is not None
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            if not self._done.wait(max(0.0, end_sec - time.monotonic())):
                self._stop("had not measured all")
        code = self._process.returncode
        if code and not any(row.get("failed") for row in self._rows):
            self._rows.append(self.about | {"failed": f"exit code {code}"})
        return self._rows

    def _stop(self, why: str) -> None:
        assert self._process is not None
        self._process.kill()
        self._done.wait(10)
        self._rows.append(self.about | {"batch": self._batches, "failed": why})


def wait_for_turn() -> None:
    """Says that all is compiled, and waits."""
    print("{}", flush=True)
    sys.stdin.readline()


def measure_forms(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every form of both kernels, for the training step's own shapes."""
    wait_for_turn()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AVT_CACHE"] = folder  # what is found here is not this machine's choice
        from avt_jax.experiment.tuning import tune_config

        found = tune_config(
            our_config(args, {}),
            {"label": CLASSES},
            batch_size=args.batch[0],
            repeats=args.repeats,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
    for one in found.timed:
        yield {
            "device": found.device_kind,
            "batch": found.batch_size,
            "pass": ", ".join(one.steps),
            "case": one.case,
            "form": one.form,
            "chosen": one.chosen,
            "ms": of_times(one.times_ms),
            "failed": one.failure,
        }


def our_config(args: argparse.Namespace, changes: Mapping[str, object]) -> Any:
    """The recipe in bfloat16."""
    from avt_jax.experiment.config import load_config

    name = RECIPES[args.model[0]] + (":smoke" if args.tiny else "")
    return load_config(name, {"model.precision": "bfloat16", **changes})


def measure_ours(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Our training steps and inference."""
    import jax

    device = jax.devices()[0]
    variants: dict[str, dict[str, object]] = {"training": _COMPARED}
    if args.model[0].startswith("AVT"):
        variants["training, all losses"] = {}
    works = [
        Ours(our_config(args, changes), work, batch_size)
        for batch_size in args.batch
        for work, changes in variants.items()
    ]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda compile: compile(), [one for work in works for one in work.lower()]))
    wait_for_turn()
    for work in works:
        for name, call, seconds in work.calls():
            row = timed(name, work.batch_size, device.device_kind, call, args.repeats, peak_gib)
            yield row | {"compile_sec": round(seconds, 1)}


def peak_gib() -> float | None:
    """The device's memory at its fullest, since the process began."""
    import jax

    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return None if peak is None else peak / 2**30


class Ours:
    """Our training step on clips of noise, each call going on from the last, and inference."""

    def __init__(self, config: Any, work: str, batch_size: int):
        import jax

        from avt_jax.experiment.assemble import Experiment

        self.work, self.batch_size = work, batch_size
        classes = {"label": CLASSES}
        self.experiment = Experiment(config, classes=classes, devices=jax.devices()[:1])
        self._compiled: dict[str, Any] = {}
        self._seconds: dict[str, float] = {}

    def lower(self) -> list[Callable[[], None]]:
        """What is left to do, in any order and side by side."""
        import jax

        from avt_jax.experiment.cost import step_arguments
        from avt_jax.models.forward import make_predict
        from avt_jax.training import mesh as meshes
        from avt_jax.training.inputs import normalisation

        experiment = self.experiment
        state, self._batch, key = step_arguments(experiment, self.batch_size)
        shardings = meshes.variable_shardings(experiment.mesh, state, experiment.parts.mesh)
        self._step = experiment.packed_step(shardings, state)
        packed = jax.eval_shape(self._step.pack, state)
        lowered = {self.work: self._step.jitted.lower(packed, self._batch, key)}
        if self.work == "training":
            predict = make_predict(experiment.skeleton, normalisation(experiment.parts.data))
            lowered["inference"] = jax.jit(predict).lower(state.params, state.stats, self._batch)

        def compile_one(name: str) -> None:
            start_sec = time.perf_counter()
            self._compiled[name] = lowered[name].compile()
            self._seconds[name] = time.perf_counter() - start_sec

        def start() -> None:
            state, _ = experiment.init_state()
            self._packed = self._step.pack(state)
            # The step takes over its state's memory: what inference reads is a copy.
            self._variables = jax.tree.map(lambda x: x.copy(), (state.params, state.stats))

        tasks = [functools.partial(compile_one, name) for name in lowered]
        return [*tasks, start]

    def calls(self) -> Iterator[tuple[str, Callable[[], None], float]]:
        """(what, a call, seconds to compile)."""
        import jax

        from avt_jax.training import mesh as meshes

        batch = meshes.to_device(jax.tree.map(noise, self._batch), self.experiment.mesh)
        key = self.experiment.keys[1]

        def train() -> None:
            self._packed, metrics = self._compiled[self.work](self._packed, batch, key)
            jax.block_until_ready((self._packed, metrics))

        def infer() -> None:
            run = self._compiled["inference"]
            jax.block_until_ready(run(*self._variables, batch))

        for name in sorted(self._seconds, reverse=True):
            yield name, infer if name == "inference" else train, self._seconds[name]


def noise(shape: Any) -> Any:
    """An array of such a shape and type: noise, the first classes, or true."""
    import numpy as np

    rng = np.random.default_rng(0)
    if shape.dtype == bool:
        return np.ones(shape.shape, bool)
    if shape.dtype == np.uint8:
        return rng.integers(0, 256, shape.shape, np.uint8)
    if np.issubdtype(shape.dtype, np.integer):
        return np.arange(np.prod(shape.shape), dtype=shape.dtype).reshape(shape.shape) % CLASSES
    return rng.normal(size=shape.shape).astype(shape.dtype)


def measure_torch(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The twins' training steps and inference."""
    try:
        import torch
    except ImportError:
        yield {"failed": "PyTorch is not installed"}
        return
    os.environ["JAX_PLATFORMS"] = "cpu"  # it only reads the recipe
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    name = torch.cuda.get_device_name() if on_gpu else "cpu"

    def peak_gib() -> float | None:
        return torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None

    ready: dict[int, tuple[Twins, float]] = {}
    for batch_size in args.batch:
        start_sec = time.perf_counter()
        twins = Twins(*twin(args, batch_size), device)
        twins.train()
        twins.infer()
        ready[batch_size] = twins, time.perf_counter() - start_sec
        if on_gpu:
            torch.cuda.empty_cache()
    wait_for_turn()
    for batch_size, (twins, seconds) in ready.items():
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        row = timed("training", batch_size, name, twins.train, args.repeats, peak_gib)
        yield row | {"compile_sec": round(seconds, 1)}
        yield timed("inference", batch_size, name, twins.infer, args.repeats, peak_gib)


def twin(args: argparse.Namespace, batch_size: int) -> tuple[Any, tuple[Any, Any]]:
    """The PyTorch model of a recipe's sizes, and (video, spectrogram) of noise."""
    import torch
    import torch_avt

    from avt_jax.experiment.assemble import Experiment

    config = our_config(args, {})
    spec, model = Experiment(config, classes={"label": CLASSES}).spec, config.model
    side, fbank = spec.frame_size_px, (spec.fbank_frames, spec.mel_bins)
    shared = dict(dim=model.dim, heads=model.num_heads, mlp_ratio=model.mlp_ratio, fbank=fbank)
    shared["num_bottleneck"] = model.num_bottleneck
    if model.name == "mbt":
        size = (spec.num_frames, side, side)
        net = torch_avt.MBT(
            CLASSES, video=size, depth=model.depth, fusion_layer=model.fusion_layer, **shared
        )
    else:
        fields = ("depth", "dim", "head_dim", "mlp_ratio")
        uniformer = {name: model.video_encoder[name] for name in fields}
        net = torch_avt.AVT(
            CLASSES,
            uniformer=uniformer,
            ast_depth=model.audio_encoder.depth,
            ast_stride=model.audio_encoder.stride,
            num_blocks=model.num_blocks,
            projection=model.projection_dim,
            **shared,
        )
    video = torch.randn(batch_size, 3, spec.num_frames, side, side)
    return net, (video, torch.randn(batch_size, *fbank))


class Twins:
    """A twin's training step and inference, compiled."""

    def __init__(self, net: Any, inputs: tuple[Any, Any], device: Any):
        import torch

        self._torch, self._device = torch, device
        net = net.to(device, memory_format=torch.preserve_format)
        self._inputs = [x.to(device) for x in inputs]
        self._labels = torch.arange(len(inputs[0]), device=device) % CLASSES
        self._optimizer = torch.optim.AdamW(net.parameters(), fused=device.type == "cuda")
        self._net = torch.compile(net)

    def _cast(self) -> Any:
        return self._torch.autocast(self._device.type, dtype=self._torch.bfloat16)

    def train(self) -> None:
        """One step."""
        cross_entropy = self._torch.nn.functional.cross_entropy
        self._net.train()
        self._optimizer.zero_grad(set_to_none=True)
        with self._cast():
            logits, *z = self._net(*self._inputs)
        loss = cross_entropy(logits.float(), self._labels)
        if z:
            similarity = z[0].float() @ z[1].float().T / 0.07
            own = self._torch.arange(len(similarity), device=self._device)
            both = cross_entropy(similarity, own) + cross_entropy(similarity.T, own)
            loss = loss + 0.25 * both
        loss.backward()
        self._optimizer.step()
        self._wait()

    def infer(self) -> None:
        """Probabilities of the batch."""
        self._net.eval()
        with self._torch.inference_mode(), self._cast():
            self._net(*self._inputs)[0].float().softmax(-1)
        self._wait()

    def _wait(self) -> None:
        if self._device.type == "cuda":
            self._torch.cuda.synchronize()


def timed(
    work: str,
    batch_size: int,
    device: str,
    call: Callable[[], None],
    repeats: int,
    peak_gib: Callable[[], float | None] = lambda: None,
) -> dict[str, Any]:
    """The row of a call; two are for warming up."""
    row: dict[str, Any] = {"device": device, "work": work, "batch": batch_size}
    try:
        call()
        call()
        times_ms = []
        for _ in range(repeats):
            start_sec = time.perf_counter()
            call()
            times_ms.append(1e3 * (time.perf_counter() - start_sec))
    except RuntimeError as error:  # of XLA's and PyTorch's, out of memory among them
        return row | {"failed": str(error).partition("\n")[0][:200]}
    return row | {"ms": of_times(times_ms), "peak_gib": peak_gib()}


def of_times(times_ms: Any) -> list[float] | None:
    """[least, middle, most]."""
    if not times_ms:
        return None
    return [round(of(times_ms), 3) for of in (min, statistics.median, max)]


def page_of(found: Mapping[str, Any]) -> str:
    """The tables, in Markdown."""
    rows = found["rows"]
    steps = {
        (row["model"], row["work"], row["batch"], row["part"]): row for row in rows if "work" in row
    }
    lines = [
        json.dumps(found["machine"]),
        "",
        "| model | what | batch | ours: min | median | max | clips/s | peak GiB | PyTorch: min "
        "| median | max | clips/s | peak GiB | our time / its |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (model, work, batch, part), row in steps.items():
        if part == "ours":
            theirs = steps.get((model, work, batch, "torch"), {})
            ratio = "" if not (row.get("ms") and theirs.get("ms")) else row["ms"][1]
            ratio = ratio and f"{ratio / theirs['ms'][1]:.2f}"
            cells = [model, work, str(batch), *cells_of(row), *cells_of(theirs), ratio]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| model | pass | case | form | min | median | max | |", "|---|" + "---|" * 7]
    for row in rows:
        if "form" in row:
            times = [f"{ms:.2f}" for ms in row["ms"] or []] or ["", "", ""]
            note = row["failed"] or "chosen" * row["chosen"]
            cells = [row["model"], row["pass"], row["case"], row["form"], *times, note]
            lines.append(f"| {' | '.join(cells)} |")
    failed = [row for row in rows if row.get("failed") and "form" not in row]
    lines += [
        "- "
        + " ".join(str(row.get(key, "")) for key in ("part", "model", "work", "batch", "failed"))
        for row in failed
    ]
    return "\n".join(lines)


def cells_of(row: Mapping[str, Any]) -> list[str]:
    """Times in ms, clips a second, peak memory; empty where there are none."""
    if not row.get("ms"):
        return ["", row.get("failed", ""), "", "", ""]
    peak = row["peak_gib"]
    rate = 1e3 * row["batch"] / row["ms"][1]
    shown = "" if peak is None else f"{peak:.1f}"
    return [*(f"{ms:.1f}" for ms in row["ms"]), f"{rate:.1f}", shown]


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[dict[str, Any]]]] = {
    "forms": measure_forms,
    "ours": measure_ours,
    "torch": measure_torch,
}

if __name__ == "__main__":
    sys.exit(main())
