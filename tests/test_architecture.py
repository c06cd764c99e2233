"""Who may import whom, and what importing costs."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_layers_hold() -> None:
    program = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_training_needs_no_tensorflow() -> None:
    script = (
        "import sys, effnetv2_jax.main, effnetv2_jax.train.loop, effnetv2_jax.cli.plan\n"
        "from effnetv2_jax.data import open_source\n"
        "from effnetv2_jax.config.experiment import DataConfig\n"
        "open_source(DataConfig(), 'train')[0]\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
