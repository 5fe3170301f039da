"""The host: C libraries, CPU instructions, platform, Secure Boot, and what a suspend leaves behind."""

from __future__ import annotations

from collections.abc import Iterator

from envdoctor.checks.administration import ask_for_gpu, privileged
from envdoctor.checks.distributions import enrol_key, is_jetson
from envdoctor.checks.driver_remedies import newer_driver, reload_uvm
from envdoctor.checks.installing import Remedy, conda_install, pip_install
from envdoctor.checks.machine import (
    cuda_frameworks,
    driver_cuda_version,
    require_gpu_wanted,
    silent_driver,
    title,
)
from envdoctor.facts.loader import Process, RecordedView
from envdoctor.facts.loader_model import Lookup, Rule
from envdoctor.facts.model import Facts, Framework, ProbeFailure, Unavailable, known
from envdoctor.facts.model_containers import Binaries, SecureBoot
from envdoctor.facts.model_xla import Toolkit
from envdoctor.finding import Evidence, Finding, SkipError
from envdoctor.knowledge.drivers import driver_serving
from envdoctor.knowledge.tables import release_key
from envdoctor.shell import quoted

# What checks the symbol versions of which library (glibc, elf/dl-version.c): these two families move with the
# distribution, and with the compiler.
_FAMILIES = {
    "HST001": ("libc.so.6", "libm.so.6"),
    "HST002": ("libstdc++.so.6",),
}
# The GCC that brought them (libstdc++ manual, ABI policy); all before come with 12.
_GCC_OF = {
    "GLIBCXX_3.4.31": "13.1",
    "CXXABI_1.3.14": "13.1",
    "GLIBCXX_3.4.32": "13.2",
    "GLIBCXX_3.4.33": "14.1",
    "CXXABI_1.3.15": "14.1",
}
# The first releases whose PyPI wheels are compiled with AVX: tensorflow/tensorflow#17411, jax-ml/jax#6671.
# PyTorch's wheels choose their kernels at run time.
_NEEDS_AVX = {"tensorflow": (1, 6), "jax": (0, 1, 62)}


def check_c_libraries(facts: Facts) -> Iterator[Finding]:
    """The loader compares version names for every library: one that is not defined ends the import."""
    if not any(b.objects for b in facts.surroundings.binaries):
        raise SkipError("no framework is installed")
    if facts.host.libc == "musl":
        raise SkipError("musl knows no symbol versions (see HST004)")
    frameworks = {f.name: f for f in known(facts.frameworks)}
    for binaries in facts.surroundings.binaries:
        wanted = _needs(binaries, facts)
        if not wanted:
            continue
        providers = _providers(binaries, facts)
        for code, libraries in _FAMILIES.items():
            for library in libraries:
                lookup = providers.get(library)
                symbols = facts.surroundings.symbols.get(lookup.real) if lookup else None
                if lookup is None or symbols is None or not symbols.defined:
                    continue  # not found is LIB008's; a library without versions satisfies every need
                missing = {
                    need: user
                    for need, user in wanted.get(library, {}).items()
                    if need not in symbols.defined
                }
                if missing:
                    yield _too_old(code, lookup, missing, frameworks[binaries.framework], facts)
                    break


def _needs(binaries: Binaries, facts: Facts) -> dict[str, dict[str, str]]:
    """By library, the versions that a framework's own files need, each with a file that needs it."""
    wanted: dict[str, dict[str, str]] = {}
    for path in binaries.objects:
        symbols = facts.surroundings.symbols.get(path)
        for library, versions in symbols.needed.items() if symbols else ():
            wanted.setdefault(library, {}).update(dict.fromkeys(versions, path))
    return wanted


def _providers(binaries: Binaries, facts: Facts) -> dict[str, Lookup]:
    """Which C libraries the process holds after `import`: the first that anything asks for stays."""
    process = Process(RecordedView(facts.libraries), facts.environment)
    started = process.load_program(facts.program)
    opened = process.dlopen(binaries.objects[0])
    found: dict[str, Lookup] = {}
    for lookup in _tree((started, opened)):
        if lookup.real and lookup.rule is not Rule.LOADED:
            found.setdefault(lookup.name, lookup)
    return found


def _tree(lookups: tuple[Lookup, ...]) -> Iterator[Lookup]:
    for lookup in lookups:
        yield lookup
        yield from _tree(lookup.needed)


def _too_old(
    code: str, lookup: Lookup, missing: dict[str, str], framework: Framework, facts: Facts
) -> Finding:
    newest = max(missing, key=_version_key)
    user = missing[newest]
    defined = facts.surroundings.symbols[lookup.real].defined
    family = newest.rpartition("_")[0] + "_"
    offers = max(
        (v for v in defined if v.startswith(family)), key=_version_key, default="none of that family"
    )
    name = "glibc" if code == "HST001" else "libstdc++"
    better = () if code == "HST001" else _newer_copies(lookup, missing, facts)
    cure = (
        _newer_glibc(framework, facts)
        if code == "HST001"
        else _newer_libstdcxx(lookup, newest, better, facts)
    )
    return Finding(
        code=code,
        subject=lookup.name,
        framework=framework.name,
        message=f"{title(framework)} needs {newest}; the {name} that is found first ({lookup.path}) "
        f"ends at {offers}",
        evidence=(
            Evidence("needed by", f"{user} ({newest})", f"readelf -V {quoted(user)} | grep {newest}"),
            Evidence("found first", lookup.path, f"because of {_why(lookup, facts)}"),
            Evidence("it defines up to", offers, f"readelf -V {quoted(lookup.real)} | grep {family}"),
            *(Evidence("new enough", path, f"readelf -V {quoted(path)}") for path in better),
        ),
        remedy=cure.text,
        commands=cure.commands,
    )


def _newer_copies(lookup: Lookup, missing: dict[str, str], facts: Facts) -> tuple[str, ...]:
    """Other copies of a library on this target that define all that is missing."""
    return tuple(
        real
        for real, symbols in facts.surroundings.symbols.items()
        if real != lookup.real
        and real.rpartition("/")[2].startswith("libstdc++.")
        and set(missing) <= set(symbols.defined)
    )


def _newer_glibc(framework: Framework, facts: Facts) -> Remedy:
    """Pip chooses wheels by the system's glibc: what does not fit came around it."""
    again = pip_install(
        known(facts.interpreter), "--force-reinstall", "--only-binary", ":all:", framework.distribution
    )
    known_to_exist = f"a wheel for {_libc(facts)}; where there is none: a newer distribution, or a container"
    return Remedy((again,)).only_said(known_to_exist)


def _newer_libstdcxx(lookup: Lookup, newest: str, better: tuple[str, ...], facts: Facts) -> Remedy:
    if lookup.rule is Rule.LD_LIBRARY_PATH:
        directory = lookup.path.rpartition("/")[0]
        entries = facts.environment.get("LD_LIBRARY_PATH", "").split(":")
        rest = [e for e in entries if e and e.rstrip("/") != directory.rstrip("/")]
        return Remedy(
            words=f"export LD_LIBRARY_PATH={quoted(':'.join(rest))}" if rest else "unset LD_LIBRARY_PATH"
        )
    package = f"libstdcxx-ng>={_GCC_OF.get(newest, '12')}"
    interpreter = known(facts.interpreter)
    if interpreter.kind == "conda" and lookup.real.startswith(f"{interpreter.prefix}/"):
        return conda_install(interpreter, package)
    if better:
        return Remedy(words=f"export LD_PRELOAD={quoted(better[0])}    # or upgrade {lookup.path}'s package")
    if {"debian", "ubuntu"} & {facts.host.os_id, *facts.host.os_like} and not ask_for_gpu(facts):
        return Remedy(
            words="sudo apt-get install --only-upgrade libstdc++6    # or a newer distribution, or conda"
        )
    return Remedy(words=f"conda install -c conda-forge {quoted(package)}    # or a newer distribution")


def _why(lookup: Lookup, facts: Facts) -> str:
    if lookup.rule is Rule.LD_LIBRARY_PATH:
        return f"LD_LIBRARY_PATH={facts.environment.get('LD_LIBRARY_PATH', '')}"
    if lookup.rule in {Rule.RUNPATH, Rule.RPATH}:
        return f"the {lookup.rule.value} of {lookup.requester.rpartition('/')[2]}"
    return lookup.rule.value if lookup.rule else ""


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.rpartition("_")[2].split(".") if part.isdigit())


# --- what the wheels were built for -----------------------------------------------------------------


def check_cpu_instructions(facts: Facts) -> Iterator[Finding]:
    """Only PyPI's own wheels are judged: conda's, and what was built here (tagged linux_…), need no AVX."""
    if facts.host.machine != "x86_64":
        raise SkipError(f"no wheel for {facts.host.machine} needs AVX")
    tags = {b.framework: b.tags for b in facts.surroundings.binaries}
    judged = [
        f
        for f in known(facts.frameworks)
        if f.name in _NEEDS_AVX
        and any("manylinux" in tag for tag in tags.get(f.name, ()))
        and release_key(f.version) >= _NEEDS_AVX[f.name]
    ]
    if not judged:
        raise SkipError("no wheel that needs AVX is installed")
    flags = known(facts.surroundings.cpu_flags)
    if flags is None:
        raise SkipError("a tree without /proc tells no CPU")
    for framework in judged:
        if "avx" in flags:
            continue
        model = facts.host.cpu.model or "this CPU"
        guest = "hypervisor" in flags
        yield Finding(
            code="HST003",
            subject=model,
            framework=framework.name,
            message=f"{title(framework)}'s wheel is compiled with AVX, which {model} does not "
            f"{'show to this virtual machine' if guest else 'have'}: import dies with Illegal instruction",
            evidence=(
                Evidence("CPU", f"{model}, no avx among {len(flags)} flags", "grep -c -w avx /proc/cpuinfo"),
                Evidence("wheel", ", ".join(tags[framework.name]), "its WHEEL file"),
            ),
            remedy="start the guest with the host's CPU model (QEMU: -cpu host; libvirt: "
            "<cpu mode='host-passthrough'/>; Proxmox: qm set VMID --cpu host)"
            if guest
            else "conda install -c conda-forge tensorflow    # built without AVX"
            if framework.name == "tensorflow"
            else "conda install -c conda-forge jax    # or build jaxlib from source",
        )


def check_platform(facts: Facts) -> Iterator[Finding]:
    """Machines for which nobody publishes a GPU build, though a plain install succeeds."""
    require_gpu_wanted(facts)
    machine = facts.host.machine
    for framework in known(facts.frameworks):
        if facts.host.libc == "musl":
            message = "runs on musl, for which NVIDIA has no driver libraries: use an image with glibc"
            remedy = f"use an image with glibc: python:{_minor(facts)}-slim (Debian) in place of Alpine's"
        elif framework.name == "tensorflow" and framework.cuda_build is False and machine != "x86_64":
            message = f"has no GPU build for {machine} on PyPI"
            remedy = _built_elsewhere(facts)
        else:
            continue
        yield Finding(
            code="HST004",
            subject=machine,
            framework=framework.name,
            message=f"{title(framework)} {message}",
            evidence=(
                Evidence("machine", f"{machine}, {_libc(facts)}", "uname -m; ldd --version"),
                Evidence("build", f"CUDA: {framework.cuda_build}", framework.source),
            ),
            remedy=remedy,
        )


def _minor(facts: Facts) -> str:
    interpreter = facts.interpreter
    return "3" if isinstance(interpreter, Unavailable) else ".".join(interpreter.version.split(".")[:2])


def _built_elsewhere(facts: Facts) -> str:
    """Sources: NGC's catalogue; NVIDIA, "Installing TensorFlow for Jetson Platform"."""
    if is_jetson(facts):
        return (
            "take the wheel that NVIDIA builds for this JetPack: `dpkg-query -W nvidia-l4t-core` tells its "
            'version, "Installing TensorFlow for Jetson Platform" the command'
        )
    if facts.host.machine == "aarch64":
        return "use NVIDIA's own container: NGC, tensorflow, tag 25.02-tf2-py3"
    return f"build TensorFlow from source for {facts.host.machine} (./configure, with CUDA): no wheel has it"


def _libc(facts: Facts) -> str:
    return "C library unknown" if isinstance(facts.host.libc, Unavailable) else facts.host.libc


# --- the kernel and the driver ----------------------------------------------------------------------


def check_secure_boot(facts: Facts) -> Iterator[Finding]:
    """The module is on the disk, is not loaded, and the kernel would refuse it."""
    silent_driver(facts)
    if known(facts.driver.kernel_module):
        raise SkipError("the kernel module is loaded")
    boot = facts.surroundings.secure_boot
    if boot is None:
        raise SkipError("Secure Boot has no say here")
    boot = known(boot)
    if not boot.enabled or boot.lockdown == "none" or not boot.module:
        return
    why = _refusal(boot)
    if not why:
        return
    message = f"Secure Boot is on, and the kernel refuses the NVIDIA module: {why}"
    yield Finding(
        code="DRV006",
        subject="nvidia.ko",
        message=message,
        evidence=(
            Evidence("Secure Boot", "enabled", "mokutil --sb-state"),
            Evidence("module", f"{boot.module}: {why}", f"modinfo -F signer {quoted(boot.module)}"),
            Evidence("lockdown", boot.lockdown or "not told", "cat /sys/kernel/security/lockdown"),
        ),
        remedy=_enrol(facts, message),
    )


def _refusal(boot: SecureBoot) -> str:
    """Why the module is refused; "" where it may be taken, or nobody can tell."""
    if boot.signed is False:
        return "it is not signed"
    built_here = "/updates/dkms/" in boot.module or "/extra/" in boot.module
    if boot.enrolled is False and built_here:
        return "it is signed with this machine's own key, which the firmware does not know"
    return ""


def _enrol(facts: Facts, says: str) -> str:
    command = enrol_key(facts)
    if not command:
        return (
            "sign the module and enrol its key (mokutil --import), or switch Secure Boot off in the firmware"
        )
    return privileged(facts, says, command, "at the console, in the blue menu of the next start: Enroll MOK")


def check_cuinit_after_suspend(facts: Facts) -> Iterator[Finding]:
    require_gpu_wanted(facts)
    cuda = facts.driver.cuda
    if not isinstance(cuda, ProbeFailure) or cuda.code != 999:
        return
    suspends = known(facts.surroundings.suspends)
    if not suspends:
        return
    message = (
        f"cuInit fails with CUDA_ERROR_UNKNOWN (999), and this machine was suspended {suspends} "
        f"time{'' if suspends == 1 else 's'} since it started"
    )
    yield Finding(
        code="DRV011",
        subject="cuInit",
        message=message,
        evidence=(
            Evidence("cuInit", cuda.detail, "nvidia-smi; sudo dmesg | grep -i nvrm"),
            Evidence("suspends", str(suspends), "cat /sys/power/suspend_stats/success"),
        ),
        remedy=reload_uvm(facts, message),
    )


def check_older_than_ptxas(facts: Facts) -> Iterator[Finding]:
    """Where the wheel's ptxas is the only one: a whole toolkit has nvlink, which links without the driver."""
    require_gpu_wanted(facts)
    frameworks = {f.name: f for f in cuda_frameworks(facts)}
    serves = driver_cuda_version(facts)
    if not serves:
        raise SkipError("the driver does not say which CUDA it serves")
    for search in facts.xla.searches:
        framework = frameworks.get(search.framework)
        if framework is None or not _links_with_the_driver(framework):
            continue
        roots = (r.found.ptxas for r in search.roots if isinstance(r.found, Toolkit))
        found = {p.real: p for p in (*search.on_path, *roots) if p and p.executable}
        tools = list(found.values())
        if len(tools) != 1 or "/nvidia/" not in tools[0].real or not isinstance(tools[0].version, str):
            continue
        tool, version = tools[0], str(tools[0].version)
        if release_key(serves)[:2] >= release_key(version)[:2]:
            continue
        message = (
            f"the driver serves CUDA {serves}, and ptxas is {version}: XLA of {title(framework)} "
            "compiles one kernel after another (only compilation is slower)"
        )
        row = driver_serving(version)
        yield Finding(
            code="DRV015",
            subject="ptxas",
            framework=framework.name,
            message=message,
            evidence=(
                Evidence("driver", f"CUDA {serves}", "nvidia-smi | grep 'CUDA Version'"),
                Evidence("ptxas", f"{tool.path} ({version})", f"{quoted(tool.path)} --version"),
            ),
            remedy=newer_driver(facts, message, row.driver) if row else "",
        )


def _links_with_the_driver(framework: Framework) -> bool:
    """The releases whose XLA asks the driver (nvptx_compiler.cc, ChooseLinkingMethod), as far as reports of
    its message go: TensorFlow to 2.18 (conda-forge/tensorflow-feedstock#417), JAX 0.4.24 to 0.4.31
    (jax-ml/jax#19821, #25718). TensorFlow 2.21's libraries do not hold the message.
    """
    key = release_key(framework.version)
    if framework.name == "tensorflow":
        return (2, 14) <= key[:2] <= (2, 18)
    return framework.name == "jax" and (0, 4, 24) <= key[:3] <= (0, 4, 31)
