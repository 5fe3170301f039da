"""XLA's facts: where it looks for libdevice and ptxas, what is there, and what variables point at."""

from __future__ import annotations

from msgspec import Struct

from envdoctor.facts.unavailable import Unavailable


class FlagFile(Struct, frozen=True, kw_only=True, tag="flag-file", tag_field="is"):
    """The file that XLA_FLAGS or TF_XLA_FLAGS names: what does not begin with a dash is a file's name."""

    path: str
    text: str  # "" where it is missing
    missing: str = ""  # why it cannot be opened: "No such file or directory"


class Ptxas(Struct, frozen=True, kw_only=True):
    path: str
    real: str  # after links
    executable: bool
    version: str | Unavailable  # "12.9.86"; from a directory's name "12.4"
    source: str  # of the version


class Toolkit(Struct, frozen=True, kw_only=True, tag="toolkit", tag_field="is"):
    """A directory as XLA looks at it."""

    path: str
    directory: bool  # it is one
    tools: bool  # it has a bin
    libdevice_directory: bool  # nvvm/libdevice: the first root that has it wins …
    libdevice: bool  # … whether or not nvvm/libdevice/libdevice.10.bc is there
    ptxas: Ptxas | None  # bin/ptxas


class XlaRoot(Struct, frozen=True, kw_only=True):
    path: str  # as XLA has it, ".." taken out
    what: str  # "--xla_gpu_cuda_data_dir", "fixed", "the wheel nvidia-cuda-nvcc"
    found: Toolkit | Unavailable


class XlaSearch(Struct, frozen=True, kw_only=True):
    """Where one framework's XLA looks, in order; the data directory comes first."""

    framework: str
    data_dir: str  # as --xla_gpu_cuda_data_dir says; "" where it is not given
    roots: tuple[XlaRoot, ...]
    on_path: tuple[Ptxas, ...]  # in $PATH, in its order


class Xla(Struct, frozen=True, kw_only=True):
    flag_files: dict[str, FlagFile | Unavailable]  # by variable; only what names a file
    searches: tuple[XlaSearch, ...]
    toolkits: tuple[Toolkit, ...]  # wherever one may be installed, whether or not XLA looks there
    tools_run: bool  # whether `ptxas --version` was run where no file tells
    named: dict[str, bool | Unavailable]  # paths that variables name, and whether they are there
