"""The loader's world for the target: all that a look-up touches, and all that a repair could."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from envdoctor.facts.loader import Process
from envdoctor.facts.loader_disk import DiskView
from envdoctor.facts.loader_model import ElfObject, LibraryWorld, stem
from envdoctor.facts.model import DriverLibrary, Framework, Interpreter, Place, Unavailable
from envdoctor.facts.root import Root
from envdoctor.facts.surroundings import main_objects
from envdoctor.resolution import DRIVER_SONAMES, driver_libraries, look_up


def read_libraries(
    root: Root,
    environment: Mapping[str, str],
    interpreter: Interpreter | Unavailable,
    program: str,
    frameworks: tuple[Framework, ...],
    others: Iterable[Mapping[str, str]] = (),
) -> tuple[LibraryWorld, tuple[Place, ...], tuple[DriverLibrary, ...] | Unavailable]:
    """The world recorded, the places where CUDA libraries may be, and the driver's user-space libraries."""
    view = DiskView(root)
    process = Process(view, environment)
    process.load_program(program)
    driver = [process.dlopen(name, "") for name in DRIVER_SONAMES]
    places = tuple(_places(root, environment, interpreter))
    stems = {stem(name) for name in DRIVER_SONAMES}
    for framework in frameworks:
        if framework.cuda_build is True and framework.opener:
            for one in (environment, *others):  # a notebook kernel may start in another environment
                look_up(view, one, program, framework)
            stems |= {stem(r.soname) for r in framework.requirements}
    for framework in frameworks:
        for path in main_objects(framework, root)[:1]:  # the C libraries that come with `import`
            process.dlopen(path)
    stems |= {"libcudart", "libcudnn", "libnvrtc"}
    for directory in (*(p.directory for p in places), *_listed(view, environment, stems)):
        view.look_at_directory(directory)
    return _closed(view, stems), places, driver_libraries(driver)


def _listed(view: DiskView, environment: Mapping[str, str], stems: set[str]) -> dict[str, None]:
    """The directories on LD_LIBRARY_PATH, and those where ld.so.cache has libraries of these names."""
    path = environment.get("LD_LIBRARY_PATH", "").replace(";", ":")
    listed = dict.fromkeys(e.rstrip("/") for e in path.split(":") if e.startswith("/") and "$" not in e)
    for entry in view.cache:
        if stem(entry.name) in stems:
            listed[os.path.dirname(entry.path)] = None
    listed.pop("", None)
    return listed


def _closed(view: DiskView, stems: set[str]) -> LibraryWorld:
    """The world with what the candidates need themselves: a repair may bring any of them into play."""
    while True:
        world = view.record(stems)
        needed = (o.needed for o in world.objects.values() if isinstance(o, ElfObject))
        stems = {stem(name) for names in needed for name in names}
        if stems <= world.stems:
            return world


def writable_directories(root: Root, world: LibraryWorld) -> frozenset[str]:
    """The real directories among those that are searched where this user may make a link."""
    real = {directory for directory in world.aliases.values() if directory}
    return frozenset(d for d in real if os.access(root.host(d), os.W_OK))


def _places(
    root: Root, environment: Mapping[str, str], interpreter: Interpreter | Unavailable
) -> Iterator[Place]:
    """Most specific first; each directory once, and only those that exist."""
    seen: set[str] = set()
    for kind, directory in _candidates(root, environment, interpreter):
        if directory not in seen and root.is_dir(directory):
            seen.add(directory)
            yield Place(directory=directory, kind=kind)


def _candidates(
    root: Root, environment: Mapping[str, str], interpreter: Interpreter | Unavailable
) -> Iterator[tuple[str, str]]:
    if isinstance(interpreter, Interpreter):
        for site in interpreter.site_packages:
            for component in _names(root, f"{site}/nvidia"):
                yield "pip wheel", f"{site}/nvidia/{component}/lib"
            for name in ("tensorrt_libs", "tensorrt"):
                yield "pip wheel", f"{site}/{name}"
        if interpreter.kind == "conda":
            yield "conda", f"{interpreter.prefix}/lib"
            yield "conda", f"{interpreter.prefix}/targets/x86_64-linux/lib"
    if environment.get("CONDA_PREFIX"):
        yield "conda", f"{environment['CONDA_PREFIX']}/lib"
    for variable in ("CUDA_HOME", "CUDA_PATH", "CUDA_ROOT"):
        if environment.get(variable):
            yield f"${variable}", f"{environment[variable]}/lib64"
    for parent, prefix in (("/usr/local", "cuda"), ("/opt", "cuda"), ("/usr/lib", "cuda")):
        for name in _names(root, parent):
            if name.startswith(prefix):
                for below in ("lib64", "targets/x86_64-linux/lib", "extras/CUPTI/lib64", "lib"):
                    yield "CUDA toolkit", f"{parent}/{name}/{below}"
    machine = os.uname().machine
    for directory in (
        "/usr/local/lib",
        f"/usr/lib/{machine}-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/usr/lib/wsl/lib",
        "/usr/local/nvidia/lib64",
    ):
        yield "system", directory


def _names(root: Root, directory: str) -> list[str]:
    try:
        return sorted(root.listdir(directory))
    except OSError:
        return []
