"""The frameworks installed for the target's interpreter: what their own files say, nothing imported."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from envdoctor.facts.model import Distribution, Framework, Interpreter, Packages, Requirement, Unavailable
from envdoctor.facts.root import Root
from envdoctor.knowledge.tables import cuda_sonames, release_key, tensorflow_release

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


def read_frameworks(interpreter: Interpreter, packages: Packages, root: Root) -> tuple[Framework, ...]:
    """Every framework that `import` would find."""
    found = (_tensorflow(directory, packages, root) for directory in interpreter.site_packages)
    tensorflow = next((f for f in found if f), None)
    return (tensorflow,) if tensorflow else ()


def _tensorflow(directory: str, packages: Packages, root: Root) -> Framework | None:
    package = f"{directory}/tensorflow"
    if not root.is_file(f"{package}/__init__.py"):
        return None
    distribution = _providing(directory, packages)
    version = distribution.version if distribution else ""
    source = f"{package}/python/platform/build_info.py"
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
    row = tensorflow_release(version)
    is_cuda = bool(build.get("is_cuda_build"))
    cuda = str(build.get("cuda_version") or (row.cuda if row and is_cuda else ""))
    cudnn = str(build.get("cudnn_version") or (row.cudnn if row and is_cuda else ""))
    capabilities = build.get("cuda_compute_capabilities")
    return Framework(
        name="tensorflow",
        distribution=distribution.name if distribution else "",
        version=version,
        location=package,
        cuda_build=is_cuda,
        cuda_version=cuda,
        cudnn_version=cudnn,
        compute_capabilities=tuple(str(c) for c in capabilities)
        if isinstance(capabilities, (list, tuple))
        else Unavailable(f"{source} lists no compute capabilities"),
        opener=_opener(package, root),
        requirements=_requirements(version, cuda, cudnn) if is_cuda else (),
        source=source,
    )


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


def _requirements(version: str, cuda: str, cudnn: str) -> tuple[Requirement, ...]:
    """From the release's own table row where its CUDA is the build's, else by the build's naming rule."""
    row = tensorflow_release(version)
    if row and release_key(row.cuda)[:2] == release_key(cuda)[:2]:
        required, optional, linked = row.required, row.optional, row.linked
    else:
        required, optional, linked = cuda_sonames(cuda, cudnn, version), (), False
    return tuple(Requirement(soname=s, required=True, linked=linked) for s in required) + tuple(
        Requirement(soname=s, required=False) for s in optional
    )


def _opener(package: str, root: Root) -> str:
    """The object that calls dlopen: libtensorflow_framework, since TensorFlow 1.14 (the loader is in it)."""
    for name in (
        "libtensorflow_framework.so.2",
        "libtensorflow_framework.so.1",
        "libtensorflow_framework.so",
    ):
        if root.exists(f"{package}/{name}"):
            return f"{package}/{name}"
    return ""


def _providing(directory: str, packages: Packages) -> Distribution | None:
    here = [d for d in packages.distributions if d.location == directory]
    return next((d for name in TENSORFLOW_DISTRIBUTIONS for d in here if d.name == name), None)
