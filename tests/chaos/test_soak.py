"""The script that watches a long run, on a short one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "soak.py"


@pytest.mark.slow
def test_soak_samples_a_run(tmp_path: Path) -> None:
    output = tmp_path / "soak.json"
    subprocess.run(
        [
            sys.executable,
            SCRIPT,
            "--steps=200",
            "--warm_up=20",
            "--interval=0.05",
            f"--output={output}",
        ],
        env=os.environ
        | {
            "JAX_COMPILATION_CACHE_DIR": str(jax.config.values["jax_compilation_cache_dir"]),
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        },
        check=True,
        timeout=600,
    )
    found = json.loads(output.read_text())
    assert 1 < len(found["samples"]) <= 100
    steps = [sample["step"] for sample in found["samples"]]
    assert steps == sorted(steps)
    for sample in found["samples"]:
        assert sample["rss_mib"] >= sample["uss_mib"] > 0
        assert sample["open_files"] > 0
        assert sample["threads"] > 0
    assert set(found["images_per_second_of_quarters"]) == {"first", "last"}
    assert found["mib_per_1000_steps"]["uss_mib"] is not None
