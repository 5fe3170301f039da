"""The JSON that every command answers with: one envelope, its schema in the package."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from envdoctor import __version__
from envdoctor.diagnose import CheckResult, Diagnosis, Linked, Status, Verdict
from envdoctor.facts.model import Facts

FORMAT_VERSION = "1.0"
HIDDEN = "(not shown)"
_RELEVANT = re.compile(
    r"(CUDA|CUDNN|NVIDIA|NCCL|LD|TF|TENSORFLOW|KERAS|XLA|JAX|TORCH|PYTORCH|OMP|OPENBLAS|GOTO|MKL|KMP|NUMEXPR|ONEDNN"
    r"|PYTHON|VIRTUAL_ENV|CONDA|JUPYTER|SLURM|KUBERNETES|container)(_|$|[A-Z0-9])|(PATH|HOME|SHELL|LANG)$"
)
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|AUTH", re.IGNORECASE)


def encode(document: object) -> bytes:
    """Indented JSON. Lone surrogates (bytes that are not UTF-8) come out as U+FFFD: JSON has no such text."""
    return msgspec.json.format(msgspec.json.encode(printable(document)), indent=2) + b"\n"


def printable(value: object) -> object:
    """Plain containers and strings that can be encoded as UTF-8."""
    plain = msgspec.to_builtins(value)
    return _clean(plain)


def _clean(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode() if not value.isascii() else value
    if isinstance(value, dict):
        return {_clean(k): _clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(v) for v in value]
    return value


def envelope(facts: Facts) -> dict[str, object]:
    return {
        "format_version": FORMAT_VERSION,
        "tool_version": __version__,
        "target": facts.target,
    }


def check_document(facts: Facts, diagnosis: Diagnosis, fixable: frozenset[int]) -> dict[str, object]:
    """The answer of `check --json`; `fixable` holds the indexes of findings that a proven plan removes."""
    return {
        **envelope(facts),
        "verdicts": [verdict_row(v) for v in diagnosis.verdicts],
        "findings": finding_rows(diagnosis.findings, fixable),
        "checks": [msgspec.to_builtins(c) for c in diagnosis.checks],
        "summary": summary(diagnosis.checks, diagnosis.findings),
        "facts": shown(facts),
    }


def shown(facts: Facts) -> Facts:
    """The facts without the values of variables that no check has to do with: tokens stand there.

    Of files that could be edited only the paths: a script or a kernelspec may hold a secret too.
    """
    return replace(
        facts,
        editable=dict.fromkeys(facts.editable, b""),
        environment={
            name: value if _RELEVANT.match(name) and not _SECRET.search(name) else HIDDEN
            for name, value in facts.environment.items()
        },
    )


def verdict_row(verdict: Verdict) -> object:
    return msgspec.to_builtins(verdict)


def finding_rows(findings: Iterable[Linked], fixable: frozenset[int]) -> list[dict[str, object]]:
    return [
        {
            "code": linked.finding.code,
            "name": linked.finding.condition.name,
            "severity": linked.finding.severity.value,
            "subject": linked.finding.subject,
            "framework": linked.finding.framework or None,
            "message": linked.finding.message,
            "evidence": [msgspec.to_builtins(e) for e in linked.finding.evidence],
            "because": list(linked.because),
            "fixable": index in fixable,
            "remedy": linked.finding.remedy,
        }
        for index, linked in enumerate(findings)
    ]


def summary(checks: tuple[CheckResult, ...], findings: tuple[Linked, ...]) -> dict[str, int]:
    counts = {status.value: sum(c.status is status for c in checks) for status in Status}
    severities = [linked.finding.severity.value for linked in findings]
    return {
        "checks": len(checks),
        **counts,
        "errors": severities.count("error"),
        "warnings": severities.count("warning"),
        "notes": severities.count("note"),
    }
