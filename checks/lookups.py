"""What the library checks have in common: who asks for a library, where was looked, what brings it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from envdoctor.checks.administration import as_root, modules
from envdoctor.checks.installing import Remedy, requirement
from envdoctor.checks.installing import install as install_packages
from envdoctor.checks.machine import cuda_frameworks, require_gpu_wanted, title
from envdoctor.dependencies import dependencies
from envdoctor.facts.loader_model import Lookup, Rule, stem
from envdoctor.facts.model import Distribution, Facts, Framework, Packages, known
from envdoctor.finding import Evidence, SkipError
from envdoctor.knowledge.frameworks import pytorch_release, tensorflow_release
from envdoctor.knowledge.loading import release_key
from envdoctor.knowledge.providers import install_command, install_hint, pip_hint
from envdoctor.resolution import FrameworkLibraries, Need
from envdoctor.shell import quoted


def wanted(facts: Facts) -> Iterable[FrameworkLibraries]:
    """Every framework whose libraries matter here; SkipError where there is none."""
    require_gpu_wanted(facts)
    cuda_frameworks(facts)
    if not facts.resolution:
        raise SkipError("no framework here opens CUDA libraries")
    return facts.resolution


def names(needs: Iterable[Need]) -> str:
    return ", ".join(n.soname for n in needs)


def directory(path: str) -> str:
    return path.rpartition("/")[0]


def file_name(path: str) -> str:
    return path.rpartition("/")[2]


def why(lookup: Lookup, facts: Facts) -> str:
    """The rule by which the loader took a file, with what sets it."""
    if lookup.rule is Rule.LD_LIBRARY_PATH:
        return f"LD_LIBRARY_PATH={facts.environment.get('LD_LIBRARY_PATH', '')}"
    if lookup.rule in {Rule.RUNPATH, Rule.RPATH}:
        return f"the {lookup.rule.value} of {file_name(lookup.requester)}"
    if lookup.rule is Rule.LOADED:
        return "it is loaded already when it is asked for"
    return lookup.rule.value if lookup.rule else ""


def looked(lookup: Lookup, *, linked: bool = False) -> tuple[Evidence, ...]:
    """Who asks, and where was looked, in the loader's order; a long RUNPATH is one item."""
    places: dict[Rule, dict[str, None]] = {rule: {} for rule in Rule}
    for attempt in lookup.attempts:
        places[attempt.rule][directory(attempt.path)] = None
    said = []
    for rule, directories in places.items():
        listed = ", ".join(directories)
        if rule is Rule.LD_LIBRARY_PATH:
            said.append(f"LD_LIBRARY_PATH ({listed or 'unset'})")
        elif rule is Rule.CACHE:
            said.append("ld.so.cache" + (f" ({listed})" if listed else ""))
        elif rule is Rule.DEFAULT:
            said += [d for d in directories if "/glibc-hwcaps" not in d]
        elif directories:
            several = f"{len(directories)} directories"
            said.append(f"its {rule.value} ({several if len(directories) > 3 else listed})")
    return (
        Evidence(
            "needed by",
            f"{file_name(lookup.requester)} ({'DT_NEEDED' if linked else 'dlopen'})",
            lookup.requester,
        ),
        Evidence("looked in", ", ".join(said), f"LD_DEBUG=libs, look for {lookup.name}"),
    )


def install(framework: Framework, needs: Sequence[Need], facts: Facts) -> Remedy:
    """What brings the libraries: the wheels that lost them, the framework's own extra, or the toolkit."""
    broken = _wheels_without(needs, framework, facts)
    if broken:
        return install_packages(facts, *(f"{d.name}=={d.version}" for d in broken), again=True)
    version = framework.version.partition("+")[0]
    if framework.name == "tensorflow" and release_key(version) >= (2, 14):
        return install_packages(facts, f"tensorflow[and-cuda]=={version}")
    if framework.name == "torch":
        return install_packages(facts, f"torch=={version}")
    if framework.name == "jax" and framework.distribution == "jax":
        return install_packages(facts, f"jax[cuda{framework.cuda_version}]=={version}")
    return Remedy(words=_from_toolkit(framework, needs, facts))


def wheel_requirement(name: str, framework: Framework, facts: Facts) -> str:
    """An NVIDIA wheel as the framework's own METADATA asks for it; "" where it does not."""
    if isinstance(facts.packages, Packages):
        for distribution in facts.packages.named(framework.distribution):
            asked = dependencies(distribution, facts, known(facts.interpreter), (name,))
            found = next((d.specifier for d in asked if d.name == name and d.specifier), "")
            if found:
                return requirement(name, found)
    return ""


def _wheels_without(needs: Sequence[Need], framework: Framework, facts: Facts) -> list[Distribution]:
    """The wheels that should hold the libraries and are installed all the same: pip thinks they are there."""
    if not isinstance(facts.packages, Packages):
        return []
    found: dict[str, Distribution] = {}
    for need in needs:
        hint = pip_hint(need.soname, framework.cuda_version)
        name = hint.package if hint else ""
        for mark in "<>=! ":
            name = name.partition(mark)[0]
        here = facts.packages.named(name) if name else ()
        if not here:
            return []
        found[name] = here[0]
    return list(found.values())


def _from_toolkit(framework: Framework, needs: Sequence[Need], facts: Facts) -> str:
    hints = [
        install_hint(n.soname, facts.host.os_id, facts.host.os_like, framework.cuda_version) for n in needs
    ]
    cudnn = any(stem(n.soname) == "libcudnn" for n in needs)
    toolkit = any(stem(n.soname) != "libcudnn" for n in needs)
    by_module = modules(facts, _module(framework, cudnn=not toolkit))
    if by_module:
        return by_module
    brought = [h for h in hints if h]
    if len(brought) == len(needs):
        origin = "from NVIDIA's repository" if any(h.repository == "nvidia" for h in brought) else ""
        doubt = "" if all(h.verified for h in brought) else "the names follow its convention"
        says = f"{names(needs)} missing for {title(framework)}"
        remark = ", ".join(word for word in (origin, doubt) if word)
        return as_root(facts, says, install_command(brought), remark)
    parts = [f"CUDA {framework.cuda_version}"] if toolkit else []
    parts += [f"cuDNN {built_version(framework)}"] if cudnn else []
    return f"install {' and '.join(parts)}, and put its lib64 directory on LD_LIBRARY_PATH"


def _module(framework: Framework, *, cudnn: bool) -> str:
    """As such modules are usually called; `module avail` has the last word."""
    if cudnn:
        return f"cudnn/{built_version(framework)}"
    return f"cuda/{'.'.join(framework.cuda_version.split('.')[:2])}"


def built_version(framework: Framework) -> str:
    """The cuDNN of the build, as exactly as anything tells it."""
    if "." in framework.cudnn_version:
        return framework.cudnn_version
    if framework.name == "tensorflow":
        row = tensorflow_release(framework.version)
        return row.cudnn if row else framework.cudnn_version
    torch = pytorch_release(framework.version) if framework.name == "torch" else None
    return torch.cudnn if torch else framework.cudnn_version


def without_directory(lookup: Lookup, facts: Facts) -> str:
    """The command that takes a file's directory out of LD_LIBRARY_PATH; "" where that has no part in it."""
    if lookup.rule is not Rule.LD_LIBRARY_PATH:
        return ""
    rest = rest_of_path(lookup, facts)
    return f"export LD_LIBRARY_PATH={quoted(':'.join(rest))}" if rest else "unset LD_LIBRARY_PATH"


def rest_of_path(lookup: Lookup, facts: Facts) -> list[str]:
    """LD_LIBRARY_PATH without the directory that a file comes from."""
    taken = directory(lookup.path).rstrip("/")
    return [e for e in library_path(facts).split(":") if e and e.rstrip("/") != taken]


def library_path(facts: Facts) -> str:
    return facts.environment.get("LD_LIBRARY_PATH", "")
