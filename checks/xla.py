"""XLA's tools: libdevice and ptxas, where XLA itself would find them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from envdoctor.catalog import Severity
from envdoctor.checks.installing import Remedy, conda_install, install
from envdoctor.checks.lookups import wheel_requirement
from envdoctor.checks.machine import cuda_frameworks, gpus, require_gpu_wanted, title
from envdoctor.dependencies import allows
from envdoctor.facts.model import Facts, Framework, Interpreter, Packages, Unavailable, known
from envdoctor.facts.model_xla import Ptxas, Toolkit, XlaSearch
from envdoctor.finding import Evidence, Finding, SkipError, Unknown
from envdoctor.knowledge.capabilities import compute_capability
from envdoctor.knowledge.loading import release_key
from envdoctor.knowledge.xla_search import LIBDEVICE_DIRECTORY, LIBDEVICE_FILE, PTXAS_FILE, ptxas_problem
from envdoctor.shell import quoted

DATA_DIR = "--xla_gpu_cuda_data_dir"
# From 2.11 on Keras compiles its optimizers with XLA, from 3 (2.16) on whole steps: tensorflow#58681
COMPILES_BY_DEFAULT = (2, 11)
WHEEL_IS_SEARCHED = (2, 14)
# Which ptxas: only the roots (#33375), then the roots before PATH, then PATH before the roots
# (PreferPtxasFromPath), then the first that is not refused (xla, subprocess_compilation.cc)
PATH_COUNTS, PATH_FIRST, UNFIT_PASSED_OVER = (2, 2), (2, 12), (2, 17)
MISCOMPILES_BELOW = (11, 1)  # "ptxas before 11.1 is known to miscompile XLA code"


def check_libdevice(facts: Facts) -> Iterator[Finding | Unknown]:
    for framework, search in _searches(facts):
        winner = _libdevice_root(search)
        if winner and winner.libdevice:
            continue
        unseen = [r for r in search.roots if isinstance(r.found, Unavailable) and r.path.startswith("/")]
        relative = (
            search.data_dir if search.data_dir and isinstance(search.roots[0].found, Unavailable) else ""
        )
        if not winner and (unseen or relative):
            why = unseen[0].found if unseen else search.roots[0].found
            yield Unknown("XLA001", why.reason if isinstance(why, Unavailable) else "")
            continue
        have = _nearest_toolkit(facts, framework, lambda t: t.libdevice)
        cure = Remedy(words=_name_data_dir(facts, have.path)) if have else _get_nvcc(facts, framework)
        yield Finding(
            code="XLA001",
            subject="libdevice.10.bc",
            framework=framework.name,
            severity_here=None if _compiles(facts, framework) else Severity.NOTE,
            message=f"XLA of {title(framework)} "
            + (
                f"takes {winner.path}/{LIBDEVICE_DIRECTORY}, and libdevice.10.bc is not in it"
                if winner
                else "finds no libdevice.10.bc in any of the directories where it looks"
            )
            + (f"; it is in {have.path}" if have else ""),
            evidence=_looked_in(search, LIBDEVICE_FILE),
            remedy=cure.text,
            commands=cure.commands,
        )


def check_ptxas(facts: Facts) -> Iterator[Finding]:
    """XLA002."""
    for framework, search in _searches(facts):
        if framework.name != "tensorflow":  # JAX's plugin has the compiler built in (libnvptxcompiler)
            continue
        tools = _candidates(framework, search)
        if any(t.executable for t in tools):
            continue
        have = _nearest_toolkit(facts, framework, lambda t: t.ptxas is not None and t.ptxas.executable)
        if tools:
            message = f"{tools[0].path} is there, and may not be executed"
            cure = Remedy(
                words=f"chmod +x {quoted(tools[0].real)}    # where that does not help, it is mounted noexec"
            )
        else:
            message = f"XLA of {title(framework)} finds no ptxas"
            message += f"; it is in {have.path}/bin" if have else ""
            cure = Remedy(words=_name_data_dir(facts, have.path)) if have else _get_nvcc(facts, framework)
        yield Finding(
            code="XLA002",
            subject="ptxas",
            framework=framework.name,
            message=message,
            evidence=(
                *(Evidence(t.path, "not executable", f"ls -l {quoted(t.real)}") for t in tools),
                *_looked_in(search, PTXAS_FILE),
                Evidence("PATH", facts.environment.get("PATH", ""), "type -a ptxas"),
            ),
            remedy=cure.text,
            commands=cure.commands,
        )


def check_ptxas_version(facts: Facts) -> Iterator[Finding | Unknown]:
    """XLA003."""
    for framework, search in _searches(facts):
        tools = [t for t in _candidates(framework, search) if t.executable]
        if framework.name != "tensorflow" or not tools:
            continue
        refused: list[tuple[Ptxas, str]] = []
        chosen: Ptxas | None = None
        newest = release_key(framework.version)[:2] >= UNFIT_PASSED_OVER
        for tool in tools:
            if isinstance(tool.version, Unavailable):
                if not facts.xla.tools_run and facts.target.root == "/":
                    raise SkipError(f"{tool.path}: {tool.version.reason} (--quick)")
                yield Unknown("XLA003", f"{tool.path}: {tool.version.reason}")
                break
            problem = _refused(framework, tool.version, newest=newest)
            if not problem:
                chosen = tool
                break
            refused.append((tool, problem))
            if not newest:
                break  # it is taken all the same
        else:
            yield _ptxas_finding(facts, framework, tools, "; ".join(p for _, p in refused), None)
            continue
        if refused and not newest:
            yield _ptxas_finding(facts, framework, tools, refused[0][1], Severity.WARNING)
        elif chosen:
            yield from _knows_gpus(facts, framework, tools, chosen, newest=newest)


def _refused(framework: Framework, version: str, *, newest: bool) -> str:
    if newest:
        return ptxas_problem(version)
    built = release_key(framework.cuda_version)[:2]
    if built >= MISCOMPILES_BELOW > release_key(version)[:2]:
        return f"ptxas {version} is older than 11.1, and known to miscompile XLA's code"
    return ""


def _knows_gpus(
    facts: Facts, framework: Framework, tools: list[Ptxas], chosen: Ptxas, *, newest: bool
) -> Iterator[Finding]:
    version = known(chosen.version)
    here = [g for g in gpus(facts) if isinstance(g.compute_capability, str)]
    problems = [ptxas_problem(version, known(g.compute_capability)) for g in here]
    problem = next((p for p in problems if "does not know" in p), "")
    if problem:
        everywhere = newest and all("does not know" in p for p in problems)
        severity = None if everywhere else Severity.WARNING  # older releases let the driver compile
        yield _ptxas_finding(facts, framework, tools, problem, severity)


def _ptxas_finding(
    facts: Facts, framework: Framework, tools: list[Ptxas], problem: str, severity: Severity | None
) -> Finding:
    cure = _newer_ptxas(facts, framework, tools)
    return Finding(
        code="XLA003",
        subject="ptxas",
        framework=framework.name,
        severity_here=severity,
        message=f"the ptxas that XLA of {title(framework)} takes is too old: {problem}",
        evidence=(
            *(
                Evidence(t.path, t.version if isinstance(t.version, str) else t.version.reason, t.source)
                for t in tools
            ),
            *(
                Evidence(f"GPU {g.index}", f"compute capability {g.compute_capability}", "nvidia-smi -L")
                for g in gpus(facts)
                if isinstance(g.compute_capability, str)
            ),
        ),
        remedy=cure.text,
        commands=cure.commands,
    )


def _newer_ptxas(facts: Facts, framework: Framework, tools: list[Ptxas]) -> Remedy:
    here = [g.compute_capability for g in gpus(facts) if isinstance(g.compute_capability, str)]
    elsewhere = [t.ptxas for t in facts.xla.toolkits if t.ptxas and t.ptxas.executable]
    for tool in (*sorted(tools, key=_key, reverse=True), *sorted(elsewhere, key=_key, reverse=True)):
        if isinstance(tool.version, str) and not any(ptxas_problem(tool.version, c) for c in here or [""]):
            return Remedy(words=f'export PATH={quoted(tool.path.rpartition("/")[0])}:"$PATH"')
    first = _first_cuda(framework, here)
    if first and release_key(first)[:1] != release_key(framework.cuda_version)[:1]:
        return Remedy(
            words=f"use a release of {title(framework.name)} that is built for CUDA {first} or newer"
        )
    return _get_nvcc(facts, framework, first)


def _first_cuda(framework: Framework, capabilities: list[str]) -> str:
    """The first CUDA release whose ptxas serves these GPUs; "" where the build's own does."""
    built = release_key(framework.cuda_version)[:2]
    rows = (compute_capability(c) for c in capabilities)
    newer = (r.first_cuda for r in rows if r and release_key(r.first_cuda) > built)
    return max(newer, key=release_key, default="")


def _key(tool: Ptxas) -> tuple[int, ...]:
    return release_key(tool.version) if isinstance(tool.version, str) else ()


def check_data_dir(facts: Facts) -> Iterator[Finding | Unknown]:
    """XLA006."""
    for framework, search in _searches(facts):
        if not search.data_dir:
            raise SkipError(f"{DATA_DIR} is not given")
        found = search.roots[0].found
        if isinstance(found, Unavailable):
            yield Unknown("XLA006", found.reason)
            continue
        if found.libdevice_directory or found.tools:
            continue
        winner = _libdevice_root(search)
        instead = winner is not None and winner.libdevice
        have = _nearest_toolkit(facts, framework, lambda t: t.libdevice)
        yield Finding(
            code="XLA006",
            subject=DATA_DIR,
            framework=framework.name,
            severity_here=None if not instead and _compiles(facts, framework) else Severity.WARNING,
            message=f"{DATA_DIR}={search.data_dir} "
            + ("has neither nvvm/libdevice nor bin" if found.directory else "is not a directory")
            + (f"; XLA takes libdevice from {winner.path} instead" if winner and instead else ""),
            evidence=(
                Evidence("XLA_FLAGS", facts.environment.get("XLA_FLAGS", ""), 'echo "$XLA_FLAGS"'),
                Evidence(
                    search.data_dir,
                    "a directory" if found.directory else "no directory",
                    f"ls -d {quoted(search.data_dir)}/nvvm/libdevice {quoted(search.data_dir)}/bin",
                ),
            ),
            remedy=_name_data_dir(facts, have.path)
            if have and not _is_searched(search, have)
            else _export_flags(facts, ""),
        )


def _searches(facts: Facts) -> list[tuple[Framework, XlaSearch]]:
    """Each framework that has XLA's GPU compiler, and where it looks; SkipError where none matters."""
    require_gpu_wanted(facts)
    frameworks = {f.name: f for f in cuda_frameworks(facts)}
    searches = [s for s in facts.xla.searches if s.roots]  # before 2.1 nobody knows where it looked
    found = [(frameworks[s.framework], s) for s in searches if s.framework in frameworks]
    if not found:
        raise SkipError("no framework with XLA is installed")
    return found


def _libdevice_root(search: XlaSearch) -> Toolkit | None:
    """The first root that has nvvm/libdevice, whether or not the file is in it (rule libdevice-choice)."""
    seen = (r.found for r in search.roots)
    return next((t for t in seen if isinstance(t, Toolkit) and t.libdevice_directory), None)


def _candidates(framework: Framework, search: XlaSearch) -> list[Ptxas]:
    """Each ptxas that is there, in the order in which the release asks for it."""
    seen = [r.found.ptxas if isinstance(r.found, Toolkit) else None for r in search.roots]
    release = release_key(framework.version)[:2]
    path = list(search.on_path) if release >= PATH_COUNTS else []
    if release >= UNFIT_PASSED_OVER:
        order = [*seen[:1], *path, *seen[1:]]
    else:
        order = [*path, *seen] if release >= PATH_FIRST else [*seen, *path]
    unique: dict[str, Ptxas] = {}
    for tool in order:
        if tool:
            unique.setdefault(tool.real, tool)
    return list(unique.values())


def _compiles(facts: Facts, framework: Framework) -> bool:
    """Whether XLA is used without being asked for, or is asked for here."""
    return (
        framework.name != "tensorflow"
        or release_key(framework.version)[:2] >= COMPILES_BY_DEFAULT
        or bool(facts.environment.get("TF_XLA_FLAGS") or facts.environment.get("XLA_FLAGS"))
    )


def _looked_in(search: XlaSearch, file: str) -> tuple[Evidence, ...]:
    places = [r.path for r in search.roots if isinstance(r.found, Toolkit)]
    skipped = [r.path for r in search.roots if isinstance(r.found, Unavailable)]
    return (
        Evidence("looked in", ", ".join(places) or "nowhere", f"ls -l DIRECTORY/{file}"),
        *((Evidence("not looked in", ", ".join(skipped), "relative, or not readable"),) if skipped else ()),
    )


def _nearest_toolkit(facts: Facts, framework: Framework, has: Callable[[Toolkit], bool]) -> Toolkit | None:
    """An installed toolkit that has what is sought; of the build's CUDA version where there is a choice."""
    built = release_key(framework.cuda_version)

    def distance(toolkit: Toolkit) -> tuple[bool, bool]:
        version = _key(toolkit.ptxas) if toolkit.ptxas else ()
        return version[:2] != built[:2], version[:1] != built[:1]

    return min((t for t in facts.xla.toolkits if has(t)), key=distance, default=None)


def _is_searched(search: XlaSearch, toolkit: Toolkit) -> bool:
    return any(r.path == toolkit.path for r in search.roots[1:])


def _name_data_dir(facts: Facts, directory: str) -> str:
    return _export_flags(facts, f"{DATA_DIR}={directory}")


def _export_flags(facts: Facts, flag: str) -> str:
    """An export that keeps the other flags."""
    value = facts.environment.get("XLA_FLAGS", "")
    kept = [w for w in value.split() if not w.startswith(DATA_DIR + "=")] if value[:1] == "-" else []
    flags = " ".join([*kept, *([flag] if flag else [])])
    return f"export XLA_FLAGS={quoted(flags)}" if flags else "unset XLA_FLAGS"


def _get_nvcc(facts: Facts, framework: Framework, newer: str = "") -> Remedy:
    """The compiler of the build's CUDA release, or of the one that is needed at least."""
    interpreter = facts.interpreter
    minor = newer or ".".join(framework.cuda_version.split(".")[:2])
    if isinstance(interpreter, Interpreter) and interpreter.kind == "conda":
        return conda_install(interpreter, f"cuda-nvcc={minor}", channel="nvidia")
    if isinstance(interpreter, Interpreter) and framework.name == "jax":
        major = minor.split(".")[0]
        return install(facts, f"jax[cuda{major}]=={framework.version}")
    if isinstance(interpreter, Interpreter) and release_key(framework.version)[:2] >= WHEEL_IS_SEARCHED:
        wheel = f"nvidia-cuda-nvcc-cu{minor.split('.')[0]}"
        here = facts.packages.named(wheel) if isinstance(facts.packages, Packages) else ()
        asked = "" if newer else wheel_requirement(wheel, framework, facts)
        specifier = asked.removeprefix(wheel) or f">={minor},<{int(minor.split('.')[0]) + 1}"
        if here and allows(specifier, here[0].version):
            return install(facts, f"{wheel}=={here[0].version}", again=True)
        return install(facts, f"{wheel}{specifier}")
    return Remedy(
        words=f"install CUDA {minor}'s compiler (nvcc) in /usr/local/cuda-{minor}, "
        "and link /usr/local/cuda to it"
    )
