"""A run's record names what can change its numbers, and whose source code it is."""

import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import time

import jax
import pytest

import effnetv2_jax
from effnetv2_jax.models.efficientnet.config import EfficientNetConfig
from effnetv2_jax.outputs.run_record import run_record, source_revision

UNKNOWN = (None, None)


def git(folder: pathlib.Path, *arguments: str) -> str:
    own = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    command = ("git", "-C", str(folder), *own, *arguments)
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()


@pytest.fixture
def package(tmp_path: pathlib.Path) -> pathlib.Path:
    """A package that is committed, in a repository with something else."""
    folder = tmp_path / "repository" / "package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder.parent / "README.md").write_text("")
    git(folder.parent, "init", "--quiet")
    git(folder.parent, "add", ".")
    git(folder.parent, "commit", "--quiet", "--message=first")
    return folder


def test_what_a_start_was_made_with(
    mesh: jax.sharding.Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/tmp/dump")
    monkeypatch.delenv("JAX_ENABLE_X64", raising=False)
    model = EfficientNetConfig(name="efficientnetv2-b0")
    record = run_record(mesh, model=model, train_data="12ab", eval_data="34cd")
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["packages"]["effnetv2_jax"] == effnetv2_jax.__version__
    assert record["python"] == platform.python_version()
    assert record["packages"]["jaxlib"] == importlib.metadata.version("jaxlib")
    assert {"orbax-checkpoint", "simplejpeg", "numpy"} < record["packages"].keys()
    assert any("opencv" in name for name in record["packages"])
    assert (record["platform"], record["devices"], record["processes"]) == ("cpu", {"cpu": 8}, 1)
    assert record["cores"] >= 1
    assert record["environment"]["XLA_FLAGS"] == "--xla_dump_to=/tmp/dump"
    assert "JAX_ENABLE_X64" not in record["environment"]
    assert record["model"] == {
        "family": "efficientnet",
        "module": "effnetv2_jax.models.efficientnet.config",
    }
    assert record["data"] == {"train": "12ab", "eval": "34cd"}


def test_revision_and_uncommitted_changes(package: pathlib.Path) -> None:
    commit = git(package, "rev-parse", "HEAD")
    assert source_revision(package) == (commit, False)
    (package.parent / "README.md").write_text("changed")
    assert source_revision(package) == (commit, False), "it is not the package that changed"
    (package / "new.py").write_text("")
    assert source_revision(package) == (commit, True)
    (package / "new.py").unlink()
    (package / "__init__.py").write_text("changed")
    assert source_revision(package) == (commit, True)


def test_a_package_within_a_repository_that_is_not_its_own(package: pathlib.Path) -> None:
    installed = package.parent / ".venv" / "site-packages" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert source_revision(installed) == UNKNOWN
    (package.parent / ".gitignore").write_text(".venv\n")
    assert source_revision(installed) == UNKNOWN


def test_no_repository(
    tmp_path: pathlib.Path, package: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "__init__.py").write_text("")
    assert source_revision(tmp_path) == UNKNOWN
    assert source_revision(tmp_path / "missing") == UNKNOWN
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "__init__.py")
    assert source_revision(tmp_path) == UNKNOWN, "there is no commit yet"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert source_revision(package) == UNKNOWN, "there is no git"


def test_another_repository_in_the_environment(
    tmp_path: pathlib.Path, package: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = git(package, "rev-parse", "HEAD")
    git(tmp_path, "init", "--quiet", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert source_revision(package) == (commit, False)


def test_git_may_hang(
    tmp_path: pathlib.Path, package: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}{os.pathsep}{os.environ['PATH']}")
    began = time.perf_counter()
    assert source_revision(package) == UNKNOWN
    assert time.perf_counter() - began < 10
