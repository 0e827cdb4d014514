"""Kills trainings at random moments, continues them, and compares with one that was never killed.

    python benchmarks/kill_trials.py --trials 100
    python benchmarks/kill_trials.py --trials 10 --real

A trial starts a training of one or two processes, sends SIGKILL or SIGTERM to one or to all of them
at a moment drawn evenly from the time that the whole training takes, start-up included, waits for
their end and runs the same command again, without a signal. Checked of each: the final parameters
are bit-identical to those of a training that was left alone, on as many processes; it went on from
the newest checkpoint that was complete at the kill; after SIGTERM the exit code says so, and it
takes less than 30 s.

By default the training is a stub: loop, checkpoints, metrics and processes are the real ones, on
one array and data that count. `--real` trains the quickstart's smallest model.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
STUB_STEPS, REAL_STEPS = 40, 8
# How long the others may take to notice that one is gone, beside what they do then; and how long
# they wait at the start for one that never comes.
PEER_TIMEOUT_SEC, JOIN_TIMEOUT_SEC = 5, 20
HANGS_SEC = 200
NOT_HEARD_SEC = 6


def main() -> int:
    """Runs the trials, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--trials", type=int, default=100)
    add("--seed", type=int, default=0, help="of the first trial")
    add("--real", action="store_true", help="train the quickstart's smallest model")
    add("--out", type=Path, help="default: results/kill_trials[_real].json")
    add("--stub", type=Path, metavar="WORKDIR", help="be the stub's process")
    args, rest = parser.parse_known_args()
    if args.stub:
        return run_stub(args.stub, rest)
    out = args.out or RESULTS / f"kill_trials{'_real' * args.real}.json"
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(Path(folder), args.real)
        rows = []
        for seed in range(args.seed, args.seed + args.trials):
            rows.append(trials.run(seed))
            print(json.dumps(rows[-1]), flush=True)
            out.write_text(json.dumps({"command": sys.argv, "trials": rows}, indent=1) + "\n")
    print(table_of(rows))
    return int(any(row["wrong"] for row in rows))


@dataclass
class Ended:
    """What became of a job.

    Attributes:
      codes: exit codes.
      seconds: from the signal to the last one's end; None without a signal that was in time.
      said: stderr of the first process.
      saved: step of the newest complete checkpoint at the end, 0 without one.
    """

    codes: list[int | None]
    seconds: float | None
    said: str
    saved: int


class Trials:
    """Trials that are compared with the same trainings, left alone."""

    def __init__(self, folder: Path, real: bool):
        self._folder, self._real = folder, real
        self._left_alone: dict[int, tuple[float, Any]] = {}

    def run(self, seed: int) -> dict[str, Any]:
        """One trial: what was done, and what was wrong."""
        rng = random.Random(seed)
        count = rng.choice((1, 2))
        number = rng.choice((signal.SIGKILL, signal.SIGTERM))
        targets = rng.choice(([rng.randrange(count)], list(range(count))))
        takes_sec, expected = self._expected(count)
        moment_sec = rng.uniform(0, takes_sec)
        workdir = self._folder / f"trial-{seed}"
        ended = self._job(workdir, count, moment_sec, number, targets)
        again = self._job(workdir, count)
        wrong = self._wrong(ended, again, number, count)
        if not wrong and not same(final(workdir), expected):
            wrong = "other parameters at the end"
        return {
            "seed": seed,
            "processes": count,
            "signal": number.name,
            "to": targets,
            "at_sec": round(moment_sec, 2),
            "where": where(ended),
            "codes": ended.codes,
            "end_sec": ended.seconds and round(ended.seconds, 2),
            "saved": ended.saved,
            "wrong": wrong,
        }

    def _expected(self, count: int) -> tuple[float, Any]:
        """(seconds, final parameters) of one that is left alone; the second has a cache."""
        if count not in self._left_alone:
            for attempt in range(2):
                start_sec = time.monotonic()
                workdir = self._folder / f"alone-{count}-{attempt}"
                ended = self._job(workdir, count)
                assert ended.codes == [0] * count, ended.said
                self._left_alone[count] = time.monotonic() - start_sec, final(workdir)
        return self._left_alone[count]

    def _wrong(self, ended: Ended, again: Ended, number: int, count: int) -> str:
        if again.codes != [0] * count:
            return f"the second command ended with {again.codes}: {again.said[-500:]}"
        if None in ended.codes:
            return f"it hung: {ended.codes}: {ended.said[-500:]}"
        finished = ended.codes == [0] * count
        # One that comes during the last save has nothing left to stop.
        if number == signal.SIGTERM and finished and (ended.seconds or 0) > NOT_HEARD_SEC:
            return f"SIGTERM was not heard: it went on for {ended.seconds:.0f} s"
        begins = f"from step {ended.saved}\n" if ended.saved else ""
        if begins and begins not in again.said.replace("continuing at", "from").replace(
            " of ", "\n"
        ):
            return f"it did not go on from step {ended.saved}: {again.said[:300]}"
        if number == signal.SIGTERM and not finished:
            if ended.seconds is not None and ended.seconds > 30:
                return f"it took {ended.seconds:.0f} s to stop"
            if "checkpoint saved" in ended.said and f"at step {ended.saved}," not in ended.said:
                return f"another step was saved than said: {ended.said[-300:]}"
            allowed = {143, -signal.SIGTERM, 75, 0}
            if not set(ended.codes) <= allowed:
                return f"exit codes {ended.codes}: {ended.said[-500:]}"
        return ""

    def _job(
        self,
        workdir: Path,
        count: int,
        moment_sec: float | None = None,
        number: int = 0,
        targets: Sequence[int] = (),
    ) -> Ended:
        said = workdir.with_suffix(".stderr")
        env = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "PYTHONUNBUFFERED": "1",
            "AVT_CACHE": str(self._folder / "cache"),
        }
        processes = []
        with socket.socket() as found:
            found.bind(("localhost", 0))
            port = found.getsockname()[1]
        for i in range(count):
            words = [*self._command(workdir), "--peer-timeout", str(PEER_TIMEOUT_SEC)]
            words += ["--join-timeout", str(JOIN_TIMEOUT_SEC)]
            if count > 1:
                words += ["--coordinator", f"localhost:{port}", "--num-processes", str(count)]
                words += ["--process-id", str(i)]
            with said.open("w") if not i else open(os.devnull, "w") as err:
                processes.append(subprocess.Popen(words, stdout=err, stderr=err, env=env))
        in_time = False
        sent_sec = 0.0
        if moment_sec is not None:
            time.sleep(moment_sec)
            in_time = any(process.poll() is None for process in processes)
            sent_sec = time.monotonic()
            for i in targets:
                if processes[i].poll() is None:
                    processes[i].send_signal(number)
        codes = [wait(process) for process in processes]
        seconds = time.monotonic() - sent_sec if in_time else None
        return Ended(codes, seconds, said.read_text(errors="replace"), newest(workdir))

    def _command(self, workdir: Path) -> list[str]:
        if not self._real:
            return [sys.executable, __file__, "--stub", str(workdir)]
        changes = {"steps": REAL_STEPS, "eval_every_steps": 4, "checkpoint_every_steps": 2}
        return [
            *(sys.executable, "-m", "avt_jax", "train", "--config", "quickstart:smoke"),
            *("--workdir", str(workdir), "--config.train.log_every_steps=1"),
            *(f"--config.train.{name}={value}" for name, value in changes.items()),
        ]


def wait(process: subprocess.Popen[bytes]) -> int | None:
    """Its exit code; None where it had to be ended."""
    try:
        return process.wait(HANGS_SEC)
    except subprocess.TimeoutExpired:
        process.kill()
        return None


def newest(workdir: Path) -> int:
    """Step of the newest complete checkpoint, 0 without one."""
    folder = workdir / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return max((int(name) for name in names if name.isdigit()), default=0)


def final(workdir: Path) -> Any:
    """{path: array} of the newest checkpoint, as bytes."""
    import numpy as np
    import orbax.checkpoint as ocp

    state = workdir.absolute() / "checkpoints" / str(newest(workdir)) / "state"
    with ocp.PyTreeCheckpointer() as reader:
        tree = reader.metadata(state).item_metadata.tree["params"]
        as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in tree}
        read = reader.restore(
            state,
            args=ocp.args.PyTreeRestore(
                {"params": tree}, restore_args={"params": as_numpy}, partial_restore=True
            ),
        )
    return {"step": newest(workdir), **{k: v.tobytes() for k, v in read["params"].items()}}


def same(found: Any, expected: Any) -> bool:
    """Whether all parameters and the step are the same, bit by bit."""
    return bool(found == expected)


def where(ended: Ended) -> str:
    """What the training was doing."""
    if ended.seconds is None:
        return "it had ended"
    lines = [line for line in ended.said.splitlines() if line.startswith("doing ")]
    if lines:
        return lines[-1].removeprefix("doing ").split()[0]
    return "steps" if "step 1/" in ended.said else "start"


def table_of(rows: list[dict[str, Any]]) -> str:
    """Trials by signal, processes and what was going on; how long stopping took."""
    kinds = Counter((row["signal"], row["processes"], row["where"]) for row in rows)
    wrong = Counter((r["signal"], r["processes"], r["where"]) for r in rows if r["wrong"])
    lines = ["| signal | processes | while | trials | wrong |", "|---|---|---|---|---|"]
    for kind, count in sorted(kinds.items()):
        lines.append(f"| {' | '.join(map(str, kind))} | {count} | {wrong[kind]} |")
    stops = sorted(r["end_sec"] for r in rows if r["signal"] == "SIGTERM" and r["end_sec"])
    if stops:
        middle = stops[len(stops) // 2]
        lines.append(
            f"\nSIGTERM to the end: {stops[0]}, {middle}, {stops[-1]} s (min, median, max)"
        )
    return "\n".join(lines)


def run_stub(workdir: Path, rest: list[str]) -> int:
    """Trains the stub."""
    from avt_jax.cli import common
    from avt_jax.cli.processes import job

    cli = argparse.ArgumentParser()
    job.add_options(cli)
    args = cli.parse_args(rest)
    return common.run(lambda argv: job.run(args, lambda: train_stub(workdir)), [])


def doing(what: str) -> None:
    """Says what the stub does, for `where`."""
    print(f"doing {what}", file=sys.stderr, flush=True)


class Numbers:
    """The stub's batches, which hold their own number."""

    num_damaged = 0
    number = 0

    def __next__(self) -> dict[str, Any]:
        import jax
        import numpy as np

        from avt_jax import axes

        time.sleep(0.02)
        self.number += 1
        doing(f"step {self.number}")
        rows = 8 // jax.process_count()
        first = self.number + rows * jax.process_index()
        return {axes.AUDIO: np.arange(first, first + rows, dtype=np.float32)[:, None]}

    def get_state(self) -> dict[str, Any]:
        doing(f"save {self.number}")
        return {"number": self.number}


def step(state: Any, batch: dict[str, Any], key: Any) -> Any:
    """The stub's step, to be jitted."""
    import jax
    import jax.numpy as jnp

    from avt_jax import axes
    from avt_jax.training.processes import agree
    from avt_jax.training.state import TrainState

    noise = jax.random.normal(jax.random.fold_in(key, state.step), state.params["w"].shape)
    loss = batch[axes.AUDIO].mean()
    w = 0.9 * state.params["w"] + 1e-3 * loss * noise
    metrics = {"loss": (loss, jnp.float32(1)), **agree.read_notes(batch)}
    return TrainState(state.step + 1, {"w": w}, {}, {}, {}), metrics


def evaluate(state: Any, asked: Any) -> tuple[dict[str, float], float]:
    """As long as ten of the stub's steps; every process asks, all learn of it."""
    import numpy as np

    from avt_jax.training.processes import agree
    from avt_jax.training.processes.stop import Interrupted

    doing("evaluation")
    for _ in range(10):
        time.sleep(0.02)
        if int(agree.total(np.array([asked()]))[0]):
            raise Interrupted(signal.SIGTERM)
    return {"top1/label": float(state.params["w"].mean())}, float(int(state.step))


def train_stub(workdir: Path) -> None:
    """40 steps of 20 ms on one array, with evaluations, checkpoints and metrics."""
    import jax
    import jax.numpy as jnp

    from avt_jax.training import mesh as meshes
    from avt_jax.training.checkpoint import Checkpointer
    from avt_jax.training.loop import Schedule, fit
    from avt_jax.training.processes import agree
    from avt_jax.training.state import TrainState
    from avt_jax.training.writer import MetricWriter, NoWriter

    doing("start")
    mesh = meshes.make_mesh(meshes.MeshConfig())
    everywhere = meshes.replicated(mesh)
    # Large enough that saving takes a while.
    state = TrainState(jnp.int32(0), {"w": jnp.ones((512, 512))}, {}, {}, {})
    state = jax.tree.map(lambda x: jax.device_put(x, everywhere), state)
    batches = Numbers()
    checkpointer = Checkpointer(workdir, keep_last=2, keep_best=1)
    restored = checkpointer.restore(state, jax.tree.map(lambda _: everywhere, state))
    if restored:
        state, position = restored
        batches.number = position["number"]
    if agree.is_first():
        print(f"from step {int(state.step)}", file=sys.stderr, flush=True)
    done = int(state.step)
    writer = MetricWriter(workdir, step=done) if agree.is_first() else NoWriter()
    doing("compile")
    fit(
        state,
        jax.jit(step),
        batches,  # type: ignore[arg-type]
        key=jax.random.key(0),
        mesh=mesh,
        schedule=Schedule(STUB_STEPS, log_every=5, eval_every=10, checkpoint_every=3),
        batch_size=8,
        checkpointer=checkpointer,
        writer=writer,
        rates=lambda step: {"lr": 0.1},
        evaluate=evaluate,
    )
    checkpointer.close()


if __name__ == "__main__":
    sys.exit(main())
