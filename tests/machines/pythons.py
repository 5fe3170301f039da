"""Python environments of every kind for a simulated machine, and the packages in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from envdoctor.knowledge.frameworks import and_cuda_pins, pytorch_release
from tests.machines.compile import stub_program
from tests.machines.machine import Machine

# Requires-Dist of the real wheels, the lines that matter here; protobuf's exclusions of 4.21.0 to 4.21.5 too.
_PROTOBUF = "protobuf!=4.21.0,!=4.21.1,!=4.21.2,!=4.21.3,!=4.21.4,!=4.21.5"
TENSORFLOW_REQUIRES = {
    "2.10.1": ("h5py (>=2.9.0)", "keras (<2.11,>=2.10.0)", "numpy (>=1.20)", "protobuf (<3.20,>=3.9.2)"),
    "2.8.0": ("h5py (>=2.9.0)", "keras (<2.9,>=2.8.0rc0)", "numpy (>=1.20)", "protobuf (>=3.9.2)"),
    "2.14.1": ("keras (<2.15,>=2.14.0)", "numpy (<2.0.0,>=1.23.5)", f"{_PROTOBUF},<5.0.0dev,>=3.20.3"),
    "2.15.1": (
        "keras (<2.16,>=2.15.0)",
        "ml-dtypes (~=0.3.1)",
        "numpy (<2.0.0,>=1.23.5)",
        f"{_PROTOBUF},<5.0.0dev,>=3.20.3",
        'tensorflow-intel (==2.15.1) ; platform_system == "Windows"',
    ),
    "2.17.1": (
        "h5py >=3.10.0",
        "keras >=3.2.0",
        f"{_PROTOBUF},<5.0.0dev,>=3.20.3",
        'numpy <2.0.0,>=1.23.5 ; python_version <= "3.11"',
        'numpy <2.0.0,>=1.26.0 ; python_version >= "3.12"',
    ),
    "2.18.1": ("h5py >=3.11.0", "keras >=3.5.0", f"{_PROTOBUF},<6.0.0dev,>=3.20.3", "numpy <2.1.0,>=1.26.0"),
    "2.21.0": (
        "h5py<3.15.0,>=3.11.0",
        "keras>=3.12.0",
        "ml_dtypes<1.0.0,>=0.5.1",
        "numpy>=1.26.0",
        "protobuf<8.0.0,>=6.31.1",
    ),
}
# What pip installs with each of them.
COMPANIONS = {
    "2.8.0": {"keras": "2.8.0", "numpy": "1.22.4", "protobuf": "3.19.6", "h5py": "3.6.0"},
    "2.10.1": {"keras": "2.10.0", "numpy": "1.23.5", "protobuf": "3.19.6", "h5py": "3.9.0"},
    "2.14.1": {"keras": "2.14.0", "numpy": "1.26.4", "protobuf": "4.25.3", "ml-dtypes": "0.2.0"},
    "2.15.1": {"keras": "2.15.0", "numpy": "1.26.4", "protobuf": "4.25.3", "ml-dtypes": "0.3.2"},
    "2.17.1": {"keras": "3.6.0", "numpy": "1.26.4", "protobuf": "4.25.5", "h5py": "3.12.1"},
    "2.18.1": {"keras": "3.9.0", "numpy": "2.0.2", "protobuf": "5.29.4", "h5py": "3.13.0"},
    "2.21.0": {
        "keras": "3.12.0",
        "numpy": "2.3.5",
        "protobuf": "6.33.2",
        "h5py": "3.14.0",
        "ml-dtypes": "0.5.4",
    },
}


def pip_tensorflow(
    machine: Machine, version: str = "2.21.0", *, gpu: bool = True, without: str = "", **instead: str
) -> Machine:
    """TensorFlow as pip installs it, with its companions; `instead` names other versions of them."""
    pins = and_cuda_pins(version)
    extra = [f'{r}; extra == "and-cuda"' for r in pins.requires] if pins else []
    machine.tensorflow(version, requires=(*TENSORFLOW_REQUIRES[version], *extra))
    if not gpu:
        build = machine.path(f"{machine.site_packages}/tensorflow/python/platform/build_info.py")
        build.write_text("build_info = {'is_cuda_build': False}\n")
    for name, found in {**COMPANIONS[version], **instead}.items():
        if name != without:
            bare(machine, name, found)
    return machine


def pip_torch(machine: Machine, version: str, cuda: str, *, requires: Sequence[str] = ()) -> Machine:
    """PyTorch's metadata and version.py; its libraries are left out."""
    row = pytorch_release(version)
    asked = requires or (row.requires if row else ())
    machine.distribution(
        "torch", version, [f'{r}; platform_system == "Linux" and platform_machine == "x86_64"' for r in asked]
    )
    package = f"{machine.site_packages}/torch"
    machine.file(f"{package}/__init__.py")
    return machine.file(
        f"{package}/version.py",
        f"from typing import Optional\n__version__ = {version!r}\ncuda: Optional[str] = {cuda or None!r}\n",
    )


def wheel(machine: Machine, name: str, version: str) -> Machine:
    """The metadata of an NVIDIA wheel by its full name; its libraries are left out."""
    return machine.distribution(name, version)


def bare(machine: Machine, name: str, version: str, *, site: str = "", installer: str = "pip") -> Machine:
    """A distribution of which nobody reads more than the directory's name."""
    place = site or machine.site_packages
    return machine.file(f"{place}/{name.replace('-', '_')}-{version}.dist-info/INSTALLER", f"{installer}\n")


def installed_by(machine: Machine, installer: str, *names: str) -> Machine:
    """Sign these distributions (their directories' beginnings) in another installer's name."""
    for name in names:
        for directory in machine.path(machine.site_packages).glob(f"{name}-*.dist-info"):
            (directory / "INSTALLER").write_text(f"{installer}\n")
    return machine


def uv_venv(machine: Machine, prefix: str = "/home/ada/project/.venv", *, version: str = "3.12.7") -> Machine:
    """A virtual environment as uv makes it: no pip, and uv's own line in pyvenv.cfg."""
    machine.venv(prefix, version=version)
    return machine.file(
        f"{prefix}/pyvenv.cfg",
        f"home = /usr/bin\nimplementation = CPython\nuv = 0.5.4\nversion_info = {version}\n"
        "include-system-site-packages = false\n",
    )


def poetry_venv(machine: Machine, *, version: str = "3.11.9") -> Machine:
    return machine.venv("/home/ada/.cache/pypoetry/virtualenvs/vision-k3Jx9_aB-py3.11", version=version)


def conda(
    machine: Machine,
    packages: Mapping[str, str],
    *,
    prefix: str = "/opt/conda/envs/tf",
    version: str = "3.11.9",
) -> Machine:
    """A conda environment with these packages' records ("name": "version"), active in the shell."""
    minor = ".".join(version.split(".")[:2])
    machine.prefix = prefix
    for name, found in {"python": version, **packages}.items():
        machine.file(f"{prefix}/conda-meta/{name}-{found}-h0_1.json", "{}")
    machine.path(f"{prefix}/lib/python{minor}/site-packages").mkdir(parents=True)
    stub_program(machine.path(f"{prefix}/bin/python{minor}"))
    machine.link(f"{prefix}/bin/python", f"python{minor}")
    return machine.export(CONDA_PREFIX=prefix)


def system_python(machine: Machine, *, version: str = "3.12", managed: bool = True) -> Machine:
    """The distribution's own Python, in Debian's directories; `managed`: PEP 668."""
    stub_program(machine.path(f"/usr/bin/python{version}"))
    machine.link("/usr/bin/python3", f"python{version}")
    machine.link("/usr/bin/python", "python3")
    machine.prefix = "/usr"
    machine.path(f"/usr/lib/python{version}/site-packages").mkdir(
        parents=True
    )  # where this tree's tools write
    machine.path("/usr/lib/python3/dist-packages").mkdir(parents=True)
    if managed:
        machine.file(f"/usr/lib/python{version}/EXTERNALLY-MANAGED", "[externally-managed]\n")
    return machine


def kernel(
    machine: Machine,
    name: str,
    argv: Sequence[str],
    *,
    directory: str = "/root/.local/share/jupyter/kernels",
    display: str = "",
    environment: Mapping[str, str] | None = None,
    language: str = "python",
) -> Machine:
    """A kernelspec, by default one of the user's."""
    spec: dict[str, Any] = {
        "argv": [*argv, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": display or name,
        "language": language,
        "metadata": {"debugger": True},
    }
    if environment is not None:
        spec["env"] = dict(environment)
    return machine.file(f"{directory}/{name}/kernel.json", json.dumps(spec))
