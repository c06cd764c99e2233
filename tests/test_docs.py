"""What the README and the pages in docs/ mention exists: links, files, modules, flags and names."""

import ast
import glob
import importlib
import importlib.util
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from effnetv2_jax.cli.config_file import find_config_file
from effnetv2_jax.cli.overrides import adapt, read_overrides

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
ids = [page.name for page in PAGES]

_TOP = "(?:effnetv2_jax|configs|docs|experiments|notebooks|tests)"
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return _FENCED.sub("", page.read_text())


def blocks(page: Path, language: str) -> list[str]:
    return [code for kind, code in _FENCED.findall(page.read_text()) if kind == language]


def code(page: Path) -> list[str]:
    """Commands and whatever else is set as code, lines that go on joined."""
    inline = re.findall(r"`([^`]+)`", prose(page))
    return [part.replace("\\\n", " ") for part in (*blocks(page, "bash"), *inline)]


def anchor(heading: str) -> str:
    """What GitHub makes of a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
    return kept.replace(" ", "-")


def test_readme_is_one_page() -> None:
    lines = README.read_text().splitlines()
    assert len(lines) <= 180
    # Those that `.ci/run` takes from it.
    first, second = (line for line in lines if line.startswith("python3 -m venv"))
    assert first.endswith("--config=configs/quickstart.py --workdir=runs/quickstart")
    assert second.endswith("-m pytest -n 2")


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        path, _, fragment = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if fragment:
            headings = re.findall(r"^#+ (.+)$", prose(file), re.MULTILINE)
            assert fragment in map(anchor, headings), target


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_files(page: Path) -> None:
    """Those named from the top, and Python files named by the end of their path."""
    everything = [str(path) for path in ROOT.rglob("*.py")]
    for text in code(page):
        for path in re.findall(rf"(?<![\w/.-])(?:{_TOP}/[\w./*{{}},-]*|[\w/{{}},]+\.py\b)", text):
            for one in _spelt_out(path.rstrip(".,")):
                if "NAME" not in one:
                    ends = any(known.endswith(f"/{one}") for known in everything)
                    assert ends or glob.glob(str(ROOT / one)), one


def _spelt_out(path: str) -> Iterator[str]:
    """`imagenet_s.py` and `imagenet_m.py` of `imagenet_{s,m}.py`."""
    parts = re.split(r"\{([^}]*)\}", path)
    choices = [part.split(",") if index % 2 else [part] for index, part in enumerate(parts)]
    return map("".join, itertools.product(*choices))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_modules(page: Path) -> None:
    for text in code(page):
        for name in re.findall(r"-m (effnetv2_jax[\w.]*)", text):
            assert importlib.util.find_spec(name), name


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_configs(page: Path) -> None:
    """Config files take the arguments, and their experiments have the fields."""
    for text in code(page):
        for file in re.findall(r"configs/\w+\.py:[\w,-]+", text):
            find_config_file(file).load()
        given = re.findall(r"--config\.[^\s\"=]+(?:=\"[^\"]*\"|=\S*)?", text)
        if given and "--import=" not in text:
            config = find_config_file("configs/quickstart.py").load()
            overrides = read_overrides([argument.replace('"', "") for argument in given])
            list(adapt(config, overrides, shortened=False))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_python(page: Path) -> None:
    for source in blocks(page, "python"):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("effnetv2_jax"):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


def test_the_family_that_a_page_shows_is_the_one_that_is_tested() -> None:
    shown = blocks(ROOT / "docs" / "new_model.md", "python")
    assert (ROOT / "tests" / "mixer_family.py").read_text() in shown
