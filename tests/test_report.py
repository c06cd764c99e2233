"""A run's report says what its predictions say, whatever its classes are called."""

import csv
import dataclasses
import html
import json
import pathlib
import re
from typing import Any

import numpy as np
import pytest
import tiny
from etils import epath
from sklearn import metrics as sklearn_metrics

from effnetv2_jax import report
from effnetv2_jax.config.experiment import LogConfig
from effnetv2_jax.data.inspection import Inspection, inspect, twins
from effnetv2_jax.outputs.predictions import (
    PREDICTIONS,
    Predictions,
    read_predictions,
    write_predictions,
)
from effnetv2_jax.outputs.report.accuracy import (
    calibration,
    class_rows,
    confusions,
    interval,
    worth_a_look,
)
from effnetv2_jax.outputs.report.facts import (
    Facts,
    Picture,
    PlannedRow,
    Seen,
    Split,
    Thumbnail,
    Twins,
    read_facts,
    write_facts,
)
from effnetv2_jax.outputs.report.gather import read_run_files
from effnetv2_jax.outputs.report.page import write_comparison, write_report
from effnetv2_jax.outputs.workdir import open_workdir
from effnetv2_jax.outputs.writers import Writers
from effnetv2_jax.preprocessing import squashed
from effnetv2_jax.train.seen import COUNT, closed_rows

PIXEL = "data:image/jpeg;base64,AAAA"
HOSTILE = ('<script>alert("1")</script>', "a|b", "c, d", 'says "e"')


def predictions(classes: int, count: int, *, seed: int = 0) -> Predictions:
    """Of a network that is right about as often as it is sure."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count).astype(np.int32)
    share = rng.uniform(1 / classes, 1, count).astype(np.float32)
    right = rng.random(count) < share
    other = (labels + rng.integers(1, classes, count)) % classes
    best = np.where(right, labels, other)
    own = np.where(right, share, (1 - share) / classes)
    return Predictions(
        index=np.arange(count),
        labels=labels[:, None],
        best=np.stack([best, (best + 1) % classes], 1).astype(np.int32),
        probability=np.stack([share, (1 - share) / 2], 1),
        own_probability=own,
        loss=-np.log(own + 1e-6),
    )


def facts(classes: int, count: int, found: Predictions) -> Facts:
    highest, least = worth_a_look(found, 24)
    return Facts(
        step=8,
        plan=[
            PlannedRow(
                first_step=4 * stage,
                end_step=4 * stage + 4,
                image_size=32 + 8 * stage,
                batch_size=16,
                epoch=stage / 2,
                values={"dropout_rate": 0.1 + stage, "mixup_alpha": 0.0},
            )
            for stage in (0, 1)
        ],
        epochs=1.0,
        judged_by="ema",
        device="cpu",
        splits={
            "training": Split(name="train", examples=64, available=64, class_counts=[16] * classes),
            "evaluation": Split(
                name="test", examples=count, available=count, sizes=[[30, 20], [40, 20]]
            ),
        },
        notes=["a note of the start"],
        twins=Twins(pairs=[["test/1.jpg", "train/1.jpg"]], count=1),
        seen=[Seen(stage=0, step=0, pictures=[Picture(source=PIXEL, text="one 70%, two 30%")])],
        thumbnails={
            int(found.index[row]): Thumbnail(source=PIXEL, link="") for row in [*highest, *least]
        },
    )


def make_run(
    workdir: pathlib.Path, names: tuple[str, ...], *, count: int = 200, seed: int = 0
) -> Predictions:
    """A run's workdir as training leaves it, without checkpoints."""
    found = predictions(len(names), count, seed=seed)
    config = dataclasses.asdict(tiny.experiment(seed=seed).settled())
    open_workdir(workdir, config, names, squashed(40))
    with Writers(workdir, LogConfig(tensorboard=False), step=0, epoch_of=lambda s: s / 8) as log:
        log.event("start", step=0, config_file="mine.py", changed=["epochs: 9 -> 1"], python="3")
        for step in range(1, 9):
            row = {"loss": 2 / step, "top1": step / 10, "learning_rate": 0.1, "stage": step // 5}
            log.write(step, "train", row | {"image_size": 32, "images_per_second": 100.0})
            if step in (4, 8):
                top1 = float(found.right.mean()) * step / 8
                result = {"raw_top1": 0.25, "ema_top1": top1, "raw_loss": 2.0, "ema_loss": 1.0}
                notes = {"params_sha256": "0"} if step == 8 else {}
                spent = {"training": 30.0, "compiling": 10.0, "total": 40.0}
                log.write(step, "eval", result | {"examples": count}, spent=spent, **notes)
        log.event("loss_spike", step=3, message=f"{HOSTILE[0]} spiked")
    files = [f"{workdir}/test/{names[label]}/{row}.jpg" for row, label in enumerate(found.label)]
    write_predictions(epath.Path(workdir) / PREDICTIONS, found, files, names)
    write_facts(epath.Path(workdir), facts(len(names), count, found))
    return found


def test_classes_are_counted_as_scikit_learn_does() -> None:
    found = predictions(7, 500)
    names = [f"class {label}" for label in range(9)]  # Two of them have no pictures.
    cells = confusions(found, 9)
    matrix = np.zeros((9, 9), int)
    for cell in cells:
        matrix[cell.label, cell.predicted] = cell.pictures
    truth, best = found.labels[:, 0], found.best[:, 0]
    expected = sklearn_metrics.confusion_matrix(truth, best, labels=range(9))
    np.testing.assert_array_equal(matrix, expected)
    columns = sklearn_metrics.precision_recall_fscore_support(
        truth, best, labels=range(9), zero_division=0
    )
    rows = class_rows(cells, names)
    for name, column in zip(("precision", "recall", "f1", "support"), columns, strict=True):
        np.testing.assert_allclose([getattr(row, name) for row in rows], column)
    np.fill_diagonal(expected, 0)
    for row, wrong in zip(rows, expected):
        if row.mistaken_for:
            assert wrong[names.index(row.mistaken_for)] == wrong.max()
        else:
            assert not wrong.any()


def test_of_several_labels_the_predicted_one_counts() -> None:
    found = dataclasses.replace(
        predictions(3, 3),
        labels=np.array([[0, 2], [1, -1], [0, 1]], np.int32),
        best=np.array([[2, 0], [0, 1], [2, 0]], np.int32),
    )
    assert found.right.tolist() == [True, False, False]
    assert found.label.tolist() == [2, 1, 0]


# 0.5 of 100 and 10 of 10, by the formula that Newcombe (1998) gives, and its limits.
@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [(50, 100, 0.4038, 0.5962), (10, 10, 0.7225, 1.0), (0, 10, 0.0, 0.2775), (0, 0, 0.0, 1.0)],
)
def test_interval_is_wilsons(right: int, count: int, low: float, high: float) -> None:
    assert interval(right, count) == pytest.approx((low, high), abs=1e-4)


def test_calibration_compares_probability_with_accuracy() -> None:
    found = predictions(4, 2000)
    shown = calibration(found, bins=10)
    error = 0.0
    for each in shown.bins:
        inside = (found.probability[:, 0] >= each.low) & (found.probability[:, 0] < each.high)
        assert each.pictures == inside.sum()
        assert each.accuracy == pytest.approx(
            sklearn_metrics.accuracy_score(found.labels[inside, 0], found.best[inside, 0])
        )
        gap = each.probability - each.accuracy
        error += abs(gap) * each.pictures / len(found)
    assert shown.error == pytest.approx(error)
    assert shown.error < 0.06  # It is right about as often as it is sure.
    sure = dataclasses.replace(found, probability=np.ones_like(found.probability))
    assert calibration(sure).error == pytest.approx(1 - found.right.mean())


def test_predictions_come_back_from_their_file(tmp_path: pathlib.Path) -> None:
    found = predictions(4, 50)
    labels = np.concatenate([found.labels, np.full((50, 1), -1, np.int32)], 1)
    labels[7] = [2, 3]
    found = dataclasses.replace(found, labels=labels)
    path = epath.Path(tmp_path / PREDICTIONS)
    files = [f'{row},"x"\n.jpg' for row in range(50)]
    write_predictions(path, found, files, HOSTILE)
    read = read_predictions(path, HOSTILE)
    assert read is not None
    assert read[1] == files
    for field in dataclasses.fields(Predictions):
        np.testing.assert_allclose(
            getattr(read[0], field.name), getattr(found, field.name), rtol=1e-5, err_msg=field.name
        )
    rows = list(csv.DictReader(path.read_text().splitlines(keepends=True)))
    assert rows[7]["class"] == f"{HOSTILE[2]}\n{HOSTILE[3]}"
    with pytest.raises(ValueError, match="none of the run's"):
        read_predictions(path, ("other",) * 4)
    assert read_predictions(path.with_name("absent.csv"), HOSTILE) is None


def text_of(page: str, name: str) -> str:
    """What the element of an id says."""
    match = re.search(rf'id="{name}"[^>]*>(.*?)</', page, re.DOTALL)
    assert match is not None, name
    return html.unescape(match[1]).strip()


def table_of(page: str, name: str) -> list[list[str]]:
    """The cells of a table's rows, by its id."""
    body = page.split(f'id="{name}"')[1].split("<tbody>")[1].split("</tbody>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL) for row in rows]
    return [[html.unescape(re.sub(r"<[^>]*>", "", cell)) for cell in row] for row in cells]


def test_page_holds_what_the_predictions_say(tmp_path: pathlib.Path) -> None:
    found = make_run(tmp_path / "run", HOSTILE)
    page = write_report(tmp_path / "run").read_text()
    truth, best = found.labels[:, 0], found.best[:, 0]

    accuracy = sklearn_metrics.accuracy_score(truth, best)
    assert text_of(page, "accuracy") == f"{accuracy:.1%}"
    low, high = interval(int(found.right.sum()), 200)
    assert text_of(page, "interval") == f"{low:.1%} to {high:.1%}"
    matrix = sklearn_metrics.confusion_matrix(truth, best)
    shown = [[int(cell) for cell in row[1:]] for row in table_of(page, "matrix")]
    np.testing.assert_array_equal(shown, matrix)
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(truth, best)
    by_name = {row[0]: row[1:] for row in table_of(page, "by-class")}
    for label, name in enumerate(HOSTILE):
        shares = [f"{column[label]:.1%}" for column in (precision, recall, f1)]
        assert by_name[name][:4] == [*shares, str(support[label])]
    assert text_of(page, "mean-f1") == f"{f1.mean():.1%}"
    np.fill_diagonal(matrix, 0)
    assert int(table_of(page, "confusions")[0][2]) == matrix.max()
    assert text_of(page, "calibration-error") == f"{calibration(found).error:.1%}"
    assert ["compiling", "0:00:10", "25.0%"] in table_of(page, "shares")
    # Each of the nine parts has something of its own.
    for part in (
        "always guessing the largest class",
        "python -m effnetv2_jax.predict",
        "a note of the start",
        "test/1.jpg = train/1.jpg",
        "learning rate",
        "30 to 40 (median 35)",
        "one 70%, two 30%",
        "Highest loss",
        "expected calibration error",
        "epochs: 9 -&gt; 1",
        "loss_spike",
    ):
        assert part in page, part
    assert "<script>alert" not in page
    assert html.escape(HOSTILE[0], quote=False) in page.replace("&#34;", '"')
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page), "it needs the network"


def test_text_holds_the_same_in_short(tmp_path: pathlib.Path) -> None:
    found = make_run(tmp_path / "run", HOSTILE)
    write_report(tmp_path / "run")
    text = (tmp_path / "run" / "report.md").read_text()
    assert f"**{found.right.mean():.1%}** of 200 held-out pictures" in text
    assert "| a\\|b |" in text
    assert "\\<script\\>" in text


def test_many_classes_show_their_largest_confusions(tmp_path: pathlib.Path) -> None:
    names = tuple(f"class {label}" for label in range(100))
    found = make_run(tmp_path / "run", names, count=2000)
    page = write_report(tmp_path / "run").read_text()
    assert 'id="matrix"' not in page
    rows = table_of(page, "confusions")
    expected = sklearn_metrics.confusion_matrix(found.labels[:, 0], found.best[:, 0])
    np.fill_diagonal(expected, 0)
    assert [int(row[2]) for row in rows] == sorted(expected.ravel().tolist())[:-41:-1]
    assert len(table_of(page, "by-class")) == 100


@pytest.mark.slow
def test_page_stays_small_at_the_size_of_imagenet(tmp_path: pathlib.Path) -> None:
    names = tuple(f"n{label:08} a rather long name of a class" for label in range(1000))
    make_run(tmp_path / "run", names, count=50_000)
    assert len(write_report(tmp_path / "run").read_bytes()) < 5e6


def test_a_run_of_an_earlier_version_has_a_page(tmp_path: pathlib.Path) -> None:
    """Its rows have neither time nor epoch, and nothing else lies beside them."""
    config = dataclasses.asdict(tiny.experiment().settled())
    open_workdir(tmp_path, config, ("a", "b"), squashed(40))
    rows: list[dict[str, Any]] = [
        {"step": 1, "train/loss": 2.0, "train/stage": 0},
        {"step": 1, "eval/raw_top1": 0.5, "eval/raw_loss": None, "eval/examples": 10.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    page = write_report(tmp_path).read_text()
    assert text_of(page, "accuracy") == "50.0%"
    assert "There are no predictions yet." in page


def test_a_page_before_the_first_evaluation(tmp_path: pathlib.Path) -> None:
    config = dataclasses.asdict(tiny.experiment().settled())
    open_workdir(tmp_path, config, ("a", "b"), squashed(40))
    assert "There is no evaluation yet." in write_report(tmp_path).read_text()


def test_time_leaves_out_pauses_and_adds_up_starts(tmp_path: pathlib.Path) -> None:
    config = dataclasses.asdict(tiny.experiment().settled())
    open_workdir(tmp_path, config, ("a", "b"), squashed(40))
    starts = ("2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00")
    events = [{"event": "start", "step": 0, "time": time} for time in starts]
    rows = [
        {"step": 1, "time": "2026-01-01T00:00:10+00:00", "train/loss": 1.0},
        {"step": 2, "time": "2026-01-01T00:00:30+00:00", "eval/raw_top1": 0.5},
        {"step": 3, "time": "2026-01-02T00:00:05+00:00", "train/loss": 1.0},
        {"step": 4, "time": "2026-01-02T00:00:09+00:00", "eval/raw_top1": 0.75},
    ]
    spent = ({"training": 20.0, "total": 30.0}, {"training": 5.0, "saving": 40.0, "total": 45.0})
    rows[1]["spent"], rows[3]["spent"] = spent
    for name, lines in (("metrics.jsonl", rows), ("events.jsonl", events)):
        (tmp_path / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    run = read_run_files(tmp_path)
    assert run.seconds_at() == [(1, 10.0), (2, 30.0), (3, 35.0), (4, 39.0)]
    assert run.spent == {"training": 25.0, "saving": 40.0, "total": 75.0}
    assert run.best is not None
    assert run.best["step"] == 4


def test_runs_stand_side_by_side(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [tmp_path / "a", tmp_path / "b"]
    found = [make_run(run, HOSTILE, seed=seed) for seed, run in enumerate(runs)]
    output = tmp_path / "both.html"
    assert report.main([*map(str, runs), f"--output={output}"]) == 0
    page = output.read_text()
    rows = table_of(page, "verdicts")
    assert [row[1] for row in rows] == [f"{each.right.mean():.1%}" for each in found]
    assert "seed: 0 -&gt; 1" in page
    assert capsys.readouterr().out.splitlines() == [
        *(str(run / "report.html") for run in runs),
        str(output),
    ]
    assert report.main([str(tmp_path / "none")]) == 1
    assert "is missing" in capsys.readouterr().err
    write_comparison(runs, [], epath.Path(output))
    assert "In no field of their configs." in output.read_text()


def test_facts_come_back_and_those_of_another_version_do_not(tmp_path: pathlib.Path) -> None:
    workdir = epath.Path(tmp_path)
    assert read_facts(workdir) is None
    written = facts(4, 10, predictions(4, 10))
    write_facts(workdir, written)
    assert read_facts(workdir) == written
    (tmp_path / "report.json").write_text('{"step": 1}')
    assert read_facts(workdir) is None


def test_reports_lie_in_a_bucket_too(remote: epath.Path) -> None:
    found = predictions(4, 20)
    config = dataclasses.asdict(tiny.experiment().settled())
    open_workdir(remote, config, HOSTILE, squashed(40))
    write_predictions(remote / PREDICTIONS, found, [str(row) for row in range(20)], HOSTILE)
    write_facts(remote, facts(4, 20, found))
    assert "Highest loss" in write_report(remote).read_text()


@pytest.mark.parametrize(
    ("batch", "group"), [(16, None), (4096, None), (64, 8), (13, None), (6, 3), (12, 12)]
)
def test_rows_that_are_shown_have_each_other_as_partners(batch: int, group: int | None) -> None:
    rows = closed_rows(batch, group)
    size = group or batch
    assert {size - 1 - row for row in rows} == set(rows)
    assert min(size, COUNT - 1) <= len(rows) <= COUNT or size < COUNT


class Pictures:
    """A source of bytes that are no pictures, some of which cannot be read."""

    name, exif, class_names, fingerprint = "pictures", False, ("a", "b"), ""

    def __init__(self, *content: bytes | None) -> None:
        self._content = content

    def __len__(self) -> int:
        return len(self._content)

    def __getitem__(self, index: int) -> Any:
        from effnetv2_jax.data.record import DecodeError, Record

        encoded = self._content[index]
        if encoded is None:
            raise DecodeError("it is damaged")
        return Record(f"file {index}", encoded, (index % 2,))


def test_pictures_of_both_splits_are_found() -> None:
    train, evaluation = Pictures(b"1", b"2", None), Pictures(b"3", b"2")
    found = inspect(train), inspect(evaluation)
    assert twins(*found) == [("file 1", "file 1")]
    assert found[0].class_counts == [1, 1]
    assert found[0].keys == ["file 0", "file 1", "pictures example 2"]
    late = inspect(train, clock=iter([0.0, 1.0, 100.0]).__next__)
    assert late.keys is None
    assert twins(late, found[1]) is None
    assert isinstance(late, Inspection)
