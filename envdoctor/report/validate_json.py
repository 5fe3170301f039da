"""The answer of `validate --json`."""

from __future__ import annotations

from typing import Any

import msgspec

from envdoctor.report.envelope import finding_rows
from envdoctor.validate.comparison import Speedup
from envdoctor.validate.judge import Result
from envdoctor.validate.measure import DeviceRow


def result_document(result: Result, seconds: float) -> dict[str, Any]:
    """Everything but the envelope. `speedup` is that of the first batch size; `speedups` has them all."""
    document = {
        "passed": result.passed,
        "outcome": result.outcome.value,
        "backend": result.backend,
        "network": result.network.name,
        "parameters": result.parameters,
        "batch_sizes": result.batch_sizes,
        "epochs": result.epochs,
        "data": result.data,
        "accuracy_bound": result.bound,
        "devices": [_device(row) for row in result.devices],
        "speedup": _speedup(result.speedups[0]) if result.speedups else None,
        "speedups": [_speedup(one) for one in result.speedups],
        "numerics": [msgspec.to_builtins(row) for numerics in result.numerics for row in numerics.rows],
        "curves": result.curves,
        "numpy": result.numpy,
        "threads": result.threads,
        "notes": result.notes,
        "undecided": result.undecided,
        "stand_in": result.stand_in,
        "findings": finding_rows(result.findings, frozenset()),
        "seconds": round(seconds, 3),
    }
    if result.activations is not None:
        document["activations"] = {
            name: value
            for name, value in msgspec.to_builtins(result.activations).items()
            if name not in {"event", "at"}
        }
    return document


def _device(row: DeviceRow) -> Any:
    return msgspec.to_builtins(row)


def _speedup(speedup: Speedup) -> Any:
    return msgspec.to_builtins(speedup)
