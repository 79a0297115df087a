"""The lowest version of each direct dependency that pyproject.toml allows, as constraints for pip.

python tests/upgrade/bounds.py PYPROJECT EXTRA... > constraints.txt
"""

import sys
import tomllib
from collections.abc import Iterable, Iterator

from packaging.requirements import Requirement

OURS = "emofuse"


def requirements(project: dict, extras: Iterable[str]) -> Iterator[Requirement]:
    """Direct dependencies of a project with some of its extras, and of those that these name."""
    texts = list(project["dependencies"])
    for extra in extras:
        texts += project["optional-dependencies"][extra]
    for text in texts:
        one = Requirement(text)
        if one.name == OURS:
            yield from requirements({**project, "dependencies": []}, sorted(one.extras))
        else:
            yield one


def lowest(one: Requirement) -> str:
    """`name==version` of a requirement's lower bound; ValueError where it has none."""
    bounds = [bound.version for bound in one.specifier if bound.operator in (">=", "==")]
    if len(bounds) != 1:
        raise ValueError(f"{one}: expected one lower bound")
    return f"{one.name}=={bounds[0]}"


def read_project(path: str) -> dict:
    """The project's table of a pyproject.toml."""
    with open(path, "rb") as file:
        return tomllib.load(file)["project"]


if __name__ == "__main__":
    found = requirements(read_project(sys.argv[1]), sys.argv[2:])
    print("\n".join(sorted({lowest(one) for one in found})))
