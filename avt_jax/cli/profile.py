"""`avt profile`: what the model of a config costs, without allocating or running it."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from avt_jax.cli.common import parser, run
from avt_jax.errors import UserError

EPILOG = """\
  avt profile --config vggsound --no-memory
  avt profile --config mbt_vggsound --batch 8 --config.model.fusion=concat --classes label=527

FLOPs are 2 for a multiply-add. "analytic" counts matrix products, convolutions and attention by
formula; "XLA" counts the lowered program, element-wise work included. Memory is XLA's peak for
activations and scratch space on this machine's backend, without parameters, optimiser state and
input; it needs the program compiled, on a CPU up to ten minutes for a large model's training step.
"""
_CLASSES = re.compile(r"\w+=[1-9]\d*(,\w+=[1-9]\d*)*")
_DEFAULT_CLASSES = {"label": 400}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Profile:
    """What a model costs. FLOPs and bytes are of a batch, forward in evaluation.

    Attributes:
      batch_size: clips.
      classes: {label set: number of classes}.
      precision: computation type.
      parameters: {part: number of scalars}.
      analytic_flops: {part: FLOPs}, by formula.
      xla_flops: {part: FLOPs}, as XLA counts them.
      step_flops: of a training step, gradient and optimiser, as XLA counts them.
      forward_bytes: peak memory of activations; None where not asked for.
      step_bytes: the same in a training step.
      backend: where that memory would be.
    """

    batch_size: int
    classes: dict[str, int]
    precision: str
    parameters: dict[str, int]
    analytic_flops: dict[str, int]
    xla_flops: dict[str, int]
    step_flops: int | None
    forward_bytes: int | None
    step_bytes: int | None
    backend: str


def build_parser():
    """The argument parser of `avt profile`; config overrides are read apart from it."""
    cli = parser("profile", "Parameters, FLOPs and memory of a config's model.", EPILOG)
    add = cli.add_argument
    add("--config", required=True, metavar="FILE[:ARG]", help="config file or recipe")
    add("--batch", type=int, default=1, help="clips in the batch (%(default)s)")
    add("--classes", help="such as label=309 or verb=97,noun=300 (default: those of the shards)")
    add("--no-memory", action="store_true", help="do not compile, so no peak memory")
    add("--json", type=Path, metavar="FILE", help="write the figures here as well")
    return cli


def read_classes(text: str | None, path: str, say: Say) -> dict[str, int]:
    """The number of classes of each label set.

    Args:
      text: as on the command line; None takes them from the shards.
      path: config.data.path.
      say: is told when a default is taken.

    Raises:
      UserError: `text` does not read, or what is at `path` are no shards.
    """
    from avt_jax.data import records
    from avt_jax.data.records.generated import is_generated, open_generated

    if text is not None:
        if not _CLASSES.fullmatch(text):
            raise UserError(f"--classes {text!r}: give such as label=309 or verb=97,noun=300.")
        found: dict[str, int] = {}
        for name, number in (pair.split("=") for pair in text.split(",")):
            if name in found:
                raise UserError(f"--classes {text!r} gives {name} twice; give each set once.")
            found[name] = int(number)
        return found
    if is_generated(path):
        info, _ = open_generated(path, "train")
    elif os.path.exists(path):
        info = records.read_info(path)
    else:
        (default,) = (f"{name}={number}" for name, number in _DEFAULT_CLASSES.items())
        say(f"no shards at config.data.path = {path!r}: counting {default}; --classes changes it")
        return dict(_DEFAULT_CLASSES)
    return {name: len(names) for name, names in info.label_sets.items()}


def _step(config, parts, skeleton, classes: dict[str, int], spec, batch_size: int):
    """(training step, shapes of its arguments), as `avt train` puts them together."""
    import jax
    import jax.numpy as jnp

    from avt_jax import axes
    from avt_jax.cli import wiring
    from avt_jax.training.optimizer import make_optimizer
    from avt_jax.training.state import TrainState

    # The learning rate's schedule is one scalar; what it says does not change the cost.
    optimizer = make_optimizer(parts.optimizer, lambda step: parts.optimizer.lr)
    ema_decay = parts.optimizer.ema_decay
    objective = wiring.make_objective(config, parts)
    function = wiring.make_step(parts, skeleton, objective, optimizer)
    state = TrainState(
        step=jax.ShapeDtypeStruct((), jnp.int32),
        params=skeleton.params,
        stats=skeleton.stats,
        ema=dict(skeleton.params) if ema_decay else {},
        opt_state=jax.eval_shape(optimizer.init, skeleton.params),
    )

    def array(dtype, *shape):
        return jax.ShapeDtypeStruct((batch_size, *shape), dtype)

    side = spec.frame_size_px
    batch = {
        axes.VIDEO: array(jnp.uint8, spec.num_frames, side, side, 3),
        axes.AUDIO: array(jnp.float32, spec.fbank_frames, spec.mel_bins),
        axes.HAS_AUDIO: array(jnp.bool_),
        axes.LABELS: {name: array(jnp.int32) for name in classes},
        axes.GROUP: array(jnp.int32),
        axes.VALID: array(jnp.bool_),
    }
    return function, (state, batch, jax.eval_shape(jax.random.key, 0))


def profile(
    config,
    classes: dict[str, int],
    *,
    batch_size: int = 1,
    training: bool = True,
    forward_memory: bool = True,
    training_memory: bool = True,
    say: Say = lambda line: None,
) -> Profile:
    """Measures what a config's model costs, from shapes alone.

    Args:
      config: as `load_config` gives it.
      classes: {label set: number of classes}.
      batch_size: clips.
      training: count the training step's operations too.
      forward_memory: find the peak memory of the forward pass; compiles it.
      training_memory: find the peak memory of the training step; compiles it, which may take
        minutes.
      say: is told what takes time.

    Raises:
      UserError: anything wrong in the config.
    """
    import jax

    from avt_jax import tree
    from avt_jax.cli import wiring
    from avt_jax.inference.load import input_spec
    from avt_jax.profiling import flops, parts, xla

    blocks = wiring.parse(config)
    model = config.model.to_dict()
    spec = input_spec(blocks.data)
    say("building the model's structure")
    build = wiring.model_builder(model, blocks.data, classes)
    skeleton = tree.Skeleton(lambda: build(jax.random.key(0)))
    step, step_args = _step(config, blocks, skeleton, classes, spec, batch_size)
    say("counting the forward pass")
    forward = parts.ForwardPass(skeleton, model["modalities"], spec, batch_size)
    xla_flops = forward.flops()
    step_flops = forward_bytes = step_bytes = None
    if training:
        say("counting the training step")
        step_flops = xla.flops(step, *step_args)
    if forward_memory:
        say("compiling the forward pass")
        forward_bytes = forward.temporary_bytes()
    if training_memory:
        say("compiling the training step (minutes for a large model)")
        step_bytes = xla.temporary_bytes(step, *step_args, donate=(0,))
    macs = flops.analytic(model, classes, spec)
    return Profile(
        batch_size=batch_size,
        classes=classes,
        precision=model["precision"],
        parameters=parts.parameters(model, skeleton.params),
        analytic_flops={part: 2 * batch_size * number for part, number in macs.items()},
        xla_flops=xla_flops,
        step_flops=step_flops,
        forward_bytes=forward_bytes,
        step_bytes=step_bytes,
        backend=jax.default_backend(),
    )


def _print(found: Profile, spec: str) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    heads = ", ".join(f"{name} {number}" for name, number in found.classes.items())
    title = f"{spec}: batch of {found.batch_size}, {found.precision}, classes: {heads}"
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left")
    table.add_column("part")
    names = ("parameters", "share", "forward GFLOP, analytic", "XLA", "share")
    for name in names:
        table.add_column(name, justify="right")
    total = {
        name: sum(getattr(found, name).values())
        for name in ("parameters", "analytic_flops", "xla_flops")
    }

    def row(name: str, parameters: int, analytic: int, xla: int) -> None:
        table.add_row(
            name,
            f"{parameters:,}",
            f"{parameters / total['parameters']:.1%}",
            f"{analytic / 1e9:,.3f}",
            f"{xla / 1e9:,.3f}",
            f"{xla / total['xla_flops']:.1%}",
        )

    for part, xla in found.xla_flops.items():
        row(part, found.parameters.get(part, 0), found.analytic_flops[part], xla)
    table.add_section()
    row("all", *total.values())
    console.print(table)
    factor = found.step_flops / total["xla_flops"]
    step_gflop = found.step_flops / 1e9
    console.print(f"training step: {step_gflop:,.3f} GFLOP (XLA), {factor:.2f} x forward")
    for name, size in (("forward", found.forward_bytes), ("training step", found.step_bytes)):
        if size is not None:
            megabytes = f"{size / 1e6:,.1f} MB on {found.backend}"
            console.print(f"peak memory of activations, {name}: {megabytes}")


def _write(path: Path, found: Profile) -> None:
    try:
        path.write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--json {path}: {error.strerror}; give a file in a folder.") from error


def _progress() -> Say:
    start_sec = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - start_sec:5.0f} s] {line}", file=sys.stderr, flush=True)

    return say


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    args, overrides = build_parser().parse_known_args(argv)
    if args.batch < 1:
        raise UserError(f"--batch {args.batch} must be 1 or more.")
    if args.json and not args.json.absolute().parent.is_dir():
        raise UserError(f"--json {args.json}: there is no such folder; make it first.")
    from avt_jax.cli.config import load_config

    config = load_config(args.config, overrides)
    say = _progress()
    found = profile(
        config,
        read_classes(args.classes, config.data.path, say),
        batch_size=args.batch,
        forward_memory=not args.no_memory,
        training_memory=not args.no_memory,
        say=say,
    )
    _print(found, args.config)
    if args.json:
        _write(args.json, found)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
