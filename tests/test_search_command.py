"""The command of a search: what is asked for, what a plan says, and what becomes of the winner."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import searches
from etils import epath

from effnetv2_jax import search as program
from effnetv2_jax.cli.command_line import Command, parse
from effnetv2_jax.cli.errors import CommandError
from effnetv2_jax.cli.overrides import Override
from effnetv2_jax.cli.search_command import SearchCommand, parse_search
from effnetv2_jax.cli.search_plan import describe_space, describe_winner
from effnetv2_jax.cli.winner import with_winner
from effnetv2_jax.config.errors import ConfigError
from effnetv2_jax.models.efficientnet.variants import StageSpec
from effnetv2_jax.nas import choice
from effnetv2_jax.nas import run as nas_run
from effnetv2_jax.nas.architecture import canonical
from effnetv2_jax.nas.candidate import with_settings
from effnetv2_jax.nas.finals import agreement
from effnetv2_jax.nas.optuna_copy import FILE
from effnetv2_jax.nas.rank import kendall
from effnetv2_jax.nas.records import Proposal, Result
from effnetv2_jax.nas.space import size
from effnetv2_jax.nas.winner import row
from effnetv2_jax.outputs.workdir import FoundRun, WorkdirError, find_run, open_workdir
from effnetv2_jax.preprocessing import squashed

ROOT = Path(__file__).parent.parent
QUICKSTART = "--config=configs/search_quickstart.py"


def parsed(*arguments: str) -> SearchCommand:
    command = parse_search(["search", *arguments])
    assert isinstance(command, SearchCommand)
    return command


def test_fields_of_the_experiment_and_of_the_search() -> None:
    command = parsed(
        QUICKSTART,
        "--workdir=STUDY",
        "--config.epochs=3",
        "--config.optimizer.learning_rate",
        "0.5",
        "--search.trials=7",
        "--search.lag=none",
        "--search.sampler=random",
    )
    search = command.search
    assert (search.experiment.epochs, search.experiment.optimizer.learning_rate) == (3.0, 0.5)
    assert (search.trials, search.lag, search.sampler) == (7, None, "random")
    assert (command.mode, command.workdir) == ("search", "STUDY")
    assert size(search.space) == 24**6


def test_any_config_can_be_swept() -> None:
    command = parsed(
        "--config=configs/quickstart.py",
        "--workdir=SWEEP",
        "--choices.optimizer.learning_rate=0.05,.1,2e-1",
        "--choices.augment.policy=randaugment,none",
        "--choices.ema_decay=(None, 0.99)",
    )
    assert command.search.space == (
        choice("optimizer.learning_rate", 0.05, 0.1, 0.2),
        choice("augment.policy", "randaugment", "none"),
        choice("ema_decay", None, 0.99),
    )


def test_a_choice_takes_the_place_of_the_files() -> None:
    command = parsed(QUICKSTART, "--workdir=S", "--choices.model.stages[0].kernel=3,5,7")
    kernels = [c for c in command.search.space if c.name == "model.stages[0].kernel"]
    assert kernels == [choice("model.stages[0].kernel", 3, 5, 7)]
    assert len(command.search.space) == 24


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--config=FILE is needed"),
        ((QUICKSTART,), "--workdir=STUDY is needed"),
        ((QUICKSTART, "--mode=train"), "--mode must be search or plan"),
        ((QUICKSTART, "--workdir=S", "--search.trails=7"), "did you mean 'trials'"),
        ((QUICKSTART, "--workdir=S", "--search.trials=many"), "search.trials must be a whole"),
        ((QUICKSTART, "--workdir=S", "--search.sampler=best"), "must be one of auto, random"),
        ((QUICKSTART, "--workdir=S", "--trials=7"), "did you mean --search.trials"),
        ((QUICKSTART, "--workdir"), "--workdir lacks its value"),
        ((QUICKSTART, "run"), "unexpected argument 'run'"),
        ((QUICKSTART + ":fast", "--workdir=S"), "unknown argument 'fast'; known: smoke"),
    ],
)
def test_command_lines_that_make_no_sense(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        parse_search(["search", *arguments])


def test_choices_that_lead_nowhere() -> None:
    with pytest.raises(CommandError, match="did you mean 'learning_rate'"):
        parsed(
            "--config=configs/quickstart.py", "--workdir=S", "--choices.optimizer.lerning_rate=1,2"
        )
    with pytest.raises(ConfigError, match=r"search\.space has no choices"):
        parsed("--config=configs/quickstart.py", "--workdir=S")


def test_another_program_runs_a_search() -> None:
    with pytest.raises(CommandError, match=r"is a search: python -m effnetv2_jax\.search"):
        parse(["main", QUICKSTART, "--mode=plan"])


def test_a_search_without_optuna(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert program.run(parsed(QUICKSTART, "--workdir=S")) == 2
    assert "pip install 'effnetv2_jax[search]'" in capsys.readouterr().err


def test_help_has_every_field() -> None:
    text = parse_search(["search", "--help"], description="What it is.")
    assert isinstance(text, str)
    for field in dataclasses.fields(searches.search()):
        if field.name not in ("experiment", "space", "imports"):
            assert f"  {field.name} = " in text
    assert "--choices.FIELD=A,B,C" in text


def test_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["search", QUICKSTART, "--mode=plan", "--search.finals=2"]
    assert program.main(command) == 0
    said = capsys.readouterr().out
    assert "191,102,976 candidates, of which 12 run" in said
    assert "model.stages[...].kernel of 6 rows" in said
    assert "504" in said
    assert "Finals: the best 2, 3 times each with other seeds" in said
    assert "How long a trial takes shows when one has run" in said
    searches.run(searches.search(trials=5), tmp_path / "s", searches.Inline(_in_ten_seconds))
    assert program.main([*command, f"--workdir={tmp_path / 's'}"]) == 0
    said = capsys.readouterr().out
    assert "The 5 trials that were scored took 0:00:10 each; the other 7 take" in said
    assert "0:01:10 with 1 worker\n" in said
    assert "0:00:35 with 2 workers\n" in said


def _in_ten_seconds(proposal: Proposal) -> Result:
    return dataclasses.replace(searches.result(proposal), seconds=10.0)


def test_the_space_in_few_lines() -> None:
    lines = describe_space(searches.search(trials=7)).splitlines()
    assert lines[-1] == "1,296 candidates, of which 7 run"
    assert len(lines) == 6


class Settled(searches.Inline):
    """Finals whose order is not that of the search."""

    def __init__(self) -> None:
        super().__init__(self.scored)

    @staticmethod
    def scored(proposal: Proposal) -> Result:
        if not proposal.settings:
            return searches.result(proposal)
        seed = int(proposal.settings["seed"])
        return searches.result(proposal, 1 / (2 + proposal.number) + seed / 100)


def test_a_whole_search(tmp_path: Path) -> None:
    import optuna

    search = searches.search(trials=14, finals=3, finals_seeds=2, finals_epochs=2.0)
    study, said = tmp_path / "study", []  # type: ignore[var-annotated]
    best = nas_run.run_search(search, study, Settled(), report=said.append)
    assert best is not None
    finals = sorted(path.name for path in (study / "finals").iterdir())
    epochs = search.experiment.epochs * 2
    numbers = sorted({int(name[:4]) for name in finals})
    assert finals == [f"{n:04d}_epochs{epochs:g}_seed{seed}" for n in numbers for seed in (0, 1)]
    assert best.number == numbers[0], "the reward of finals falls with the number"
    winner = json.loads((study / "best.json").read_text())
    assert winner["workdir"] == f"finals/{numbers[0]:04d}_epochs{epochs:g}_seed1"
    assert winner["finals"]["rewards"] == pytest.approx(
        [1 / (2 + numbers[0]) + seed / 100 for seed in (0, 1)]
    )
    assert any("Kendall's tau between the search and the finals" in line for line in said)
    copy = optuna.load_study(study_name="search", storage=f"sqlite:///{study / FILE}")
    assert len(copy.trials) == 14 + sum("duplicate_of" in t.user_attrs for t in copy.trials)
    assert copy.best_trial.user_attrs["accuracy"] == copy.best_value
    # The same command finds nothing to do, and more trials add to the copy.
    idle = Settled()
    assert nas_run.run_search(search, study, idle, report=said.append) == best
    assert not idle.trained
    more = dataclasses.replace(search, trials=16, finals=0)
    nas_run.run_search(more, study, Settled(), report=said.append)
    assert len(optuna.load_study(study_name="search", storage=copy._storage).trials) >= 16


def test_a_best_that_was_not_written_is_written_later(tmp_path: Path) -> None:
    search, study = searches.search(trials=8), tmp_path / "study"
    best = nas_run.run_search(search, study, searches.Inline(), report=print)
    assert best is not None
    # As a coordinator leaves it that is killed when the best has just ended.
    content = json.loads((study / "best.json").read_text())
    (study / "best.json").write_text(json.dumps(content | {"trial": best.number + 1}))
    nas_run.run_search(search, study, searches.Inline(), report=print)
    assert json.loads((study / "best.json").read_text()) == content


def test_a_copy_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    said: list[str] = []
    search = searches.search(trials=2)
    nas_run.open_study(search, epath.Path(tmp_path / "study"), workers=4)
    (tmp_path / "study" / FILE).mkdir()
    best = nas_run.run_search(search, tmp_path / "study", searches.Inline(), report=said.append)
    assert best is not None
    assert any("was not written" in line for line in said)


def test_one_search_at_a_time(tmp_path: Path) -> None:
    search = searches.search(trials=2)

    def again(_: object) -> None:
        nas_run.run_search(search, tmp_path, searches.Inline(), report=print)

    with pytest.raises(WorkdirError, match="in use"):
        nas_run.run_search(search, tmp_path, searches.Inline(), report=print, show=again)


def test_kendall() -> None:
    from scipy.stats import kendalltau

    one, other = [1.0, 2.0, 2.0, 3.0, 5.0, 4.0], [2.0, 1.0, 4.0, 4.0, 6.0, 5.0]
    assert kendall(one, other) == pytest.approx(kendalltau(one, other).statistic)
    assert kendall(one, one) == 1.0
    assert agreement([]) != agreement([]), "NaN of nothing"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a search of six trials, whose winner has a run that says what it is."""
    path = tmp_path_factory.mktemp("study")
    search = searches.search(trials=6)
    nas_run.run_search(search, path, searches.Inline(), report=print)
    return path


def test_the_winner_is_found_by_the_name_of_its_study(study: Path) -> None:
    winner = json.loads((study / "best.json").read_text())
    run = epath.Path(study / winner["workdir"])
    assert find_run(f"workdir:{study}") == FoundRun(run)
    assert find_run(f"workdir:{study}@best") == FoundRun(run, "best")
    (study / winner["workdir"] / "checkpoints").mkdir(exist_ok=True)
    assert find_run(str(study)) == FoundRun(run)
    assert find_run(f"file:{study}@4") == FoundRun(run, 4)
    said = describe_winner(str(study))
    assert f"best: trial {winner['trial']}, top-1 {winner['result']['accuracy']:.2%}" in said
    assert winner["row"] in said


def test_the_winner_is_evaluated_by_the_name_of_its_study(tmp_path: Path) -> None:
    run = tmp_path / "trials" / "0003"
    run.mkdir(parents=True)
    experiment = searches.search().experiment
    open_workdir(run, dataclasses.asdict(experiment), ["a", "b"], squashed(40))
    (tmp_path / "best.json").write_text('{"workdir": "trials/0003"}')
    command = parse(["main", "--mode=eval", f"--workdir={tmp_path}@best"])
    assert isinstance(command, Command)
    assert (command.workdir, command.checkpoint) == (str(run), "best")
    assert command.experiment.model.stages == experiment.model.stages  # type: ignore[attr-defined]


def test_the_winner_as_a_table_of_another_config(study: Path) -> None:
    command = parse(
        ["main", "--config=configs/imagenet_s.py", "--mode=plan", f"--config.model.stages={study}"]
    )
    assert isinstance(command, Command)
    winner = json.loads((study / "best.json").read_text())
    search = searches.search()
    chosen = with_settings(search.experiment, winner["settings"])
    assert canonical(command.experiment.model).stages == canonical(chosen.model).stages  # type: ignore[attr-defined]
    assert command.experiment.model.stem == 8  # type: ignore[attr-defined]
    assert command.experiment.model.name == "efficientnetv2-s"
    assert "the table that won there" in command.notes[0]
    rows = eval(winner["row"], {"StageSpec": StageSpec})
    assert rows == canonical(chosen.model).stages  # type: ignore[attr-defined]


def test_tables_that_are_no_study(tmp_path: Path) -> None:
    plain = [Override("model.stages", "({'operator': 'fused'},)"), Override("epochs", "3")]
    assert with_winner(plain, []) == plain
    missing = [Override("model.stages", str(tmp_path / "nowhere"))]
    assert with_winner(missing, []) == missing
    with pytest.raises(CommandError, match=r"there is no best.json yet"):
        with_winner([Override("model.stages", str(tmp_path))], [])
    (tmp_path / "best.json").write_text("{}")
    with pytest.raises(WorkdirError, match="has to say what the winner's 'workdir' is"):
        with_winner([Override("model.stages", str(tmp_path))], [])


def test_networks_without_stages_have_no_row() -> None:
    from effnetv2_jax.models.resnet import ResNetConfig

    assert row(ResNetConfig(name="resnet50")) == ""


@pytest.mark.slow
def test_signals_end_a_search_in_order(tmp_path: Path) -> None:
    """A real process, whose trials sleep: it says how to go on, and leaves none of them."""
    script = (
        "import sys, searches; from effnetv2_jax import search; from effnetv2_jax.nas import run;"
        "from effnetv2_jax.nas.executors.local import LocalProcesses;"
        "sleep = (sys.executable, '-c', 'import time; time.sleep(60)');"
        "run.make_executor = lambda s: LocalProcesses(1, command=sleep);"
        "sys.exit(search.main(['search', *sys.argv[1:]]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, QUICKSTART, f"--workdir={tmp_path / 's'}"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(searches.TESTS)])},
    )
    end = time.monotonic() + 60
    while not list((tmp_path / "s").glob("trials/*/output.log")) and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert said.rstrip().endswith("stopped by SIGTERM; the same command continues")


@pytest.mark.slow
def test_the_quickstart_in_short(tmp_path: Path) -> None:
    """Real trials, and a real final, by the command; then the winner is loaded and exported."""
    from effnetv2_jax import load_pretrained

    arguments = [
        sys.executable, "-m", "effnetv2_jax.search", QUICKSTART + ":smoke",
        f"--workdir={tmp_path / 's'}", "--search.finals=1",
    ]  # fmt: skip
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "best: trial" in done.stdout
    model, variables = load_pretrained(None, str(tmp_path / "s"))
    winner = json.loads((tmp_path / "s" / "best.json").read_text())
    assert [row.kernel for row in model.stages] == [
        row["kernel"] for row in winner["model"]["stages"]
    ]
    assert variables["params"]
    again = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == again.stdout


@pytest.mark.parametrize("name", ["quickstart", "cifar10", "imagenet"])
def test_the_configs(name: str) -> None:
    whole, short = (
        parsed(f"--config=configs/search_{name}.py{argument}", "--workdir=S", *place).search
        for argument, place in (("", ["--config.data.path=PICTURES"]), (":smoke", []))
    )
    assert (short.trials, short.experiment.data.source) == (2, "embedded")
    assert size(whole.space) > 10**8
    # The search must not see what the winner is to be measured on.
    assert whole.experiment.data.eval_split != "validation"
