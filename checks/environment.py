"""Environment variables: does their reader take the value, and do they contradict each other?

Judged elsewhere: CUDA_VISIBLE_DEVICES and NVIDIA_VISIBLE_DEVICES (GPU002), LD_LIBRARY_PATH (the libraries),
XLA_FLAGS and TF_XLA_FLAGS (XLA004 to XLA007), the thread counts (THR004).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from envdoctor.catalog import Severity
from envdoctor.checks.machine import driver_cuda_version, gpu_wanted, gpus, title
from envdoctor.facts.model import Facts, Framework, Gpu, NotKnownError, Unavailable, known
from envdoctor.finding import Evidence, Finding, SkipError
from envdoctor.knowledge.loading import release_key
from envdoctor.shell import quoted

_PREFIXES = ("TF_", "CUDA_", "NVIDIA_", "XLA_", "PYTORCH_", "JAX_")
_ELSEWHERE = frozenset(
    {
        "CUDA_VISIBLE_DEVICES",
        "NVIDIA_VISIBLE_DEVICES",
        "XLA_FLAGS",
        "TF_XLA_FLAGS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
    }
)
_READERS = {"TensorFlow": "tensorflow", "JAX": "jax", "PyTorch": "torch"}
_DIRECTORIES = ("CUDA_HOME", "CUDA_PATH", "CUDA_ROOT")
_UNIT = re.compile(r"([0-9]{1,12})\s*([KMG])i?B?", re.IGNORECASE)
_PERCENT = re.compile(r"[0-9]{1,3}")
ASYNC_SINCE = (11, 2)  # gpu_process_state.cc: "TensorFlow was not compiled with CUDA 11.2+"


def check_env_var_invalid(facts: Facts) -> Iterator[Finding]:
    """ENV002."""
    yield from _wrong_values(facts)
    yield from _missing_directories(facts)
    yield from _missing_preloads(facts)


def _wrong_values(facts: Facts) -> Iterator[Finding]:
    here = [v for v in facts.environment if v.startswith(_PREFIXES) and v not in _ELSEWHERE]
    if not here:
        return
    from envdoctor.knowledge.variables import (  # noqa: PLC0415  a table that most shells do not need
        EnvironmentVariable,
        ValueKind,
        environment_variable,
        wrong_value,
    )

    def wrong(row: EnvironmentVariable, value: str) -> str:
        if row.kind is ValueKind.PAIRS and "[" in value:  # roundup_power2_divisions:[256:1,…]
            return ""
        if row.name.endswith("CLIENT_MEM_FRACTION"):
            return wrong_value(row, value) or _percentage(facts, value)
        return wrong_value(row, value)

    for name in sorted(here):
        row, value = environment_variable(name), facts.environment[name]
        if row is None or not _read_here(facts, row.reader):
            continue
        problem = wrong(row, value)
        if not problem:
            continue
        better = _better(row.name, value, row.values)
        harmless = name.startswith("TF_CPP_") or problem.startswith("is above")
        yield Finding(
            code="ENV002",
            subject=name,
            framework=_READERS.get(row.reader, ""),
            severity_here=Severity.NOTE if harmless else None,
            message=f"{name}={value!r} {problem}: {row.reader} does not take it"
            + (f" ({row.default} counts)" if row.default else ""),
            evidence=(
                Evidence(name, repr(value), f"printenv {name}"),
                Evidence("takes", ", ".join(row.values) or row.kind.value, row.source),
            ),
            remedy=f"export {name}={quoted(better)}" if better else f"unset {name}",
        )


def _read_here(facts: Facts, reader: str) -> bool:
    """Whether what reads a variable is installed; CUDA's own are read where there is a GPU."""
    if reader not in _READERS:
        return gpu_wanted(facts)
    return any(f.name == _READERS[reader] for f in known(facts.frameworks))


def _percentage(facts: Facts, value: str) -> str:
    """75 for .75. More than 1 means something only with unified memory (JAX, GPU memory allocation)."""
    if (
        not value
        or float(value) <= 1
        or facts.environment.get("TF_FORCE_UNIFIED_MEMORY", "") not in {"", "0", "false"}
    ):
        return ""
    return "is more than the GPU has (1 is all of it)"


def _better(name: str, value: str, values: tuple[str, ...]) -> str:
    """The value that was probably meant; "" where none can be told."""
    word = value.strip().strip("\"'").lower()
    unit = _UNIT.fullmatch(word)
    if unit:
        return str(int(unit[1]) << {"k": 10, "m": 20, "g": 30}[unit[2].lower()])
    if name == "TF_CPP_MIN_LOG_LEVEL":
        return {"info": "0", "warning": "1", "warn": "1", "error": "2", "fatal": "3"}.get(word, "")
    if name.endswith("CLIENT_MEM_FRACTION"):
        return f"{float(word) / 100:g}" if _PERCENT.fullmatch(word) and 1 < int(word) <= 100 else ""
    switch = {"1": "true", "yes": "true", "on": "true", "0": "false", "no": "false", "off": "false"}
    for meant in (word, switch.get(word, ""), {"true": "1", "false": "0"}.get(word, "")):
        for known_value in values:
            if meant and known_value.lower() == meant:
                return known_value
    from difflib import get_close_matches  # noqa: PLC0415

    return next(iter(get_close_matches(value, values, n=1)), "")


def _missing_directories(facts: Facts) -> Iterator[Finding]:
    """A note: compilers of extensions read them, TensorFlow does not."""
    for name in _DIRECTORIES:
        path = facts.environment.get(name, "")
        if path and facts.xla.named.get(path) is False:
            yield Finding(
                code="ENV002",
                subject=name,
                severity_here=Severity.NOTE,
                message=f"{name}={path} is not a directory",
                evidence=(Evidence(name, path, f"ls -ld {quoted(path)}"),),
                remedy=f"unset {name}",
            )


def _missing_preloads(facts: Facts) -> Iterator[Finding]:
    value = facts.environment.get("LD_PRELOAD", "")
    missing = [p for p in re.split(r"[ :]+", value) if p and facts.xla.named.get(p) is False]
    if missing:
        kept = [p for p in re.split(r"[ :]+", value) if p and p not in missing]
        yield Finding(
            code="ENV002",
            subject="LD_PRELOAD",
            message=f"LD_PRELOAD names {', '.join(missing)}, which is not there: ld.so says so at every "
            "start, and goes on without it",
            evidence=(
                Evidence("LD_PRELOAD", value, "printenv LD_PRELOAD"),
                *(Evidence(p, "no such file", f"ls -l {quoted(p)}") for p in missing),
            ),
            remedy=f"export LD_PRELOAD={quoted(':'.join(kept))}" if kept else "unset LD_PRELOAD",
        )


def check_env_var_conflict(facts: Facts) -> Iterator[Finding]:
    """ENV001."""
    frameworks = {f.name: f for f in known(facts.frameworks)}
    if not frameworks:
        raise SkipError("no framework is installed")
    wanted = gpu_wanted(facts)
    if "jax" in frameworks:
        yield from _two_memory_fractions(facts)
        yield from _platforms(facts, frameworks["jax"], wanted=wanted)
    if not wanted:
        return
    if "tensorflow" in frameworks:
        yield from _async_allocator(facts, frameworks["tensorflow"])
    for framework in frameworks.values():
        if framework.cuda_build is True:
            yield from _ptx(facts, framework)


def _two_memory_fractions(facts: Facts) -> Iterator[Finding]:
    pair = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
    if all(facts.environment.get(name) for name in pair):
        yield Finding(
            code="ENV001",
            subject=pair[0],
            framework="jax",
            message=f"{pair[0]} and {pair[1]} are both set: JAX's CUDA plug-in stops with a ValueError",
            evidence=tuple(Evidence(n, facts.environment[n], f"printenv {n}") for n in pair),
            remedy=f"unset {pair[1]}",
        )


def _platforms(facts: Facts, jax: Framework, *, wanted: bool) -> Iterator[Finding]:
    """JAX starts the platforms that are named, and fails where one of them cannot be."""
    for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME"):
        value = facts.environment.get(name, "")
        platforms = {p.strip().lower() for p in value.split(",") if p.strip()}
        if not platforms:
            continue
        gpu = bool(platforms & {"cuda", "gpu"})
        if wanted and jax.cuda_build is True and not gpu:
            message = f"{name}={value} keeps JAX from the GPU that is here"
        elif not wanted and gpu and name == "JAX_PLATFORMS":
            message = f"{name}={value} asks for a GPU, and there is none here: JAX fails at its first use"
        else:
            continue
        yield Finding(
            code="ENV001",
            subject=name,
            framework="jax",
            message=message,
            evidence=(Evidence(name, value, f"printenv {name}"),),
            remedy=f"unset {name}",
        )


def _async_allocator(facts: Facts, tensorflow: Framework) -> Iterator[Finding]:
    if facts.environment.get("TF_GPU_ALLOCATOR") != "cuda_malloc_async" or tensorflow.cuda_build is not True:
        return
    serves = driver_cuda_version(facts)
    if tensorflow.cuda_version and release_key(tensorflow.cuda_version)[:2] < ASYNC_SINCE:
        problem = f"{title(tensorflow)} is built for CUDA {tensorflow.cuda_version}"
    elif serves and release_key(serves)[:2] < ASYNC_SINCE:
        problem = f"the driver serves CUDA up to {serves}"
    else:
        return
    yield Finding(
        code="ENV001",
        subject="TF_GPU_ALLOCATOR",
        framework="tensorflow",
        message=f"TF_GPU_ALLOCATOR=cuda_malloc_async needs CUDA 11.2 or newer; {problem}",
        evidence=(
            Evidence("TF_GPU_ALLOCATOR", "cuda_malloc_async", "printenv TF_GPU_ALLOCATOR"),
            Evidence("built for", f"CUDA {tensorflow.cuda_version}", tensorflow.source),
        ),
        remedy="unset TF_GPU_ALLOCATOR",
    )


def _ptx(facts: Facts, framework: Framework) -> Iterator[Finding]:
    """CUDA_FORCE_PTX_JIT leaves only the build's PTX, CUDA_DISABLE_PTX_JIT only its binaries."""
    force, disable, no_cache = (
        facts.environment.get(name) == "1"
        for name in ("CUDA_FORCE_PTX_JIT", "CUDA_DISABLE_PTX_JIT", "CUDA_CACHE_DISABLE")
    )
    if not (force or disable or no_cache) or isinstance(framework.compute_capabilities, Unavailable):
        return
    from envdoctor.knowledge.capabilities import Reach, parse_code, reach  # noqa: PLC0415

    codes = [c for c in map(parse_code, framework.compute_capabilities) if c]
    for gpu, capability in _capabilities(facts):
        key = release_key(capability)
        if len(key) < 2 or not codes:
            continue
        needs_ptx = reach(framework.compute_capabilities, capability) is Reach.PTX_JIT
        runs_ptx = any(c.ptx_runs_on((key[0], key[1])) for c in codes)
        if force and not runs_ptx:
            what = f"has no PTX for {gpu.name} (compute capability {capability}): no kernel can be loaded"
            yield _jit_finding("CUDA_FORCE_PTX_JIT", framework, gpu, capability, what)
        if disable and needs_ptx:
            what = f"runs on {gpu.name} (compute capability {capability}) only by its PTX"
            yield _jit_finding("CUDA_DISABLE_PTX_JIT", framework, gpu, capability, what)
        if no_cache and needs_ptx and not disable:
            what = f"compiles its PTX for {gpu.name} (compute capability {capability}) anew at every start"
            yield _jit_finding("CUDA_CACHE_DISABLE", framework, gpu, capability, what)


def _capabilities(facts: Facts) -> list[tuple[Gpu, str]]:
    found = []
    for gpu in gpus(facts):
        try:
            found.append((gpu, known(gpu.compute_capability)))
        except NotKnownError:
            continue
    return found


def _jit_finding(name: str, framework: Framework, gpu: Gpu, capability: str, what: str) -> Finding:
    return Finding(
        code="ENV001",
        subject=name,
        framework=framework.name,
        message=f"{name}=1, and {title(framework)} {what}",
        evidence=(
            Evidence(name, "1", f"printenv {name}"),
            Evidence(f"GPU {gpu.index}", f"compute capability {capability}", "nvidia-smi -L"),
            Evidence("built for", ", ".join(known(framework.compute_capabilities)), framework.source),
        ),
        remedy=f"unset {name}",
    )
