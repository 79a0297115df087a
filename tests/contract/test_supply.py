"""Tests the dependencies: version bounds, licences, and the result of an audit."""

import json
import re

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT
from tests.support.upgrade.audit import parse_audit
from tests.support.upgrade.direct import read_project, requirements
from tests.support.upgrade.licences import NOTES, direct_dependencies

PROJECT = read_project(str(ROOT / "pyproject.toml"))
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "THIRD_PARTY.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| package")
]


def test_every_direct_dependency_has_a_licence():
    licences = {row[0]: row[2] for row in ROWS}
    direct = {canonicalize_name(name) for name in direct_dependencies(PROJECT)}
    assert direct <= licences.keys(), "run make licences"
    assert not any("not stated" in licence or "not installed" in licence for licence in licences.values())


def test_what_binds_others_is_explained():
    """Tests that copyleft licences and proprietary terms have a note."""
    for name, _, licence, _ in ROWS:
        if re.search(r"GPL|MPL|EPL|CDDL|Terms|Proprietary", licence):
            assert name in NOTES, licence


def test_every_direct_dependency_has_bounds():
    """Tests that all have an upper bound, except packages with date versions or without stable versions."""
    unbounded = {"flatbuffers", "importlib_resources", "libtpu"}
    for one in requirements(PROJECT, PROJECT["optional-dependencies"]):
        operators = [bound.operator for bound in one.specifier]
        assert operators.count(">=") + operators.count("==") == 1, one
        assert {"<", "=="} & set(operators) or one.name in unbounded, one


def test_extras_that_name_our_own_are_followed():
    project = {"dependencies": ["a>=1,<2"], "optional-dependencies": {"x": ["b==3"], "y": ["emofuse[x]"]}}
    followed = list(requirements(project, ["y"]))
    assert followed == [Requirement("a>=1,<2"), Requirement("b==3")]


def test_an_audit_with_findings_fails_and_names_them():
    vulnerability = {"id": "PYSEC-1", "fix_versions": ["1.1"]}
    packages = [
        {"name": "a", "version": "1.0", "vulns": [vulnerability]},
        {"name": "b", "version": "2", "vulns": []},
    ]
    status, lines = parse_audit(json.dumps({"dependencies": packages}), "")
    assert status == 1
    assert lines == ["a 1.0: PYSEC-1, fixed in 1.1", "pip-audit: 2 packages, 1 findings"]


def test_an_audit_without_its_service_says_so_and_passes():
    skipped = [{"name": "a", "version": "1.0", "skip_reason": "not found on PyPI"}]
    for audit in (
        parse_audit(json.dumps({"dependencies": skipped}), ""),
        parse_audit("", "x\nrequests.ConnectionError: y"),
    ):
        status, (line,) = audit
        assert status == 0
        assert "could not be reached" in line


def test_an_audit_that_breaks_fails():
    assert parse_audit("", "Traceback\nKeyError: 'x'") == (1, ["pip-audit failed: KeyError: 'x'"])
