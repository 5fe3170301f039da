"""The search paths: what shadows what, what is stale, what is missing, what is mixed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct

from envdoctor.catalog import Severity
from envdoctor.checks.administration import as_root, module_of
from envdoctor.checks.cudnn import built_cudnn, too_old
from envdoctor.checks.lookups import directory, file_name, library_path, rest_of_path, wanted, why
from envdoctor.checks.machine import cuda_frameworks, driver_version, require_gpu_wanted, title
from envdoctor.facts.loader_model import CacheEntry, ElfObject, Lookup, Rule, stem
from envdoctor.facts.loader_view import RecordedView
from envdoctor.facts.model import Facts, Framework, Interpreter, NotKnownError, Packages
from envdoctor.facts.model_toolkits import CudaDirectory
from envdoctor.finding import Evidence, Finding, SkipError
from envdoctor.knowledge.drivers import driver_floor
from envdoctor.knowledge.loading import release_key
from envdoctor.resolution import Candidate, FrameworkLibraries, Need, candidates, look_up
from envdoctor.shell import quoted
from envdoctor.versions import installation_of, library_version, same_version

START_FILES = "grep -n LD_LIBRARY_PATH ~/.bashrc ~/.profile ~/.zshrc /etc/environment /etc/profile.d/*"
PLAIN_NVRTC_UNTIL = (8, 8)  # cuDNN: 8.6.0 and 8.7.0 open libnvrtc.so; 8.9.2 and 9.1.0 the versioned name
PLAIN_CUDA_UNTIL = (3, 2)  # Triton: 2.1.0 and 3.1.0 link with -lcuda; 3.6.0 with libcuda.so.1


class Shadow(Struct, frozen=True):
    """A library that is taken from elsewhere than the framework's own environment."""

    need: Need
    own: Candidate
    wins: str  # its version; "" where nothing tells
    owns: str
    severity: Severity


def check_shadowing(facts: Facts) -> Iterator[Finding]:
    """A copy from elsewhere wins over the one in the framework's own environment."""
    for libraries in wanted(facts):
        groups: dict[str, list[Shadow]] = {}
        for need in libraries.needs:
            shadow = _shadow(need, libraries.framework, facts)
            if shadow:
                groups.setdefault(directory(need.lookup.path), []).append(shadow)
        for shadows in groups.values():
            yield _shadowed(libraries, sorted(shadows, key=lambda s: s.severity.rank), facts)


def _shadow(need: Need, framework: Framework, facts: Facts) -> Shadow | None:
    lookup = need.lookup
    own = [c for c in need.candidates if c.exact and not c.problem and _is_own(c, facts)]
    if not lookup.real or not own or lookup.real.startswith(f"{framework.location}/"):
        return None
    if any(lookup.real == c.real for c in own):
        return None
    wins, owns = library_version(lookup.real, facts), library_version(own[0].real, facts)
    if same_version(wins, owns):
        return None
    old = stem(need.soname) == "libcudnn" and too_old(wins, framework, facts)
    severity = Severity.ERROR if old or _beyond_driver(lookup, facts) else Severity.WARNING
    return Shadow(need, own[0], wins, owns, severity)


def _is_own(candidate: Candidate, facts: Facts) -> bool:
    prefix = facts.interpreter.prefix if isinstance(facts.interpreter, Interpreter) else ""
    return candidate.kind == "pip wheel" or (
        candidate.kind == "conda" and bool(prefix) and candidate.path.startswith(f"{prefix}/")
    )


def _beyond_driver(lookup: Lookup, facts: Facts) -> bool:
    """It belongs to a CUDA major that the driver cannot run: libcusparse.so.12 of CUDA 13 on driver 550."""
    place, running = installation_of(lookup.real, facts), driver_version(facts)
    floor = driver_floor(place.version) if place and place.version else None
    return floor is not None and bool(running) and release_key(running) < release_key(floor.floor)


def _shadowed(libraries: FrameworkLibraries, shadows: list[Shadow], facts: Facts) -> Finding:
    """One finding for all that one directory takes over, the worst first."""
    framework = libraries.framework
    first = shadows[0]
    lookup = first.need.lookup
    place = installation_of(lookup.real, facts)
    whose = f" of CUDA {place.version}" if place and place.version else ""
    listed = ", ".join(f"{s.need.soname} ({s.wins or 'version unknown'})" for s in shadows[:3])
    more = f" and {len(shadows) - 3} more" if len(shadows) > 3 else ""
    own = "the wheel" if first.own.kind == "pip wheel" else "conda's"
    cudnn = next((s for s in shadows if stem(s.need.soname) == "libcudnn"), None)
    built = f"CUDA {framework.cuda_version}"
    if cudnn:
        built += f" and cuDNN {built_cudnn(framework, facts)}"
    older = (s for s in shadows if s.wins and s.owns and release_key(s.wins) < release_key(s.owns))
    return Finding(
        code="LIB004",
        subject=", ".join(s.need.soname for s in shadows),
        framework=framework.name,
        severity_here=first.severity,
        message=f"{listed}{more} {'is' if len(shadows) == 1 else 'are'} taken from "
        f"{directory(lookup.path)}{whose}, not from {own} ({first.owns or 'version unknown'}), because "
        f"{_rule(lookup)}; {title(framework)} was built for {built}"
        + (": older than what was installed with it" if any(older) else ""),
        evidence=(
            Evidence("found first", lookup.path, f"because of {why(lookup, facts)}"),
            *(Evidence("also", s.need.lookup.path, s.wins or "version unknown") for s in shadows[1:]),
            Evidence("its own", first.own.path, first.own.kind),
            *(
                (Evidence("set by", f"LD_LIBRARY_PATH={library_path(facts)}", START_FILES),)
                if lookup.rule is Rule.LD_LIBRARY_PATH
                else ()
            ),
        ),
        remedy=_unshadow(libraries, first, facts),
    )


def _rule(lookup: Lookup) -> str:
    asker = file_name(lookup.requester)
    if lookup.rule is Rule.LD_LIBRARY_PATH:
        return f"LD_LIBRARY_PATH comes before the RUNPATH of {asker}"
    if lookup.rule in {Rule.RUNPATH, Rule.RPATH}:
        return f"it comes first in the {lookup.rule.value} of {asker}"
    if lookup.rule is Rule.LOADED:
        return "it is loaded already when it is asked for"
    return (
        f"{asker} does not look there, and {lookup.rule.value if lookup.rule else 'the loader'} has this one"
    )


def _unshadow(libraries: FrameworkLibraries, shadow: Shadow, facts: Facts) -> str:
    """The search path without the winner's directory, and with the own one where nothing else leads there."""
    lookup = shadow.need.lookup
    rest = rest_of_path(lookup, facts)
    own = directory(shadow.own.path)
    if lookup.rule is not Rule.LD_LIBRARY_PATH:
        first = [own, *rest]
        return (
            f"export LD_LIBRARY_PATH={quoted(':'.join(first))}"
            if _wins(first, libraries, shadow, facts)
            else ""
        )
    if not _wins(rest, libraries, shadow, facts):
        rest.insert(0, own)
    module = module_of(facts, directory(lookup.path))
    remark = f"    # for good: module unload {module}" if module else ""
    return (f"export LD_LIBRARY_PATH={quoted(':'.join(rest))}" if rest else "unset LD_LIBRARY_PATH") + remark


def _wins(path: list[str], libraries: FrameworkLibraries, shadow: Shadow, facts: Facts) -> bool:
    """Whether the environment's own copy would be taken with this LD_LIBRARY_PATH."""
    environment = {**facts.environment, "LD_LIBRARY_PATH": ":".join(path)}
    after = look_up(RecordedView(facts.libraries), environment, facts.program, libraries.framework)
    return after.needs[libraries.needs.index(shadow.need)].real == shadow.own.real


# --- ld.so.cache ----------------------------------------------------------------------------------------


def check_ld_cache(facts: Facts) -> Iterator[Finding]:
    """Entries whose file is gone, and libraries in a cached directory that the cache does not know."""
    world = facts.libraries
    if world.cache_problem:
        raise NotKnownError(world.cache_problem)
    if not world.cache:
        raise SkipError("there is no ld.so.cache")
    asked = {stem(n.soname): n for r in facts.resolution for n in r.needs}
    gone = [e for e in world.cache if stem(e.name) in asked and _is_gone(e, facts)]
    new = [(name, path, asked[stem(name)]) for name, path in _uncached(facts) if stem(name) in asked]
    if not gone and not new:
        return
    lost = [path for name, path, need in new if need.soname == name and need.lookup.error]
    said = []
    if gone:
        said.append(f"lists {gone[0].path}, which is not there" + _others(len(gone) - 1))
    if new:
        said.append(f"does not list {new[0][1]}" + _others(len(new) - 1))
    message = f"ld.so.cache {' and '.join(said)}: ldconfig has not run since"
    yield Finding(
        code="LIB009",
        subject="ld.so.cache",
        severity_here=Severity.ERROR if lost else None,
        message=message,
        evidence=(
            *(Evidence("cached", e.path, f"ldconfig -p | grep {quoted(e.name)}") for e in gone),
            *(Evidence("not cached", path, f"ldconfig -p | grep {quoted(name)}") for name, path, _ in new),
        ),
        remedy=as_root(facts, message, "sudo ldconfig"),
    )


def _others(count: int) -> str:
    return f" (and {count} more)" if count else ""


def _is_gone(entry: CacheEntry, facts: Facts) -> bool:
    world = facts.libraries
    real = world.aliases.get(directory(entry.path))
    if real is None:
        return False
    found = world.listings.get(real, {}).get(file_name(entry.path)) if real else None
    return found is None or bool(found.problem)


def _uncached(facts: Facts) -> Iterator[tuple[str, str]]:
    """Ldconfig lists what bears its own SONAME; the default directories are searched without it."""
    world = facts.libraries
    spelled = {world.aliases.get(d, ""): d for d in (directory(e.path) for e in world.cache)}
    defaults = {world.aliases.get(d, d) for d in world.default_directories}
    known = {e.name for e in world.cache}
    for real, path in spelled.items():
        if not real or real in defaults:
            continue
        for name, entry in world.listings.get(real, {}).items():
            content = world.objects.get(entry.real)
            ours = isinstance(content, ElfObject) and (content.bits, content.machine) == (
                world.bits,
                world.machine,
            )
            if ours and isinstance(content, ElfObject) and content.soname == name and name not in known:
                yield name, f"{path}/{name}"


# --- toolkits -------------------------------------------------------------------------------------------


def check_mixed_toolkits(facts: Facts) -> Iterator[Finding]:
    """Several CUDA versions on PATH and LD_LIBRARY_PATH, or a link /usr/local/cuda that leads nowhere."""
    require_gpu_wanted(facts)
    for found in facts.installations.directories:
        if not found.real:
            yield _leads_nowhere(found, facts)
    used = list(_on_paths(facts))
    versions = {d.version: d for _, _, d in used}
    if len(versions) < 2:
        return
    listed = ", ".join(f"CUDA {v} ({d.path})" for v, d in versions.items())
    keep = _kept(used, facts)
    yield Finding(
        code="LIB011",
        subject="PATH and LD_LIBRARY_PATH",
        message=f"the search paths name {len(versions)} CUDA versions: {listed}; the first that has a file "
        "wins, file by file",
        evidence=tuple(
            Evidence(variable, f"{entry} (CUDA {d.version})", START_FILES) for variable, entry, d in used
        ),
        remedy="; ".join(
            _only(variable, keep, used, facts) for variable in dict.fromkeys(v for v, _, _ in used)
        ),
    )


def _leads_nowhere(found: CudaDirectory, facts: Facts) -> Finding:
    there = [d for d in facts.installations.directories if d.real and d.version and d.real != found.path]
    newest = max(there, key=lambda d: release_key(d.version), default=None)
    message = f"{found.path} is a link to {found.target}, which is not there"
    change = f"sudo ln -sfn {quoted(newest.real)}" if newest else "sudo rm"
    return Finding(
        code="LIB011",
        subject=found.path,
        message=message,
        evidence=(
            Evidence("link", f"{found.path} -> {found.target}", f"ls -ld {quoted(found.path)}"),
            *(Evidence("installed", f"{d.real} (CUDA {d.version})", "ls -d /usr/local/cuda*") for d in there),
        ),
        remedy=as_root(facts, message, f"{change} {quoted(found.path)}"),
    )


def _on_paths(facts: Facts) -> Iterator[tuple[str, str, CudaDirectory]]:
    for variable in ("LD_LIBRARY_PATH", "PATH"):
        for entry in facts.environment.get(variable, "").split(":"):
            place = installation_of(entry.rstrip("/"), facts) if entry.startswith("/") else None
            if place and place.real and place.version:
                yield variable, entry, place


def _kept(used: list[tuple[str, str, CudaDirectory]], facts: Facts) -> str:
    """The version that a framework was built for, else the one that wins now."""
    try:
        wants = [release_key(f.cuda_version)[:2] for f in cuda_frameworks(facts)]
    except (SkipError, NotKnownError):
        wants = []
    fitting = [d.version for _, _, d in used if release_key(d.version) in wants]
    return (fitting or [used[0][2].version])[0]


def _only(variable: str, keep: str, used: list[tuple[str, str, CudaDirectory]], facts: Facts) -> str:
    unwanted = {entry for name, entry, place in used if name == variable and place.version != keep}
    rest = [e for e in facts.environment.get(variable, "").split(":") if e and e not in unwanted]
    return f"export {variable}={quoted(':'.join(rest))}" if rest else f"unset {variable}"


# --- entries and names that are missing -----------------------------------------------------------------


def check_search_path(facts: Facts) -> Iterator[Finding]:
    """Entries of LD_LIBRARY_PATH that are no directory; an empty one means the current directory."""
    value = library_path(facts)
    if not value:
        return
    entries = value.replace(";", ":").split(":")
    aliases: Mapping[str, str] = facts.libraries.aliases
    missing = [e for e in entries if e.startswith("/") and aliases.get(e.rstrip("/") or "/") == ""]
    empty = "" in entries
    if not missing and not empty:
        return
    rest = [e for e in entries if e and e not in missing]
    said = [f"names {missing[0]}, which is no directory" + _others(len(missing) - 1)] if missing else []
    said += ["has an empty entry, which means the current directory"] if empty else []
    yield Finding(
        code="LIB012",
        subject="LD_LIBRARY_PATH",
        message=f"LD_LIBRARY_PATH {' and '.join(said)}",
        evidence=(
            Evidence("LD_LIBRARY_PATH", value, START_FILES),
            *(Evidence("missing", entry, f"ls -d {quoted(entry)}") for entry in missing),
        ),
        remedy=f"export LD_LIBRARY_PATH={quoted(':'.join(rest))}" if rest else "unset LD_LIBRARY_PATH",
    )


def check_plain_names(facts: Facts) -> Iterator[Finding]:
    """CuDNN 8 opens libnvrtc.so, old Triton links with -lcuda: names that only development packages have."""
    for libraries in wanted(facts):
        yield from _plain_nvrtc(libraries, facts)
        if libraries.framework.name == "torch":
            yield from _plain_cuda(libraries, facts)


def _plain_nvrtc(libraries: FrameworkLibraries, facts: Facts) -> Iterator[Finding]:
    need, plain = libraries.need("libcudnn"), libraries.plain_nvrtc
    if need is None or plain is None or not plain.error:
        return
    version = library_version(need.lookup.real, facts)
    if not version or release_key(version)[:2] >= PLAIN_NVRTC_UNTIL:
        return
    there = [c for c in candidates("libnvrtc.so.0", facts.libraries, facts.places) if not c.problem]
    if not there:
        return
    versioned = there[0].path
    target = f"{directory(versioned)}/libnvrtc.so"
    link = f"ln -s {quoted(file_name(versioned))} {quoted(target)}"
    path = ":".join([directory(versioned), *([library_path(facts)] if library_path(facts) else [])])
    yield Finding(
        code="LIB013",
        subject="libnvrtc.so",
        framework=libraries.framework.name,
        message=f"cuDNN {version} opens libnvrtc.so by that name, and only {file_name(versioned)} is there",
        evidence=(
            Evidence("asked by", plain.requester, f"strings {quoted(plain.requester)} | grep libnvrtc"),
            Evidence("there is", versioned, there[0].kind),
        ),
        remedy=f"{'' if there[0].kind == 'pip wheel' else 'sudo '}{link} && "
        f"export LD_LIBRARY_PATH={quoted(path)}",
    )


def _plain_cuda(libraries: FrameworkLibraries, facts: Facts) -> Iterator[Finding]:
    triton = facts.packages.named("triton") if isinstance(facts.packages, Packages) else ()
    driver, world = libraries.driver, facts.libraries
    if not triton or release_key(triton[0].version)[:2] >= PLAIN_CUDA_UNTIL or not driver.real:
        return
    if facts.environment.get("TRITON_LIBCUDA_PATH"):
        return
    cached = [directory(e.path) for e in world.cache if e.name == driver.name and e.machine == world.machine]
    places = dict.fromkeys([directory(driver.path), *cached, *world.default_directories])
    for place in places:
        entry = world.listings.get(world.aliases.get(place, place), {}).get("libcuda.so")
        if entry and entry.real:
            return
    link = f"{directory(driver.path)}/libcuda.so"
    yield Finding(
        code="LIB013",
        subject="libcuda.so",
        framework="torch",
        message=f"Triton {triton[0].version} links with -lcuda, and only {driver.path} is there: "
        "torch.compile fails",
        evidence=(
            Evidence("Triton", triton[0].version, triton[0].location),
            Evidence("there is", driver.path, f"ls {quoted(directory(driver.path))}/libcuda.so*"),
        ),
        remedy=f"sudo ln -s libcuda.so.1 {quoted(link)}",
    )
