"""Audits the packages of an environment with pip-audit.

    python tests/support/upgrade/audit.py PYTHON_OF_THE_ENVIRONMENT       # with a Python that has pip-audit

The exit status is 1 if there are findings, and 0 with one line if the advisory service cannot be reached.
"""

import json
import subprocess
import sys
import tempfile

PACKAGE = "emofuse"


def main(python: str) -> int:
    """Prints the findings and returns the exit status."""
    freeze = [python, "-m", "pip", "list", "--format=freeze", "--exclude", PACKAGE]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(subprocess.run(freeze, capture_output=True, text=True, check=True).stdout)
        file.flush()
        audit = [sys.executable, "-m", "pip_audit", "-f", "json", "--progress-spinner", "off"]
        audit += ["--no-deps", "--disable-pip", "-r", file.name]
        done = subprocess.run(audit, capture_output=True, text=True, check=False)
    status, lines = parse_audit(done.stdout, done.stderr)
    print("\n".join(lines))
    return status


def parse_audit(output: str, errors: str) -> tuple[int, list[str]]:
    """Returns the exit status and the lines to print, from pip-audit's JSON and its stderr."""
    try:
        packages = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        reason = (errors.strip().splitlines() or ["no output"])[-1]
        if "ConnectionError" in reason or "ServiceError" in reason or "timed out" in reason.lower():
            return 0, [f"pip-audit: its advisory service could not be reached; nothing was audited: {reason}"]
        return 1, [f"pip-audit failed: {reason}"]
    audited = [one for one in packages if "vulns" in one]
    findings = [(one, vulnerability) for one in audited for vulnerability in one["vulns"]]
    if not audited:
        reason = packages[0].get("skip_reason", "") if packages else "no packages"
        return 0, [f"pip-audit: its advisory service could not be reached; nothing was audited: {reason}"]
    lines = [
        f"{one['name']} {one['version']}: {v['id']}, fixed in {', '.join(v['fix_versions']) or 'no version'}"
        for one, v in findings
    ]
    unaudited_note = (
        f", {len(packages) - len(audited)} could not be audited" if len(packages) > len(audited) else ""
    )
    return int(bool(findings)), [
        *lines,
        f"pip-audit: {len(audited)} packages, {len(findings)} findings{unaudited_note}",
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
