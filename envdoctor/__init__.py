"""envdoctor: why a machine-learning framework does not use the GPU, and what repairs it."""

__version__ = "0.1.0"
