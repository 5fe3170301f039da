"""CUDA installations: the directories that hold one, and the system's cuDNN packages."""

from __future__ import annotations

from msgspec import Struct


class CudaDirectory(Struct, frozen=True, kw_only=True):
    """A directory, or a link to one, that is called like a CUDA installation."""

    path: str  # "/usr/local/cuda"
    real: str  # "/usr/local/cuda-12.5"; "" where its link leads nowhere
    version: str  # "12.5", of its real name or of its version.json; "" where neither tells
    target: str = ""  # what a link that leads nowhere points to


class SystemPackage(Struct, frozen=True, kw_only=True):
    name: str  # "libcudnn8"
    version: str  # "8.9.7.29-1+cuda12.2"
    source: str


class CudaInstallations(Struct, frozen=True, kw_only=True):
    directories: tuple[CudaDirectory, ...] = ()
    cudnn_packages: tuple[SystemPackage, ...] = ()  # of dpkg; names and versions say the CUDA version
