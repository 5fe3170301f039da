"""Repairs by one variable that changes a framework's choice: only where the condition is named."""

from __future__ import annotations

from collections.abc import Iterator

from envdoctor.checks.gpu_modes import MINIMUM
from envdoctor.facts.model import CudaDriver, Facts
from envdoctor.finding import Finding
from envdoctor.fixes.exporting import export
from envdoctor.fixes.plan import Join
from envdoctor.fixes.repair import Repair, Wishes


def small_gpu(facts: Facts, finding: Finding, wishes: Wishes) -> Iterator[Repair]:
    """GPU013: TensorFlow takes the small GPU too, where no variable says otherwise.

    That it leaves a display card beside a larger GPU is meant so: nobody gets this without asking for it.
    """
    cuda = facts.driver.cuda
    devices = cuda.devices if isinstance(cuda, CudaDriver) else ()
    counts = [d.multiprocessors for d in devices if d.name == finding.subject]
    if not counts or finding.code not in wishes.only:
        return
    least = str(min(counts))
    repair = export(
        facts,
        finding.code,
        wishes,
        MINIMUM,
        (least,),
        Join.DEFAULT,
        summary=f"set {MINIMUM} to {least} where it is not set",
        reason=f"{finding.subject} has {least} multiprocessors",
    )
    if repair is not None:
        yield repair
