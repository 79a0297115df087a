"""Fills the page templates and writes the figures that accompany a page."""

import pathlib
import re
import sys
from collections.abc import Sequence

import jinja2

from emofuse_jax.reporting.figures.style import Picture
from emofuse_jax.utils.files import write_atomic
from emofuse_jax.utils.optional import missing_package_message


def render_html(template: str, **values: object) -> str:
    """Returns the HTML text of a template in `reporting/templates`, filled with `values`.

    `template` is a file name, such as `report.html`. Text values are escaped. Raises jinja2.UndefinedError if
    the template uses a value that was not passed, and jinja2.TemplateNotFound if there is no such template.
    """
    return _environment(should_escape=True).get_template(template).render(**values)


def render_text(template: str, **values: object) -> str:
    """Returns the text of a template in `reporting/templates`, filled with `values` without escaping.

    `template` is the name of a file that is not HTML, such as `model_card.md`; the text ends with a line
    break. Raises jinja2.UndefinedError if the template uses a value that was not passed, and
    jinja2.TemplateNotFound if there is no such template.
    """
    return _environment(should_escape=False).get_template(template).render(**values) + "\n"


def _environment(*, should_escape: bool) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("emofuse_jax", "reporting/templates"),
        autoescape=should_escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )


def can_draw_figures(page: str) -> bool:
    """Returns True if Matplotlib is installed; otherwise prints one line to stderr and returns False.

    The line says that `page`, the name of a file, is not written, and how to install Matplotlib.
    """
    problem = missing_package_message("matplotlib", "report", page)
    if problem:
        print(f"not written: {problem}", file=sys.stderr)
    return not problem


def write_figures(folder: pathlib.Path, pictures: Sequence[Picture], figure_pattern: re.Pattern[str]) -> None:
    """Writes each picture in its light theme to `<folder>/<name>.png`, and deletes outdated figures.

    Args:
      folder: is created if it does not exist.
      pictures: to write; each file is written completely or not at all.
      figure_pattern: a file in the folder is deleted if this matches its complete name, such as `recall.png`,
        and it is not one of `pictures`.

    Raises:
      OSError: if a file cannot be written or deleted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = {f"{picture.name}.png" for picture in pictures}
    for picture in pictures:
        write_atomic(folder / f"{picture.name}.png", picture.light)
    for existing in folder.iterdir():
        if figure_pattern.fullmatch(existing.name) and existing.name not in names:
            existing.unlink()
