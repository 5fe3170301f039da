"""The look-ups that the program began with, under the names it imports them by."""

from __future__ import annotations

from envdoctor.knowledge.drivers import CudaDriverRow, cuda_drivers, driver_floor
from envdoctor.knowledge.frameworks import (
    TensorFlowRelease,
    newest_tensorflow,
    tensorflow_release,
    tensorflow_releases,
)
from envdoctor.knowledge.loading import release_key
from envdoctor.knowledge.sonames import cuda_sonames

__all__ = [
    "CudaDriverRow",
    "TensorFlowRelease",
    "cuda_drivers",
    "cuda_sonames",
    "driver_floor",
    "newest_tensorflow",
    "release_key",
    "tensorflow_release",
    "tensorflow_releases",
]
