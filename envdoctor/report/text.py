"""The report for a terminal: the verdict and its root cause first, everything else quieter."""

from __future__ import annotations

from envdoctor.catalog import Severity
from envdoctor.checks.machine import (
    driver_cuda_version,
    driver_libraries,
    driver_version,
    gpus,
    simulated,
    title,
)
from envdoctor.diagnose import Diagnosis, Gpu, Linked, Status, Verdict
from envdoctor.facts.model import Facts, FrameworkRun, Unavailable
from envdoctor.fixes.plan import Automatic, Export, Kernelspec, Symlink
from envdoctor.fixes.propose import Proposal
from envdoctor.report.terminal import Terminal, harmless
from envdoctor.shell import quoted

_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}
_INDENT = " " * 10


def render(
    facts: Facts,
    diagnosis: Diagnosis,
    proposal: Proposal,
    terminal: Terminal,
    *,
    seconds: float,
    verbosity: int = 0,
) -> str:
    """The whole report; `verbosity` -1 for the verdicts alone, 1 for every check and its reason."""
    lines = [] if verbosity < 0 else [headline(facts, terminal), ""]
    shown: set[int] = set()
    # What `fix` would not find by itself: it has no --pid, and this shell names another interpreter.
    named = bool(facts.process) or facts.target.chosen_by == "--python"
    python = facts.target.python if named else ""
    for verdict in diagnosis.verdicts:
        lines.append(_verdict(verdict, facts, terminal))
        if verbosity >= 0:
            for index, linked in enumerate(diagnosis.findings):
                if _leads(linked, verdict) and index not in shown:
                    lines += _tree(
                        *(index, diagnosis, proposal, terminal, shown),
                        indent="  ",
                        sources=verbosity > 0,
                        python=python,
                    )
    rest = [i for i, linked in enumerate(diagnosis.findings) if not linked.because and i not in shown]
    if verbosity >= 0:
        for index in rest:
            lines += _tree(
                *(index, diagnosis, proposal, terminal, shown),
                indent="",
                sources=verbosity > 0,
                python=python,
            )
        lines += _undecided(diagnosis, terminal)
        if verbosity > 0:
            lines += [*_process(facts), *what_ran(facts), "", *_every_check(diagnosis, terminal)]
        lines += ["", _counts(facts, diagnosis, terminal, seconds)]
    return "\n".join(lines) + "\n"


def headline(facts: Facts, terminal: Terminal) -> str:
    """Which machine, which interpreter and why that one, which driver, which GPUs."""
    parts = [facts.host.hostname, facts.host.os_name]
    if facts.host.container:
        parts.append(f"in {facts.host.container}")
    if facts.host.wsl:
        parts.append("WSL2")
    if facts.process:
        parts.append(f"process {facts.process.pid} ({facts.process.program})")
    if isinstance(facts.interpreter, Unavailable):
        parts.append(f"no Python ({facts.interpreter.reason})")
    else:
        version = ".".join(facts.interpreter.version.split(".")[:2])
        where = facts.interpreter.executable
        parts.append(f"Python {version} ({where}, {_chosen(facts.target.chosen_by)})")
    parts += [_driver(facts, terminal), _gpus(facts)]
    return terminal.paint(f" {terminal.symbol('dot')} ".join(harmless(p) for p in parts if p), "dim")


def _chosen(chosen_by: str) -> str:
    return f"from {chosen_by}" if chosen_by.startswith(("$", "--", "its ", "/proc/")) else chosen_by


def _driver(facts: Facts, terminal: Terminal) -> str:
    version, cuda = driver_version(facts), driver_cuda_version(facts)
    if not version and not cuda:
        libraries = {lib.version for lib in driver_libraries(facts) if lib.version}
        return f"driver {', '.join(sorted(libraries))}, silent" if libraries else "no NVIDIA driver"
    serves = f" (CUDA {terminal.symbol('at most')} {cuda})" if cuda else ""
    kind = "SIMULATED driver" if simulated(facts) else "driver"
    return f"{kind} {version}{serves}".replace("  ", " ")


def _gpus(facts: Facts) -> str:
    found = gpus(facts)
    if not found:
        pci = facts.driver.pci
        count = 0 if isinstance(pci, Unavailable) else len(pci)
        return f"{count} GPU on the PCI bus" if count else "no GPU"
    named = []
    for gpu in found:
        details = []
        if isinstance(gpu.compute_capability, str):
            details.append(f"sm_{gpu.compute_capability.replace('.', '')}")
        if isinstance(gpu.memory_bytes, int):
            details.append(f"{round(gpu.memory_bytes / 2**30)} GiB")
        named.append(f"{gpu.name} ({', '.join(details)})" if details else gpu.name)
    kinds = dict.fromkeys(named)
    return f"{len(found)} GPU{'s' if len(found) > 1 else ''}: {'; '.join(kinds)}"


def _verdict(verdict: Verdict, facts: Facts, terminal: Terminal) -> str:
    name = harmless(f"{title(verdict.framework)} {verdict.version}".strip())
    by = " on a SIMULATED driver" if simulated(facts) else ""
    if verdict.gpu is Gpu.USABLE:
        run = None if isinstance(facts.runs, Unavailable) else facts.runs
        ran = next((r for r in run or () if r.framework == verdict.framework), None)
        listed = len(ran.gpus) if isinstance(ran, FrameworkRun) else 0
        text = (
            f"{name} uses the GPU{by}: it registers {listed} device{'s' if listed != 1 else ''}"
            if verdict.tried
            else f"{name} should use the GPU{by}, by its files (it was not run)"
        )
        return terminal.paint(f"{terminal.symbol('ok')} {text}", "bold", "green")
    if verdict.gpu is Gpu.UNUSABLE:
        return terminal.paint(f"{terminal.symbol('error')} {name} will NOT use the GPU{by}", "bold", "red")
    if verdict.gpu is Gpu.UNKNOWN:
        return terminal.paint(
            f"{terminal.symbol('unknown')} {name}: cannot tell whether it will use the GPU "
            f"({harmless(verdict.reason)})",
            "bold",
            "yellow",
        )
    return terminal.paint(f"{terminal.symbol('note')} {name} runs on the CPU: there is no GPU here", "bold")


def _leads(linked: Linked, verdict: Verdict) -> bool:
    return (
        not linked.because
        and linked.finding.severity is Severity.ERROR
        and linked.finding.framework in {"", verdict.framework}
        and verdict.gpu is Gpu.UNUSABLE
    )


def _tree(
    index: int,
    diagnosis: Diagnosis,
    proposal: Proposal,
    terminal: Terminal,
    shown: set[int],
    indent: str,
    *,
    sources: bool,
    python: str = "",
) -> list[str]:
    """A root cause in full, and what follows from it in one dimmed line each."""
    shown.add(index)
    finding = diagnosis.findings[index].finding
    lines = []
    mark = "" if indent else f"{terminal.symbol(finding.severity.value)} "
    code = terminal.paint(finding.code, "bold", _COLOURS[finding.severity])
    lines.append(f"{indent}{mark}{code}  {harmless(finding.message)}")
    detailed = finding.severity is not Severity.NOTE
    if detailed:
        for evidence in finding.evidence:
            source = f"    [{harmless(evidence.source)}]" if sources and evidence.source else ""
            lines.append(
                f"{indent}{_INDENT[2:]}{harmless(evidence.what):<15} {harmless(evidence.value)}"
                + terminal.paint(source, "dim")
            )
    repair = _repair(index, diagnosis, proposal, python) or harmless(finding.remedy)
    if repair:
        lines.append(f"{indent}{_INDENT[2:]}{'repair':<15} {terminal.paint(repair, 'cyan')}")
    elif detailed:
        lines.append(f"{indent}{_INDENT[2:]}{'more':<15} {finding.condition.title}")
    for effect, linked in enumerate(diagnosis.findings):
        if effect not in shown and linked.because and index in linked.because:
            shown.add(effect)
            roots = ", ".join(dict.fromkeys(diagnosis.findings[i].finding.code for i in linked.because))
            lines.append(
                terminal.paint(
                    f"{indent}  {terminal.symbol('branch')} {linked.finding.code}  "
                    f"{harmless(linked.finding.message)}          follows from {roots}",
                    "dim",
                )
            )
    return lines


_KINDS = {Symlink: "symlink", Export: "export", Kernelspec: "kernelspec"}


def _repair(index: int, diagnosis: Diagnosis, proposal: Proposal, python: str) -> str:
    """What `fix` would do for this finding, where that was proven."""
    if index not in proposal.cures:
        return ""
    automatic = [a for a in proposal.plan.actions if isinstance(a, Automatic)]
    code = diagnosis.findings[index].finding.code
    mine = [a for a in automatic if a.code == code] or automatic  # another's repair takes it along
    counts = {kind: sum(isinstance(a, kind) for a in mine) for kind in _KINDS}
    kinds = [f"{n} {_KINDS[kind]}{'s' if n > 1 else ''}" for kind, n in counts.items() if n]
    fix = "envdoctor fix" + (f" --python {quoted(python)}" if python else "")
    return f"{fix}        ({', '.join(kinds)}, no root; see it first: {fix} --dry-run)"


def _process(facts: Facts) -> list[str]:
    """Of a process that is examined: what it may use, what it has mapped, what it holds on the GPUs."""
    process = facts.process
    if process is None:
        return []
    mine = [
        f"{_mebibytes(held.memory_bytes)} on GPU {gpu.index}"
        for gpu in gpus(facts)
        for held in (() if isinstance(gpu.processes, Unavailable) else gpu.processes)
        if held.pid == process.pid
    ]
    limits = [f"{'no limit' if n is None else n} ({name})" for name, n in process.limits.items()]
    rows = [
        ("started", process.started),
        ("runs", process.executable + (" (deleted or replaced since)" if process.replaced else "")),
        ("threads", str(process.threads)),
        ("CPUs", process.cpus),
        ("limits", ", ".join(limits)),
        ("frameworks", ", ".join(map(title, process.frameworks)) or "none of those installed is loaded"),
        ("GPU memory", ", ".join(mine) or "none that NVML tells of"),
        *(("mapped", m.path + (" (deleted or replaced since)" if m.gone else "")) for m in process.mapped),
    ]
    head = f"  process {process.pid} ({process.program})"
    return ["", harmless(head), *(harmless(f"    {what:<12} {value}") for what, value in rows)]


def _mebibytes(count: int | None) -> str:
    return "an unknown amount" if count is None else f"{count / 2**20:.0f} MiB"


def what_ran(facts: Facts) -> list[str]:
    """For each framework that was run: where its operations ran, and how parallel the CPU worked."""
    lines = []
    for run in () if isinstance(facts.runs, Unavailable) else facts.runs:
        if not isinstance(run, FrameworkRun):
            continue
        name = f"{title(run.framework)} {run.version}"
        memory = f"{run.peak_bytes / 2**20:.0f} MiB"
        lines += ["", harmless(f"  {name}: imported in {run.import_seconds:.1f} s, {memory}")]
        if run.simulated:
            lines.append("    its GPUs are of a SIMULATED driver: no operation was asked of them")
        if run.placements:
            soft = run.framework == "tensorflow"  # the others have no such thing
            lines.append(f"    {'operation':<22} {'asked':<8} ran on" + ("   soft placement" if soft else ""))
        for p in run.placements:
            ran = p.ran or p.error.partition("\n")[0]
            how = ("on" if p.soft else "off") if run.framework == "tensorflow" else ""
            lines.append(harmless(f"    {p.operation:<22} {p.asked:<8} {ran:<8} {how}").rstrip())
        for c in run.compiled:
            ran = c.ran or c.error.partition("\n")[0]
            lines.append(
                harmless(f"    {'XLA-compiled function':<22} {c.device:<8} {ran:<8} ({c.seconds:.2f} s)")
            )
        if run.threads:
            t = run.threads
            lines.append(
                f"    CPUs at work: {t.matmul.parallelism:.2f} in matmul, {t.convolution.parallelism:.2f} in "
                f"convolution; {t.threads} threads in the process"
            )
        for path in run.mapped:
            lines.append(harmless(f"    mapped  {path}"))
    return lines


def _undecided(diagnosis: Diagnosis, terminal: Terminal) -> list[str]:
    return [
        f"{terminal.paint(terminal.symbol('unknown') + ' ' + check.code, 'yellow')}  "
        f"could not be judged: {harmless(check.reason)}"
        for check in diagnosis.undecided
    ]


def _every_check(diagnosis: Diagnosis, terminal: Terminal) -> list[str]:
    return [
        terminal.paint(
            f"  {c.code}  {c.status.value:<8} {c.ms:6.2f} ms  {harmless(c.reason)}".rstrip(),
            *(["dim"] if c.status in {Status.OK, Status.SKIP} else []),
        )
        for c in diagnosis.checks
    ]


def _counts(facts: Facts, diagnosis: Diagnosis, terminal: Terminal, seconds: float) -> str:
    count = {status: sum(c.status is status for c in diagnosis.checks) for status in Status}
    words = [f"{count[Status.OK]} ok"]
    severities = [linked.finding.severity for linked in diagnosis.findings]
    for severity in Severity:
        number = severities.count(severity)
        if number:
            words.append(f"{number} {severity.value}{'s' if number > 1 else ''}")
    if count[Status.UNKNOWN]:
        words.append(f"{count[Status.UNKNOWN]} unknown")
    if count[Status.SKIP]:
        words.append(f"{count[Status.SKIP]} not applicable")
    runs = () if isinstance(facts.runs, Unavailable) else facts.runs
    imports = " + ".join(f"importing {title(r.framework)}" for r in runs)
    took = f"{seconds:.1f} s" + (f" (with {imports})" if imports else "")
    text = f"{len(diagnosis.checks)} checks: {', '.join(words)} {terminal.symbol('dot')} {took}"
    usable = bool(diagnosis.verdicts) and all(v.gpu is Gpu.USABLE for v in diagnosis.verdicts)
    if usable and not diagnosis.undecided and Severity.ERROR not in severities:
        text += f" {terminal.symbol('dot')} " + ("ready" if runs else "ready, by the files")
    return terminal.paint(text, "dim")
