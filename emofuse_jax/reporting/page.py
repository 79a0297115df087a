"""Pages that stand alone: a template filled, pictures beside it, each written whole or not at all."""

import os
import pathlib
import re
from collections.abc import Sequence

import jinja2

from emofuse_jax.reporting.figures.style import Picture


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
        write_atomically(folder / f"{picture.name}.png", picture.light)
    for existing in folder.iterdir():
        if figure_pattern.fullmatch(existing.name) and existing.name not in names:
            existing.unlink()


def write_atomically(path: pathlib.Path, data: bytes) -> None:
    """Writes beside `path`, then renames: a reader sees the old file or the new one, never half of it.

    What a killed process leaves half written is written over by the next.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
