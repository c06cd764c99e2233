"""A family from outside of the package goes through everything that EfficientNet does."""

import dataclasses
import json
import time
from pathlib import Path

import config_files
import mixer_family
import pytest
from chaos.runs import CONFIG, deterministic, last_metrics, metrics
from processes import TESTS, Processes

from effnetv2_jax.models.complexity import complexity
from effnetv2_jax.models.registry import create_model

NAME = "mixer-tiny"
WIDTH = 24
"""Another than the name's."""
STEPS = 24
SIZES = (48, 64, 80, 96)
"""Of the quickstart's stages."""

LOAD = """
import sys
for module in sys.argv[3:]:
    __import__(module)
import jax, numpy as np
from effnetv2_jax import export_model, load_pretrained
model, variables = load_pretrained(None, sys.argv[1])
assert set(variables) == {"params"} and model.num_classes == 6
assert model.class_names[0] == "cardboard"
images = np.arange(2 * 112 * 112 * 3, dtype=np.uint8).reshape(2, 112, 112, 3)
exported = jax.export.deserialize(export_model(model, variables, platforms=["cpu"]).serialize())
normalised = (images.astype(np.float32) - 128) / 128
np.testing.assert_allclose(
    exported.call(images), model.apply(variables, normalised, train=False), rtol=1e-4, atol=1e-5
)
other, theirs = load_pretrained(None, sys.argv[1], num_classes=3)
assert theirs["params"]["logits"]["bias"].shape == (3,)
jax.tree.map(
    np.testing.assert_array_equal,
    {**variables["params"], "logits": None},
    {**theirs["params"], "logits": None},
)
print("loaded", len(jax.tree.leaves(variables)))
"""


class Program:
    """The commands, in processes of their own that import the family."""

    def __init__(self, folder: Path, *, alone: bool) -> None:
        """`alone`: with EfficientNet unimportable."""
        self.folder = folder
        self._modules = [*(["without_efficientnet"] if alone else []), "mixer_family"]
        imports = [f"--import={module}" for module in self._modules]
        quickstart = [f"--config={config_files.ROOT / 'configs' / 'quickstart.py'}"]
        if alone:
            # The quickstart's own file states an EfficientNet.
            recipe = config_files.load("quickstart")
            run = dataclasses.replace(recipe, model=mixer_family.MixerConfig(name=NAME))
            fields = json.dumps(dataclasses.asdict(run))
            (folder / "recipe.py").write_text(CONFIG.format(experiment=fields))
            quickstart = [f"--config={folder / 'recipe.py'}"]
        self.imports = imports
        self._arguments = [
            *imports,
            *quickstart,
            f"--config.model.name={NAME}",
            f"--config.model.width={WIDTH}",
            f"--config.epochs={STEPS * 16 / 2016}",
            "--config.checkpoint.every_steps=4",
            "--config.log.every_steps=1",
            "--config.data.eval_split=test[:40]",
            "--config.evaluation.batch_size=16",
        ]

    def main(self, *arguments: str) -> Processes:
        return Processes(
            "-m", "effnetv2_jax.main", *self._arguments, *arguments, folder=self.folder
        )

    def predict(self, *arguments: str) -> Processes:
        return Processes(
            "-m", "effnetv2_jax.predict", *self.imports, *arguments, folder=self.folder
        )

    def load(self, run: Path) -> Processes:
        return Processes("-c", LOAD, str(run), "-", *self._modules, folder=self.folder)


@pytest.mark.slow
@pytest.mark.parametrize("alone", [False, True])
def test_it_goes_through_everything(alone: bool, tmp_path: Path) -> None:
    program = Program(tmp_path, alone=alone)
    run = tmp_path / "run"

    # The plan, with the right number of multiply-accumulates.
    (plan,) = program.main("--mode=plan").finish()
    model = create_model(NAME, num_classes=6, width=WIDTH)
    for size in SIZES:
        places = (size // 4) ** 2
        macs = places * WIDTH * (4 * 4 * 3 + 2 * (5 * 5 + WIDTH)) + WIDTH * 6
        assert complexity(model, height=size, width=size).macs == macs
        assert f"{macs / 1e9:.3g}" in plan
    assert f"{NAME}, 6 classes" in plan

    # Four stages; killed in the second, and resumed to equal bits.
    program.main(f"--workdir={run}").finish()
    lines = metrics(run)
    assert {line["train/image_size"] for line in lines if "train/stage" in line} == set(SIZES)
    killed = program.main(f"--workdir={tmp_path / 'killed'}")
    while killed.run() and last_metrics(tmp_path / "killed")["step"] < 10:
        time.sleep(0.01)
    assert killed.run(), killed.outputs()
    killed.kill()
    program.main(f"--workdir={tmp_path / 'killed'}").finish()
    resumed = metrics(tmp_path / "killed")
    assert resumed[-1]["params_sha256"] == lines[-1]["params_sha256"]
    assert deterministic(resumed) == deterministic(lines)

    # Evaluation, prediction, export, and weights with another number of classes.
    (table,) = program.main("--mode=eval", f"--workdir={run}").finish()
    assert f"{lines[-1]['eval/ema_top1']:.2%}" in table
    picture = str(TESTS / "pictures" / "glass.jpg")
    (predicted,) = program.predict(f"--weights={run}", "--format=json", picture).finish()
    assert len(json.loads(predicted.splitlines()[-1])["predictions"]) == 5
    (loaded,) = program.load(run).finish()
    assert "loaded" in loaded

    # Another run starts from its weights, with a head of its own.
    pictures = tmp_path / "pictures"
    for name in ("glass", "metal", "cardboard"):
        (pictures / name).mkdir(parents=True)
        for copy in range(12):
            content = (TESTS / "pictures" / f"{name}.jpg").read_bytes()
            (pictures / name / f"{copy}.jpg").write_bytes(content)
    (output,) = program.main(
        f"--workdir={tmp_path / 'tuned'}",
        f"--config.init={run}",
        "--config.data.source=folder",
        f"--config.data.path={pictures}",
        "--config.data.eval_split=val",
        "--config.epochs=8",
    ).finish()
    assert "the network is that of the run" in output
    assert "3 classes" in output
    config = json.loads((tmp_path / "tuned" / "config.json").read_text())
    assert (config["model"]["name"], config["model"]["width"]) == (NAME, WIDTH)
    assert metrics(tmp_path / "tuned")[-1]["params_sha256"]

    # Where the family is not imported, its name and what to do are said.
    program.imports = []
    (output,) = program.predict(f"--weights={run}", picture).finish(1)
    assert NAME in output
    assert "mixer_family" in output
    assert "--import" in output
    assert "mixer_family" not in (run / "config.json").read_text()
