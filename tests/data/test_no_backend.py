"""The pipeline starts no JAX backend, neither in the main process nor in its workers."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

SCRIPT = """
    import sys
    from clip_records import noise_record
    from avt_jax.data import records
    from avt_jax.data.extraction import extract
    from avt_jax.data.loading import pipeline, sampling
    from avt_jax.data.loading.config import DataConfig

    if __name__ == "__main__":
        source = [noise_record(i, num_frames=4, duration_sec=0.5) for i in range(4)]
        for workers in (0, 1):
            config = DataConfig(
                path="x", num_frames=2, clip_sec=0.5, frame_size_px=16, num_threads=1,
                num_workers=workers,
            )
            batches = pipeline.make_train_iterator(source, config, batch_size=2, seed=0)
            assert next(batches)["video"].shape == (2, 2, 16, 16, 3)
            batches.close()
        from jax._src import xla_bridge

        print("started:", xla_bridge.backends_are_initialized())
        import jax

        try:
            jax.devices()
        except RuntimeError:
            print("a backend would have failed")
"""


def test_pipeline_starts_no_backend(tmp_path):
    script = tmp_path / "use_pipeline.py"
    script.write_text(textwrap.dedent(SCRIPT), encoding="utf-8")
    here = Path(__file__).parent
    # On a platform that does not exist, anything that starts a backend raises.
    env = os.environ | {
        "JAX_PLATFORMS": "no_such_platform",
        "PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])]),
    }
    done = subprocess.run(
        [sys.executable, script], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["started: False", "a backend would have failed"]
    assert "resource_tracker" not in done.stderr
