"""Where XLA would look for libdevice and ptxas, and what is there.

The order is `envdoctor.knowledge.xla_search`; this module looks, and judges nothing.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
import stat
from collections.abc import Iterator, Mapping

from envdoctor.facts.model import Framework, Interpreter, Packages
from envdoctor.facts.model_xla import FlagFile, Ptxas, Toolkit, Xla, XlaRoot, XlaSearch
from envdoctor.facts.root import Root
from envdoctor.facts.unavailable import Unavailable
from envdoctor.knowledge.xla_search import (
    DEFAULT_DATA_DIR,
    LIBDEVICE_DIRECTORY,
    LIBDEVICE_FILE,
    PTXAS_FILE,
    cuda_roots,
)

FLAG_VARIABLES = ("XLA_FLAGS", "TF_XLA_FLAGS")
DIRECTORY_VARIABLES = ("CUDA_HOME", "CUDA_PATH", "CUDA_ROOT")
DATA_DIR_FLAG = "xla_gpu_cuda_data_dir"
FILE_BYTES = 64 << 10
PTXAS_SECONDS = 5.0
_WHITE = " \t\r\n"  # of XLA's parser
_SPOKEN = re.compile(rb"\bV([0-9]+\.[0-9]+\.[0-9]+)")  # ptxas --version: "release 12.9, V12.9.86"
_DIRECTORY_VERSION = re.compile(r"/cuda-([0-9]+\.[0-9]+(?:\.[0-9]+)?)(?=/|$)")
_CONDA_NVCC = re.compile(r"cuda-nvcc(?:-tools|-impl)?-([0-9]+\.[0-9]+\.[0-9]+)-[^-]*\.json")
_ELSEWHERE = (("/usr/local", "cuda"), ("/opt", "cuda"), ("/usr/lib", "cuda"))
_DEBIAN_CHANGES = "/usr/share/doc/nvidia-cuda-toolkit/changelog.Debian.gz"


def read_xla(
    root: Root,
    environment: Mapping[str, str],
    interpreter: Interpreter | Unavailable,
    packages: Packages | Unavailable,
    frameworks: tuple[Framework, ...],
    *,
    run_tools: bool,
) -> Xla:
    """XLA's world. `run_tools` allows `ptxas --version` where no file tells, and only of this machine."""
    files = {
        variable: _flag_file(environment[variable], root)
        for variable in FLAG_VARIABLES
        if environment.get(variable) and environment[variable].lstrip(_WHITE)[:1] != "-"
    }
    disk = _Disk(root, packages, run_tools=run_tools and root.is_live)
    data_dir = _data_dir(environment.get("XLA_FLAGS", ""), files.get("XLA_FLAGS"))
    users = [f for f in frameworks if f.cuda_build is True and f.name in {"tensorflow", "jax"}]
    on_path = tuple(_on_path(disk, environment.get("PATH", ""))) if users else ()
    searches = tuple(
        XlaSearch(framework=f.name, data_dir=data_dir, roots=_roots(disk, f, data_dir), on_path=on_path)
        for f in users
    )
    return Xla(
        flag_files=files,
        searches=searches,
        toolkits=tuple(_toolkits(disk, environment, interpreter, data_dir)) if users else (),
        tools_run=disk.run_tools,
        named=dict(_named(root, environment)),
    )


def _flag_file(path: str, root: Root) -> FlagFile | Unavailable:
    if not path.startswith("/") and not root.is_live:
        return Unavailable(f"{path!r} is relative to the directory where the program is started")
    try:
        if not stat.S_ISREG(root.stat(path).st_mode):
            return Unavailable(f"{path} is not a regular file")
        return FlagFile(path=path, text=root.read_bytes(path, FILE_BYTES).decode("utf-8", "surrogateescape"))
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}:
            return FlagFile(path=path, text="", missing=error.strerror or str(error))
        return Unavailable(f"{path}: {error.strerror}")


def _data_dir(value: str, file: FlagFile | Unavailable | None) -> str:
    """What --xla_gpu_cuda_data_dir says; the last one counts."""
    text = file.text if isinstance(file, FlagFile) else value
    if DATA_DIR_FLAG not in text:
        return ""
    from envdoctor.knowledge.flags import parse_flag_text  # noqa: PLC0415  rarely needed, costs 5 ms

    flags = parse_flag_text(text).flags
    return next((f.value for f in reversed(flags) if f.text.startswith("--" + DATA_DIR_FLAG) and f.value), "")


class _Disk:
    """Looks at directories and tools, each once."""

    def __init__(self, root: Root, packages: Packages | Unavailable, *, run_tools: bool) -> None:
        self.root = root
        self.run_tools = run_tools
        self._wheels = (
            {}
            if isinstance(packages, Unavailable)
            else {
                d.location: d.version for d in packages.distributions if d.name.startswith("nvidia-cuda-nvcc")
            }
        )
        self._toolkits: dict[str, Toolkit | Unavailable] = {}
        self._versions: dict[str, tuple[str | Unavailable, str]] = {}

    def toolkit(self, path: str) -> Toolkit | Unavailable:
        if path not in self._toolkits:
            self._toolkits[path] = self._look(path)
        return self._toolkits[path]

    def _look(self, path: str) -> Toolkit | Unavailable:
        if not path.startswith("/") and not self.root.is_live:
            return Unavailable("relative to the directory where the program is started")
        try:
            directory = stat.S_ISDIR(self.root.stat(path).st_mode)
        except OSError as error:
            if error.errno in {errno.EACCES, errno.EIO, errno.ESTALE}:
                return Unavailable(f"{path}: {error.strerror}")
            directory = False
        nvvm = directory and self.root.is_dir(f"{path}/{LIBDEVICE_DIRECTORY}")
        return Toolkit(
            path=path,
            directory=directory,
            tools=directory and self.root.is_dir(f"{path}/bin"),
            libdevice_directory=nvvm,
            libdevice=nvvm and self.root.is_file(f"{path}/{LIBDEVICE_FILE}"),
            ptxas=self.ptxas(f"{path}/{PTXAS_FILE}") if directory else None,
        )

    def ptxas(self, path: str) -> Ptxas | None:
        try:
            host = self.root.host(path)
            if not stat.S_ISREG(os.stat(host).st_mode):
                return None
            real = self.root.realpath(path)
            executable = os.access(host, os.X_OK)
            if executable and self.root.is_live:
                executable = not os.statvfs(host).f_flag & os.ST_NOEXEC
        except OSError:
            return None
        if real not in self._versions:
            self._versions[real] = self._version(real, executable=executable)
        version, source = self._versions[real]
        return Ptxas(path=path, real=real, executable=executable, version=version, source=source)

    def _version(self, real: str, *, executable: bool) -> tuple[str | Unavailable, str]:
        for found in self._written_versions(real):
            if found[0]:
                return found
        if not executable:
            return Unavailable("it cannot be run"), ""
        command = f"{real} --version"
        if not self.run_tools:
            return Unavailable(f"no file tells it, and {command} was not run"), ""
        from envdoctor.facts import child  # noqa: PLC0415  rarely needed

        outcome = child.start([real, "--version"], {}).finish(PTXAS_SECONDS)
        spoken = _SPOKEN.search(outcome.stdout)
        if spoken is None:
            return Unavailable(f"{command}: {outcome.describe()}"), command
        return spoken[1].decode(), command

    def _written_versions(self, real: str) -> Iterator[tuple[str, str]]:
        home = posixpath.dirname(posixpath.dirname(real))
        site = posixpath.dirname(posixpath.dirname(home))
        if site in self._wheels and posixpath.basename(posixpath.dirname(home)) == "nvidia":
            yield self._wheels[site], f"the wheel nvidia-cuda-nvcc in {site}"
        yield self._json_version(f"{home}/version.json"), f"{home}/version.json"
        yield self._text_version(f"{home}/version.txt"), f"{home}/version.txt"
        for name in self.listdir(f"{home}/conda-meta"):
            match = _CONDA_NVCC.fullmatch(name)
            if match:
                yield match[1], f"{home}/conda-meta/{name}"
        match = _DIRECTORY_VERSION.search(real)
        if match:
            yield match[1], f"the name of {home}"
        if home in {"/usr", "/usr/lib/nvidia-cuda-toolkit"}:
            yield self._debian_version(), _DEBIAN_CHANGES

    def installer(self, framework: Framework) -> str:
        """`pip`, `conda`, `uv` …, as it signed itself."""
        name = f"{framework.distribution.replace('-', '_')}-{framework.version}.dist-info"
        try:
            data = self.root.read_bytes(f"{posixpath.dirname(framework.location)}/{name}/INSTALLER", 100)
        except OSError:
            return ""
        return data.decode("utf-8", "replace").strip()

    def _json_version(self, path: str) -> str:
        """Of the component cuda_nvcc, else of the toolkit; version.json has come with it since CUDA 11.1."""
        try:
            data = self.root.read_bytes(path, FILE_BYTES)
        except OSError:
            return ""
        import msgspec  # noqa: PLC0415

        try:
            content = msgspec.json.decode(data, type=dict[str, dict[str, str]])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return ""
        return next((content[k].get("version", "") for k in ("cuda_nvcc", "cuda") if k in content), "")

    def _text_version(self, path: str) -> str:
        try:
            data = self.root.read_bytes(path, FILE_BYTES)
        except OSError:
            return ""
        match = re.search(rb"CUDA Version ([0-9]+(?:\.[0-9]+)+)", data)
        return match[1].decode() if match else ""

    def _debian_version(self) -> str:
        """`11.5.1` of the package nvidia-cuda-toolkit 11.5.1-1ubuntu1, which has no other file that tells."""
        try:
            data = self.root.read_bytes(_DEBIAN_CHANGES, 1 << 20)
        except OSError:
            return ""
        import zlib  # noqa: PLC0415

        try:
            head = zlib.decompressobj(wbits=31).decompress(data, 200)
        except zlib.error:
            return ""
        match = re.match(rb"nvidia-cuda-toolkit \(([0-9]+(?:\.[0-9]+)+)", head)
        return match[1].decode() if match else ""

    def listdir(self, directory: str) -> list[str]:
        try:
            return sorted(self.root.listdir(directory))
        except OSError:
            return []


def _roots(disk: _Disk, framework: Framework, data_dir: str) -> tuple[XlaRoot, ...]:
    return tuple(
        XlaRoot(path=posixpath.normpath(path), what=what, found=disk.toolkit(posixpath.normpath(path)))
        for path, what in _root_names(disk, framework, data_dir or DEFAULT_DATA_DIR)
    )


def _root_names(disk: _Disk, framework: Framework, data_dir: str) -> Iterator[tuple[str, str]]:
    if framework.name == "tensorflow":
        for row in cuda_roots(framework.version, framework.location, framework.cuda_version, data_dir):
            yield row.path, row.what
        if disk.installer(framework) == "conda":  # conda-forge's builds are patched to look there
            yield f"{framework.location}/../../../..", "the conda prefix"
        return
    site = posixpath.dirname(framework.location)
    yield data_dir, "--xla_gpu_cuda_data_dir"
    yield "/usr/local/cuda", "fixed"
    yield "/opt/cuda", "fixed"
    yield f"{site}/nvidia/cuda_nvcc", "the wheel nvidia-cuda-nvcc"
    yield f"{site}/nvidia/cu13", "the wheels of CUDA 13"
    yield f"{site}/jaxlib/cuda", "copy inside the package, to jaxlib 0.4.30"
    yield posixpath.normpath(f"{site}/../../.."), "the conda prefix"
    yield ".", "current directory"


def _on_path(disk: _Disk, path: str) -> Iterator[Ptxas]:
    for directory in path.split(":") if path else ():
        if directory.startswith("/") or disk.root.is_live:
            tool = disk.ptxas(posixpath.join(directory or ".", "ptxas"))
            if tool:
                yield tool


def _toolkits(
    disk: _Disk, environment: Mapping[str, str], interpreter: Interpreter | Unavailable, data_dir: str
) -> Iterator[Toolkit]:
    """Those that have libdevice or ptxas, each once."""
    seen = set()
    for path in _toolkit_places(disk, environment, interpreter, data_dir):
        if not path.startswith("/") or path in seen:
            continue
        seen.add(path)
        found = disk.toolkit(path)
        if isinstance(found, Toolkit) and (found.libdevice or found.ptxas):
            yield found


def _toolkit_places(
    disk: _Disk, environment: Mapping[str, str], interpreter: Interpreter | Unavailable, data_dir: str
) -> Iterator[str]:
    place = data_dir
    for _ in range(4):  # people name nvvm/libdevice/libdevice.10.bc itself, or bin
        place = posixpath.dirname(place)
        if place.count("/") > 1:
            yield place
    for variable in DIRECTORY_VARIABLES:
        yield environment.get(variable, "")
    if isinstance(interpreter, Interpreter):
        for site in interpreter.site_packages:
            yield f"{site}/nvidia/cuda_nvcc"
            yield f"{site}/nvidia/cu13"
        if interpreter.kind == "conda":
            yield interpreter.prefix
            yield f"{interpreter.prefix}/lib"
    if environment.get("CONDA_PREFIX"):
        yield environment["CONDA_PREFIX"]
        yield f"{environment['CONDA_PREFIX']}/lib"
    for parent, prefix in _ELSEWHERE:
        for name in disk.listdir(parent):
            if name.startswith(prefix):
                yield f"{parent}/{name}"


def _named(root: Root, environment: Mapping[str, str]) -> Iterator[tuple[str, bool | Unavailable]]:
    """Directories and preloaded files that variables name; a "$" is ld.so's own to expand (ld.so(8))."""
    for variable in DIRECTORY_VARIABLES:
        path = environment.get(variable, "")
        if path:
            yield path, _is(path, root, directory=True)
    for path in preloaded(environment.get("LD_PRELOAD", "")):
        yield path, _is(path, root, directory=False)


def preloaded(value: str) -> list[str]:
    """The files of LD_PRELOAD, which spaces or colons separate; bare names are searched for, not files."""
    return [p for p in re.split(r"[ :]+", value) if "/" in p and "$" not in p]


def _is(path: str, root: Root, *, directory: bool) -> bool | Unavailable:
    if not path.startswith("/") and not root.is_live:
        return Unavailable(f"{path!r} is relative to the directory where the program is started")
    try:
        mode = root.stat(path).st_mode
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}:
            return False
        return Unavailable(f"{path}: {error.strerror}")
    return stat.S_ISDIR(mode) or not directory
