"""cuDNN releases: names of the library and of the parts beside it, CUDA majors, lowest GPU."""

from __future__ import annotations

from functools import cache

from msgspec import Struct

from envdoctor.knowledge.loading import load_rows, matches


class CudnnRelease(Struct, frozen=True):
    cudnn: str  # a version specifier
    soname: str
    sublibraries: tuple[str, ...]  # beside it in every release of the row
    sublibraries_later: tuple[str, ...]  # beside it in the later releases of the row
    minimum_capability: dict[str, str]  # for each CUDA major that it exists for; "" for not known
    source: str
    verified: bool

    @property
    def cuda_majors(self) -> tuple[int, ...]:
        return tuple(map(int, self.minimum_capability))


@cache
def cudnn_releases() -> tuple[CudnnRelease, ...]:
    return load_rows("cudnn_releases", CudnnRelease)


def cudnn_release(version: str) -> CudnnRelease | None:
    """The row of a version ("9.3.0"; a major alone, "9", gets the first row of that major)."""
    return next((r for r in cudnn_releases() if matches(version, r.cudnn)), None)


def cudnn_exists_for(version: str, cuda_major: int) -> bool | None:
    """Whether there is a build of this cuDNN for a CUDA major; None for a version not in the table."""
    row = cudnn_release(version)
    return None if row is None else cuda_major in row.cuda_majors
