"""Writes THIRD_PARTY.md: every package that is installed with emofuse, and its licence.

    python -m tests.support.upgrade.licences > THIRD_PARTY.md       # make licences

The packages are the direct and indirect dependencies of pyproject.toml in the running environment. Direct
dependencies that are not installed here have a row too.
"""

import importlib.metadata
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT
from tests.support.upgrade.direct import read_project, requirements

ALWAYS = "always"
TOOLS = {"make onnx": ("jax2onnx", "onnx-ir")}
"""Packages that a make target installs although no extra contains them."""

UNSTATED_LICENCES = {"jax2onnx": "Apache-2.0", "torch": "BSD-3-Clause"}
"""Licences that are stated in the package's licence file only, or of packages that may not be installed."""

SHORT_NAMES = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License": "Apache-2.0",  # the first line of its text
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD 3-Clause License": "BSD-3-Clause",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}

NOTES = {
    "av": "The wheel contains FFmpeg (LGPL-3.0-or-later as built), x264 and x265 (GPL-2.0-or-later). emofuse"
    " decodes with FFmpeg; it calls x264 only to write the synthetic clips of the demo and of the tests. If"
    " you distribute the wheel (in an image or an installer), you distribute GPL code: build PyAV with an"
    " FFmpeg without x264 and x265, or comply with the GPL.",
    "opencv-python-headless": "The wheel contains FFmpeg (LGPL-2.1-or-later), linked dynamically; the"
    " headless package has no Qt. emofuse calls none of its codecs.",
    "soxr": "LGPL-2.1-or-later, a shared library that can be replaced; used without changes.",
    "soundfile": "Contains libsndfile (LGPL-2.1-or-later), a shared library; installed by librosa, not"
    " called by emofuse.",
    "numpy": "The wheel contains libgfortran and libquadmath (GPL-3.0 with GCC's runtime exception; LGPL).",
    "scipy": "The same as for numpy.",
    "scikit-learn": "The wheel contains libgomp (GPL-3.0 with GCC's runtime exception); installed by"
    " librosa.",
    "certifi": "MPL-2.0, which applies to each file: a list of certificates, used without changes.",
    "tqdm": "Partly MPL-2.0, which applies to each file; used without changes.",
    "hypothesis": "MPL-2.0, which applies to each file; used only by tests.",
    "libtpu": "Proprietary: terms of Google. Needed only to use TPUs or to plan for them.",
    "jax": "The extras cuda12 and cuda13 install NVIDIA's libraries, under NVIDIA's terms; tpu installs"
    " libtpu.",
    "torch": "On Linux it installs NVIDIA's libraries, under NVIDIA's terms; used only by benchmarks.",
}


def get_licence(name: str) -> str:
    """Returns the short name of a package's licence from its metadata, or "not stated"."""
    if name in UNSTATED_LICENCES:
        return UNSTATED_LICENCES[name]
    metadata = importlib.metadata.metadata(name)
    if metadata.get("License-Expression"):
        return metadata["License-Expression"]
    first = (metadata.get("License") or "").strip().split("\n")[0].strip()
    if first in SHORT_NAMES or re.fullmatch(r"[A-Z][\w.-]+( (AND|OR) [\w.-]+)*", first):
        return SHORT_NAMES.get(first, first)
    listed = [
        text.split(" :: ")[-1] for text in metadata.get_all("Classifier") or () if text.startswith("License")
    ]
    return " or ".join(SHORT_NAMES.get(text, text) for text in listed) or first or "not stated"


def closure(wanted: Iterable[Requirement]) -> set[str]:
    """Returns the names of these requirements and of all their dependencies, installed or not."""
    visited, pending = (
        set(),
        [(canonicalize_name(one.name), extra) for one in wanted for extra in {"", *one.extras}],
    )
    while pending:
        name, extra = one = pending.pop()
        if one in visited:
            continue
        visited.add(one)
        for text in _requires(name):
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                pending += [(canonicalize_name(needed.name), more) for more in {"", *needed.extras}]
    return {name for name, _ in visited}


def _requires(name: str) -> list[str]:
    try:
        return importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []


def map_packages_to_extras() -> dict[str, list[str]]:
    """Returns for each package the extras that install it; only `always` if it needs no extra."""
    project = read_project(os.path.join(ROOT, "pyproject.toml"))
    extras_by_package, direct = (
        defaultdict(list),
        {canonicalize_name(name) for name in direct_dependencies(project)},
    )
    wanted = {ALWAYS: list(requirements(project, ()))}
    for extra in project["optional-dependencies"]:
        wanted[extra] = list(requirements({**project, "dependencies": []}, [extra]))
    for target, names in TOOLS.items():
        wanted[target] = [Requirement(name) for name in names]
        direct |= set(names)
    for bringer, bringer_requirements in wanted.items():
        for name in closure(bringer_requirements):
            if ALWAYS not in extras_by_package.get(name, ()) and (name in direct or _installed(name)):
                extras_by_package[name].append(bringer)
    return extras_by_package


def direct_dependencies(project: dict) -> set[str]:
    """Returns the names of all direct dependencies, including those of all extras."""
    return {one.name for one in requirements(project, project["optional-dependencies"])}


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def make_table() -> list[str]:
    """Returns the lines of THIRD_PARTY.md."""
    lines = [
        "# Third-party packages",
        "",
        f"Written by `make licences` on Python {sys.version_info.major}.{sys.version_info.minor}. The"
        " licences are those in the packages' metadata. No package is part of this repository or its wheel.",
        "",
        "| package | version | licence | required by |",
        "|---|---|---|---|",
    ]
    for name, bringers in sorted(map_packages_to_extras().items()):
        version = _installed(name)
        licence = get_licence(name) if version or name in UNSTATED_LICENCES else "not installed here"
        mark = " (see below)" if name in NOTES else ""
        lines.append(
            f"| {name} | {version or 'not installed here'} | {licence}{mark} | {', '.join(bringers)} |"
        )
    notes = [f"- **{name}**: {NOTES[name]}" for name in sorted(NOTES)]
    return [*lines, "", "## Licences that need attention", "", *notes]


if __name__ == "__main__":
    print("\n".join(make_table()))
