"""Several processes start from the same weights, each with what it needs of them."""

import dataclasses
import re
from pathlib import Path

import jax
import tiny
from processes import Processes
from random_weights import random_variables

from effnetv2_jax.outputs.checkpoints import Checkpoints
from effnetv2_jax.outputs.parameters import params_sha256
from effnetv2_jax.outputs.workdir import open_workdir
from effnetv2_jax.parallel.mesh import make_mesh
from effnetv2_jax.train.optimizer import make_optimizer
from effnetv2_jax.train.state import build_model, create_state

SCRIPT = """
import sys
import tiny
from effnetv2_jax.outputs.parameters import params_sha256
from effnetv2_jax.parallel import startup
from effnetv2_jax.parallel.mesh import make_mesh
from effnetv2_jax.train.initial import initial_model
from effnetv2_jax.train.optimizer import make_optimizer
from effnetv2_jax.train.state import create_state

startup.start("on")
experiment = tiny.experiment(init=f"workdir:{sys.argv[1]}")
model, variables = initial_model(experiment, tuple("uvwxyz"), sys.argv[2])
optimizer, mesh = make_optimizer(experiment), make_mesh()
assert mesh.size == 2
state = create_state(experiment, model, optimizer, mesh, variables)
print(params_sha256(state.params), params_sha256(variables["params"]))
"""


def test_a_runs_weights_reach_every_process(tmp_path: Path) -> None:
    experiment = tiny.experiment(ema_decay=None)
    model = build_model(experiment, 6)
    workdir = tmp_path / "run"
    config = dataclasses.asdict(experiment)
    open_workdir(workdir, config, tuple("uvwxyz"), model.preprocessing)
    with Checkpoints(workdir / "checkpoints", experiment.checkpoint) as checkpoints:
        variables = random_variables(model)
        optimizer, mesh = make_optimizer(experiment), make_mesh(jax.devices()[:1])
        state = create_state(experiment, model, optimizer, mesh, variables)
        checkpoints.save(3, state.to_dict())

    arguments = ("-c", SCRIPT, str(workdir), str(tmp_path / "new"))
    outputs = Processes(*arguments, folder=tmp_path, count=2).finish()
    # The collectives' library prints as well.
    hashes = [re.findall(r"\b[0-9a-f]{64}\b", output) for output in outputs]
    assert hashes == [[params_sha256(variables["params"])] * 2] * 2
