"""Reads the direct dependencies from pyproject.toml."""

import tomllib
from collections.abc import Iterable, Iterator

from packaging.requirements import Requirement

PACKAGE = "emofuse"


def requirements(project: dict, extras: Iterable[str]) -> Iterator[Requirement]:
    """Yields the direct dependencies of a project and of these extras; resolves extras that name extras."""
    texts = list(project["dependencies"])
    for extra in extras:
        texts += project["optional-dependencies"][extra]
    for text in texts:
        one = Requirement(text)
        if one.name == PACKAGE:
            yield from requirements({**project, "dependencies": []}, sorted(one.extras))
        else:
            yield one


def read_project(path: str) -> dict:
    """Returns the table `project` of a pyproject.toml."""
    with open(path, "rb") as file:
        return tomllib.load(file)["project"]
