"""Evaluation counts every example once."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from effnetv2_jax.config.experiment import EvaluationConfig
from effnetv2_jax.data import open_source
from effnetv2_jax.outputs.predictions import Predictions
from effnetv2_jax.parallel.mesh import make_mesh, put_batch
from effnetv2_jax.train.evaluate import evaluate, examples_of_rows, make_eval_step, summary
from effnetv2_jax.train.state import build_model

pytestmark = pytest.mark.usefixtures("quick_compilation")


def weights(seed: int) -> dict:
    model = build_model(tiny.experiment(), 6)
    images = np.zeros((1, 40, 40, 3), np.float32)
    return jax.jit(model.init, static_argnames="train")(jax.random.key(seed), images, train=False)


@pytest.mark.parametrize("devices", [1, 8])
def test_sums_are_those_of_the_unmasked_examples(devices: int) -> None:
    experiment, variables = tiny.experiment(), weights(0)
    model, mesh = build_model(experiment, 6), make_mesh(jax.devices()[:devices])
    batch = tiny.random_batch(40) | {"mask": np.arange(tiny.BATCH) % 3 != 0}
    found = make_eval_step(model, mesh)({"raw": variables}, put_batch(batch, mesh))

    images = (batch["image"].astype(np.float32) - 128) / 128
    logits = np.asarray(model.apply(variables, images, train=False))
    log_softmax = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    rank = (-logits).argsort(1)
    rows, labels, mask = np.arange(tiny.BATCH), batch["labels"][:, 0], batch["mask"]
    sums = found.found["raw"]
    assert sums.examples == mask.sum()
    assert sums.top1 == (rank[:, 0] == labels)[mask].sum()
    assert sums.top5 == (rank[:, :5] == labels[:, None]).any(1)[mask].sum()
    np.testing.assert_allclose(sums.loss, -log_softmax[rows, labels][mask].sum(), rtol=1e-4)


def test_batch_size_does_not_change_the_result() -> None:
    mesh = make_mesh(jax.devices()[:1])
    results = []
    predictions: list[Predictions] = []
    # 40 examples: the last batch is padded in one case, and there is only one in another.
    for batch_size in (16, 40, 64):
        experiment = tiny.experiment(
            evaluation=EvaluationConfig(image_size=40, batch_size=batch_size)
        )
        model = build_model(experiment, 6)
        eval_step = make_eval_step(model, mesh)
        source = open_source(experiment.data, "eval")
        sets = {"raw": weights(0), "ema": weights(1)}
        results.append(
            evaluate(
                eval_step,
                sets,
                source,
                experiment,
                model.preprocessing,
                mesh,
                predictions=predictions,
            )
        )
    assert results[0]["examples"] == 40
    assert results[0]["unreadable"] == 0
    assert results[0]["raw_loss"] != results[0]["ema_loss"]
    for result in results[1:]:
        assert result == pytest.approx(results[0], rel=1e-5)

    labels = [record.labels for record in map(source.__getitem__, range(40))]
    for each in predictions:
        assert each.index.tolist() == list(range(40))
        assert each.labels.tolist() == [list(own) for own in labels]
        np.testing.assert_array_equal(each.best, predictions[0].best)
        # They are the averaged weights'.
        assert each.right.mean() == pytest.approx(results[0]["ema_top1"])
        assert each.loss.mean() == pytest.approx(results[0]["ema_loss"], rel=1e-5)
        assert -np.log(each.own_probability) == pytest.approx(each.loss, rel=1e-3)


def test_an_unreadable_picture_is_left_out_and_counted(tmp_path) -> None:  # type: ignore[no-untyped-def]
    source = open_source(tiny.experiment().data, "eval")
    for index in range(12):
        record = source[index]
        folder = tmp_path / "val" / source.class_names[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.jpg").write_bytes(b"no picture" if index == 5 else record.encoded)
        other = tmp_path / "train" / source.class_names[index % 2]
        other.mkdir(parents=True, exist_ok=True)
        (other / f"{index}.jpg").write_bytes(record.encoded)
    data = dataclasses.replace(
        tiny.experiment().data, source="folder", path=str(tmp_path), eval_split="val"
    )
    experiment = tiny.experiment(data=data)
    mesh = make_mesh(jax.devices()[:1])
    model = build_model(experiment, 6)
    eval_step = make_eval_step(model, mesh)
    predictions: list[Predictions] = []
    result = evaluate(
        eval_step,
        {"raw": weights(0)},
        open_source(data, "eval"),
        experiment,
        model.preprocessing,
        mesh,
        predictions=predictions,
    )
    assert (result["examples"], result["unreadable"]) == (11, 1)
    (index,) = {*range(12)} - {*predictions[0].index.tolist()}
    assert open_source(data, "eval")[index].encoded == b"no picture"
    assert summary(result).startswith("11 of 12 images | 1 unreadable | raw top-1 ")


def test_examples_are_found_where_a_process_has_devices_apart() -> None:
    @dataclasses.dataclass(frozen=True)
    class Device:
        process_index: int

    owners = [0, 1, 0, 1]
    found = examples_of_rows([Device(owner) for owner in owners], 8)
    # Of process 0 the examples 0 to 3, of which each of its devices has two rows.
    assert found.tolist() == [0, 1, 4, 5, 2, 3, 6, 7]
