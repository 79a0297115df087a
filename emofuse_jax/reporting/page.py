"""Pages that stand alone: a template filled, pictures beside it, each written whole or not at all."""

import pathlib
import re
from collections.abc import Sequence

import jinja2

from emofuse_jax.reporting.figures.style import Picture
from emofuse_jax.utils.files import write_atomic


def render_html(template: str, **values) -> str:
    """A template of this folder as HTML; a value that it needs and does not get is an error."""
    return _environment(should_escape=True).get_template(template).render(**values)


def render_text(template: str, **values) -> str:
    """The same for a template that is not HTML."""
    return _environment(should_escape=False).get_template(template).render(**values) + "\n"


def _environment(*, should_escape: bool) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("emofuse_jax", "reporting/templates"),
        autoescape=should_escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )


def write_figures(folder: pathlib.Path, pictures: Sequence[Picture], figure_pattern: re.Pattern) -> None:
    """Writes the light pictures; takes away those of an earlier page, by `figure_pattern`, that are not among
    them."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {f"{picture.name}.png" for picture in pictures}
    for picture in pictures:
        write_atomic(folder / f"{picture.name}.png", picture.light)
    for existing in folder.iterdir():
        if figure_pattern.fullmatch(existing.name) and existing.name not in names:
            existing.unlink()
