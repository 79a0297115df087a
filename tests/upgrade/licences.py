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

UNSAID = {"jax2onnx": "Apache-2.0", "torch": "BSD-3-Clause"}
"""Not in its metadata, but in its licence file; seldom installed where this runs."""

SHORT = {
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


def licence_of(name: str) -> str:
    """What a package's metadata says, in short."""
    if name in UNSAID:
        return UNSAID[name]
    about = importlib.metadata.metadata(name)
    if about.get("License-Expression"):
        return about["License-Expression"]
    first = (about.get("License") or "").strip().split("\n")[0].strip()
    if first in SHORT or re.fullmatch(r"[A-Z][\w.-]+( (AND|OR) [\w.-]+)*", first):
        return SHORT.get(first, first)
    listed = [
        text.split(" :: ")[-1] for text in about.get_all("Classifier") or () if text.startswith("License")
    ]
    return " or ".join(SHORT.get(text, text) for text in listed) or first or "not stated"


def closure(wanted: Iterable[Requirement]) -> set[str]:
    """Names of what these requirements bring, themselves among them, installed or not."""
    seen, ahead = (
        set(),
        [(canonicalize_name(one.name), extra) for one in wanted for extra in {"", *one.extras}],
    )
    while ahead:
        name, extra = one = ahead.pop()
        if one in seen:
            continue
        seen.add(one)
        for text in _requires(name):
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                ahead += [(canonicalize_name(needed.name), more) for more in {"", *needed.extras}]
    return {name for name, _ in seen}


def _requires(name: str) -> list[str]:
    try:
        return importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []


def users() -> dict[str, list[str]]:
    """Each package, and the extras that bring it; `always` alone where none is needed."""
    project = read_project(os.path.join(ROOT, "pyproject.toml"))
    found, direct = defaultdict(list), {canonicalize_name(name) for name in everything(project)}
    wanted = {ALWAYS: list(requirements(project, ()))}
    for extra in project["optional-dependencies"]:
        wanted[extra] = list(requirements({**project, "dependencies": []}, [extra]))
    for target, names in TOOLS.items():
        wanted[target] = [Requirement(name) for name in names]
        direct |= set(names)
    for who, needs in wanted.items():
        for name in closure(needs):
            if ALWAYS not in found.get(name, ()) and (name in direct or _installed(name)):
                found[name].append(who)
    return found


def everything(project: dict) -> set[str]:
    """Names of all direct dependencies, of all extras."""
    return {one.name for one in requirements(project, project["optional-dependencies"])}


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def table() -> list[str]:
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
    for name, who in sorted(users().items()):
        version = _installed(name)
        licence = licence_of(name) if version or name in UNSAID else "not installed here"
        mark = " (see below)" if name in NOTES else ""
        lines.append(f"| {name} | {version or 'not installed here'} | {licence}{mark} | {', '.join(who)} |")
    notes = [f"- **{name}**: {NOTES[name]}" for name in sorted(NOTES)]
    return [*lines, "", "## What asks for attention", "", *notes]


if __name__ == "__main__":
    print("\n".join(table()))
