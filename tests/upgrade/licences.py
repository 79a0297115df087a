"""THIRD_PARTY.md: every package that an install of emofuse brings, and its licence.

    python -m tests.upgrade.licences > THIRD_PARTY.md       # make licences

Packages are those of the running environment that follow from pyproject.toml, through any number of steps.
A direct dependency that is not installed here has a row too.
"""

import importlib.metadata
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.upgrade.direct import read_project, requirements

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ALWAYS = "always"
TOOLS = {"make onnx": ("jax2onnx", "onnx-ir")}
"""Packages that a make target installs without an extra."""

UNSTATED_LICENCES = {"jax2onnx": "Apache-2.0", "torch": "BSD-3-Clause"}
"""Not in its metadata, but in its licence file; seldom installed where this runs."""

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
    "av": "The wheel carries FFmpeg (LGPL-3.0-or-later as built) and, beside it, x264 and x265"
    " (GPL-2.0-or-later). We decode with FFmpeg; x264 is called only to write the made clips of the demo and"
    " of tests. Whoever passes the wheel on (an image, an installer) passes GPL code on: build PyAV against"
    " an FFmpeg without them, or keep to the GPL's terms.",
    "opencv-python-headless": "The wheel carries FFmpeg (LGPL-2.1-or-later), linked dynamically; no Qt in the"
    " headless form. We call none of its codecs.",
    "soxr": "LGPL-2.1-or-later, a shared library that can be replaced; used as it is.",
    "soundfile": "Carries libsndfile (LGPL-2.1-or-later), a shared library; comes with librosa, not called.",
    "numpy": "The wheel carries libgfortran and libquadmath (GPL-3.0 with GCC's runtime exception; LGPL).",
    "scipy": "As numpy.",
    "scikit-learn": "The wheel carries libgomp (GPL-3.0 with GCC's runtime exception); comes with librosa.",
    "certifi": "MPL-2.0, file by file: a list of certificates, used as it is.",
    "tqdm": "MPL-2.0 in part, file by file; used as it is.",
    "hypothesis": "MPL-2.0, file by file; tests alone.",
    "libtpu": "Not free software: Google's terms. Only where TPUs are used or planned for.",
    "jax": "The extras cuda12 and cuda13 bring NVIDIA's libraries, under NVIDIA's terms; tpu brings libtpu.",
    "torch": "On Linux it brings NVIDIA's libraries, under NVIDIA's terms; benchmarks alone.",
}


def get_licence(name: str) -> str:
    """What a package's metadata says, in short."""
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
    """Names of what these requirements bring, themselves among them, installed or not."""
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
    """Each package, and the extras that bring it; `always` alone where none is needed."""
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
    """Names of all direct dependencies, of all extras."""
    return {one.name for one in requirements(project, project["optional-dependencies"])}


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def make_table() -> list[str]:
    """The file's lines."""
    lines = [
        "# Third-party packages",
        "",
        f"Made by `make licences` on Python {sys.version_info.major}.{sys.version_info.minor}; the licence is"
        " what the package's metadata says. None of them is part of this repository or its wheel.",
        "",
        "| package | version | licence | brought by |",
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
    return [*lines, "", "## What asks for attention", "", *notes]


if __name__ == "__main__":
    print("\n".join(make_table()))
