"""TensorFlow of every era: build_info.py, METADATA and ELF headers.

Read from the wheels of 1.12.3, 1.15.5 (tensorflow-gpu), 2.1.4, 2.4.4, 2.16.1 and 2.21.0:
- The package is `tensorflow_core` from 1.15 to 2.1 (`tensorflow` forwards to it), else `tensorflow`.
- To 1.13 CUDA's libraries are linked: DT_NEEDED of libtensorflow_framework.so (cublas, cudart, cudnn, cufft,
  curand) and of python/_pywrap_tensorflow_internal.so (cusolver besides), so that a miss is an ImportError.
  From 1.14 on libtensorflow_framework.so.N opens them with dlopen.
- That object has DT_RPATH `$ORIGIN/` to 2.5, DT_RUNPATH `$ORIGIN/` to 2.13, and DT_RUNPATH to the nvidia
  wheels from 2.14 on.
- build_info.py of 1.12 tells `is_cuda_build` alone, that of 1.15 CUDA "10" for 10.0; from 2.3 on it is exact.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

from envdoctor.facts.linked import linked_to
from envdoctor.facts.model import Distribution, Framework, Packages, Requirement, Unavailable
from envdoctor.facts.root import Root
from envdoctor.knowledge.frameworks import TensorFlowRelease, tensorflow_release
from envdoctor.knowledge.loading import release_key
from envdoctor.knowledge.sonames import cuda_sonames

TENSORFLOW_DISTRIBUTIONS = (
    "tensorflow",
    "tensorflow-gpu",
    "tensorflow-cpu",
    "tf-nightly",
    "tf-nightly-gpu",
    "tf-nightly-cpu",
    "intel-tensorflow",
    "tensorflow-cpu-aws",
    "tensorflow-base",
)
_BUILD_INFO = "python/platform/build_info.py"
_EXTENSION = "python/_pywrap_tensorflow_internal.so"
_LIBRARIES = (
    "libtensorflow_framework.so.2",
    "libtensorflow_framework.so.1",
    "libtensorflow_framework.so",
)


def read_tensorflow(sites: Sequence[str], packages: Packages, root: Root) -> Framework | None:
    """The TensorFlow that `import` would find; None where there is none."""
    site = next((s for s in sites if root.is_file(f"{s}/tensorflow/__init__.py")), "")
    if not site:
        return None
    package = f"{site}/tensorflow"
    if not root.exists(f"{package}/{_BUILD_INFO}") and root.is_file(f"{site}/tensorflow_core/__init__.py"):
        package = f"{site}/tensorflow_core"
    distribution = _providing(site, packages)
    version = distribution.version if distribution else ""
    source = f"{package}/{_BUILD_INFO}"
    build = _build_info(source, root)
    if isinstance(build, Unavailable):
        return Framework(
            name="tensorflow",
            distribution=distribution.name if distribution else "",
            version=version,
            location=package,
            cuda_build=build,
            cuda_version="",
            cudnn_version="",
            compute_capabilities=build,
            opener="",
            requirements=(),
            source=source,
        )
    is_cuda = bool(build.get("is_cuda_build"))
    row = tensorflow_release(version) if is_cuda else None
    cuda = _whole(str(build.get("cuda_version") or ""), row.cuda if row else "")
    cudnn = str(build.get("cudnn_version") or (row.cudnn if row else ""))
    opener = next((p for p in (f"{package}/{n}" for n in _LIBRARIES) if root.exists(p)), "")
    extension = f"{package}/{_EXTENSION}"
    linked = linked_to([opener, extension], root) if is_cuda and _may_link(version) else []
    if linked:
        opener = extension
    return Framework(
        name="tensorflow",
        distribution=distribution.name if distribution else "",
        version=version,
        location=package,
        cuda_build=is_cuda,
        cuda_version=cuda,
        cudnn_version=cudnn,
        compute_capabilities=_capabilities(build, row, source) if is_cuda else (),
        opener=opener,
        requirements=tuple(linked) or (_requirements(version, cuda, cudnn, row) if is_cuda else ()),
        source=source,
    )


def _whole(told: str, table: str) -> str:
    """build_info's CUDA version, unless the table's says the same and more: "10" is 10.0 in 1.15."""
    return table if not told or (table.startswith(f"{told}.") and "." not in told) else told


def _may_link(version: str) -> bool:
    release = release_key(version)
    return not release or release < (1, 14)


def _capabilities(
    build: Mapping[str, object], row: TensorFlowRelease | None, source: str
) -> tuple[str, ...] | Unavailable:
    """build_info's; where it lists none (before 2.3) the table's."""
    listed = build.get("cuda_compute_capabilities")
    if isinstance(listed, (list, tuple)):
        return tuple(str(c) for c in listed)
    if row and row.compute_capabilities:
        return row.compute_capabilities
    return Unavailable(f"{source} lists no compute capabilities")


def _build_info(path: str, root: Root) -> Mapping[str, object] | Unavailable:
    try:
        return parse_build_info(root.read_text(path))
    except OSError as error:
        return Unavailable(f"{path}: {error.strerror}")
    except ValueError as error:
        return Unavailable(f"{path}: {error}")


def parse_build_info(text: str) -> Mapping[str, object]:
    """The `build_info` of TensorFlow's build_info.py, without importing it.

    From 2.3 on one OrderedDict of literals; before that plain assignments (`is_cuda_build = True`,
    `cuda_version_number = '10.1'`). Raises ValueError for anything else.
    """
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"is not Python source ({error})") from None
    build: dict[str, object] = {}
    for statement in module.body:
        if not (isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)):
            continue
        value = statement.value
        literal = value.args[0] if isinstance(value, ast.Call) and value.args else value
        try:
            found = ast.literal_eval(literal)
        except ValueError:
            continue
        name = statement.targets[0].id
        if name == "build_info":
            try:
                build.update(dict(found))
            except (TypeError, ValueError):
                raise ValueError("build_info is not a dictionary") from None
        else:
            build[name.removesuffix("_number")] = found
    if "is_cuda_build" not in build:
        raise ValueError("says nothing of is_cuda_build")
    return build


def _requirements(
    version: str, cuda: str, cudnn: str, row: TensorFlowRelease | None
) -> tuple[Requirement, ...]:
    """From the release's own table row where its CUDA is the build's, else by the build's naming rule."""
    if row and release_key(row.cuda)[:2] == release_key(cuda)[:2]:
        required, optional, linked = row.required, row.optional, row.linked
    else:
        required, optional, linked = cuda_sonames(cuda, cudnn, version), (), False
    return tuple(Requirement(soname=s, required=True, linked=linked) for s in required) + tuple(
        Requirement(soname=s, required=False) for s in optional
    )


def _providing(directory: str, packages: Packages) -> Distribution | None:
    here = [d for d in packages.distributions if d.location == directory]
    return next((d for name in TENSORFLOW_DISTRIBUTIONS for d in here if d.name == name), None)
