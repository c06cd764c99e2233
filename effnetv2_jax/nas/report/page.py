"""Writes the report of a search: one page of HTML that needs no network."""

import functools

import jinja2
from etils import epath

from effnetv2_jax.nas.report.contents import contents
from effnetv2_jax.outputs.storage import write_text

PAGE = "report.html"
_TEMPLATES = ("effnetv2_jax.nas.report", "effnetv2_jax.outputs.report")
"""Packages with templates: a study's page has the look of a run's."""


def write_study_report(study: epath.PathLike) -> epath.Path:
    """Writes `report.html` from what lies in a study so far, and returns its path.

    Raises:
      StudyError, ConfigError: there is no study, or its files make no sense.
      OSError: the page cannot be written.
    """
    folder = epath.Path(study)
    text = _environment().get_template("study.html.j2").render(it=contents(folder))
    write_text(folder / PAGE, text)
    return folder / PAGE


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(package, "templates") for package in _TEMPLATES]
        ),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
