"""Runs on each source of one's own: trained, killed, resumed, evaluated; labels, and balance."""

import dataclasses
import io
import json
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from chaos.runs import deterministic, events, last_metrics, launch, metrics
from sklearn.metrics import average_precision_score

from effnetv2_jax import api
from effnetv2_jax.cli.plan import describe
from effnetv2_jax.config.experiment import (
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    Experiment,
)
from effnetv2_jax.data import open_source
from effnetv2_jax.predict import main as predict_main
from effnetv2_jax.predict import predict
from effnetv2_jax.train.evaluate_weights import evaluate_run, results_table
from effnetv2_jax.train.loop import train
from effnetv2_jax.weights.pretrained import load_pretrained

STEPS = 12
COUNT = 60
"""Pictures of the embedded set, as files."""
pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures, with tables that give them one label, and several."""
    root = tmp_path_factory.mktemp("pictures")
    source = open_source(DataConfig(train_split=f"train[:{COUNT}]"), "train")
    single, several = ["path,label"], ["path,labels"]
    for n in range(COUNT):
        record = source[n]
        (root / f"{n}.jpg").write_bytes(record.encoded)
        # Five of one class for one of the other.
        single.append(f"{n}.jpg,{'rare' if n % 6 == 0 else 'frequent'}")
        tags = [name for name, of in (("a", 2), ("b", 3), ("c", 5)) if n % of == 0]
        several.append(f"{n}.jpg,{';'.join(tags)}")
    (root / "single.csv").write_text("\n".join(single))
    (root / "several.csv").write_text("\n".join(several))
    return root


def experiment(data: dict[str, Any], **fields: Any) -> Experiment:
    own = tiny.experiment().data
    run = tiny.experiment(
        data=dataclasses.replace(own, train_split="train", eval_split="val", **data),
        checkpoint=CheckpointConfig(every_steps=4),
        evaluation=EvaluationConfig(image_size=40, batch_size=16, every_epochs=100.0),
    )
    run = dataclasses.replace(run, **fields)
    examples = len(open_source(run.data, "train"))
    return dataclasses.replace(run, epochs=STEPS * tiny.BATCH / examples)


def kill_at(step: int, run: Experiment, workdir: Path, **options: Any) -> None:
    started = launch(run, workdir, **options)
    while started.run() and last_metrics(workdir)["step"] < step:
        time.sleep(0.002)
    assert started.run(), started.outputs()
    started.kill()


@pytest.mark.parametrize(
    "processes",
    [pytest.param(1, marks=pytest.mark.long), pytest.param(2, marks=pytest.mark.slow)],
)
def test_balanced_sampling_survives_kills_with_the_same_bits(
    pictures: Path, tmp_path: Path, processes: int
) -> None:
    data = {"source": "csv", "path": str(pictures / "single.csv"), "sampling": "balanced"}
    run = experiment(data, class_weights=(("rare", 2.0),))
    assert "balanced sampling: each of 2 classes gets the same share" in describe(run)
    options: dict[str, Any] = {"processes": processes, "devices": 2}
    launch(run, tmp_path / "undisturbed", **options).finish()
    for step in (3, STEPS - 4):
        kill_at(step, run, tmp_path / "killed", **options)
    launch(run, tmp_path / "killed", **options).finish()
    expected, found = metrics(tmp_path / "undisturbed"), metrics(tmp_path / "killed")
    assert deterministic(found) == deterministic(expected)
    assert found[-1]["params_sha256"] == expected[-1]["params_sha256"]
    (said, _) = events(tmp_path / "killed", "start")[-1]["balance"]
    assert said.startswith("balanced sampling: each of 2 classes")
    first = expected[0]
    assert first["train/weighted_loss"] > first["train/loss"] > 0


def several(pictures: Path, **fields: Any) -> Experiment:
    data = {
        "source": "csv",
        "path": str(pictures / "several.csv"),
        "label_separator": ";",
        "max_labels": 3,
        "validation_share": 0.4,
    }
    evaluation = EvaluationConfig(
        image_size=40, batch_size=16, every_epochs=100.0, metric="average_precision"
    )
    return experiment(data, evaluation=evaluation, loss="sigmoid", **fields)


@pytest.mark.slow
def test_several_labels_from_training_to_prediction(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = several(pictures, balanced_loss=True)
    plan = describe(run)
    assert "sigmoid loss, up to 3 labels an example" in plan
    assert "class weights (balanced, (N - n) / n)" in plan
    assert "by the mean over the classes of average precision" in plan
    result = train(run, tmp_path / "run")
    (best,) = {result["map"], result["ema_map"]}
    assert not [name for name in result if "top" in name]

    source = open_source(run.data, "eval")
    assert len(source) % 16  # The last batch is padded.
    assert result["examples"] == len(source)
    model, variables = load_pretrained(None, str(tmp_path / "run"))
    names = [str(pictures / path) for path in source.paths]  # type: ignore[attr-defined]
    found = list(predict(model, variables, names, threshold=0.0))
    scores = np.array(
        [[p for _, p in sorted((g.label, g.probability) for g in each.guesses)] for each in found]
    )
    truth = np.array([[k in source[n].labels for k in range(3)] for n in range(len(source))])
    assert best == pytest.approx(average_precision_score(truth, scores, average="macro"), abs=1e-6)

    table = results_table(evaluate_run(run, tmp_path / "run", report=lambda _: None))
    assert "mAP" in table
    assert "top-1" not in table
    assert f"{best:.2%}" in table
    status = predict_main([f"--weights={tmp_path / 'run'}@best", "--format=json", names[0]])
    printed = capsys.readouterr()
    assert status == 0
    shown = json.loads(printed.out)["predictions"]
    likely = [g for g in found[0].guesses if g.probability >= 0.5]
    assert [g["name"] for g in shown] == [g.name for g in likely]
    assert "several labels: classes with a probability of 0.5 or more" in printed.err
    (of_api,) = api.predict(tmp_path / "run", names[0])
    assert [guess.name for guess in of_api.guesses] == [g.name for g in likely]


@pytest.mark.slow
def test_average_precision_is_the_same_on_two_processes(pictures: Path, tmp_path: Path) -> None:
    found = []
    for processes in (1, 2):
        workdir = tmp_path / str(processes)
        variables = {"JAX_ENABLE_X64": "1"}
        run = several(pictures, model=dataclasses.replace(tiny.MODEL, dtype="float64"))
        launch(run, workdir, processes=processes, devices=2, variables=variables).finish()
        found.append(metrics(workdir)[-1])
    assert found[0]["eval/raw_map"] == pytest.approx(found[1]["eval/raw_map"], abs=1e-9)
    assert found[0]["eval/examples"] == found[1]["eval/examples"]


def as_tar(pictures: Path, folder: Path) -> dict[str, Any]:
    rows = (pictures / "single.csv").read_text().splitlines()[1:]
    with tarfile.open(folder / "all.tar", "w") as archive:
        for row in rows:
            name, label = row.split(",")
            archive.add(pictures / name, name)
            member = tarfile.TarInfo(name.replace(".jpg", ".cls"))
            member.size = len(label)
            archive.addfile(member, io.BytesIO(label.encode()))
    return {"source": "webdataset", "path": str(folder / "all.tar")}


def as_parquet(pictures: Path, folder: Path) -> dict[str, Any]:
    pa = pytest.importorskip("pyarrow", reason="reads Parquet files")
    import pyarrow.parquet

    rows = [row.split(",") for row in (pictures / "single.csv").read_text().splitlines()[1:]]
    images = [{"bytes": (pictures / name).read_bytes(), "path": name} for name, _ in rows]
    table = pa.table({"image": images, "label": [label for _, label in rows]})
    pyarrow.parquet.write_table(table, folder / "pictures.parquet", row_group_size=8)
    return {"source": "huggingface", "path": str(folder)}


@pytest.mark.slow
@pytest.mark.parametrize("make", [as_tar, as_parquet])
def test_other_sources_train_resume_and_evaluate(
    pictures: Path, tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    # Processes that decode get the source, too.
    run = experiment(make(pictures, tmp_path / "data") | {"processes": 2}, balanced_loss=True)
    launch(run, tmp_path / "undisturbed").finish()
    kill_at(5, run, tmp_path / "killed")
    launch(run, tmp_path / "killed").finish()
    expected, found = metrics(tmp_path / "undisturbed"), metrics(tmp_path / "killed")
    assert deterministic(found) == deterministic(expected)
    last = found[-1]
    assert last["params_sha256"] == expected[-1]["params_sha256"]
    assert last["eval/examples"] + len(open_source(run.data, "train")) == COUNT
    (again,) = evaluate_run(run, tmp_path / "killed", report=lambda _: None).values()
    assert again["examples"] == last["eval/examples"]
    assert again["ema_loss"] == pytest.approx(last["eval/ema_loss"], rel=1e-3)
