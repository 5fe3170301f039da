"""Shell commands that several pages show; each can be pasted as it stands, in the environment it is about."""

from __future__ import annotations

_TF_VERSION = "$(python -c 'from importlib.metadata import version; print(version(\"tensorflow\"))')"
_TF_DIRECTORY = (
    "$(python -c 'import importlib.util as u;"
    ' print(u.find_spec("tensorflow").submodule_search_locations[0])\')'
)

TF_DEVICES = "python -c 'import tensorflow as tf; print(tf.config.list_physical_devices(\"GPU\"))'"
TF_LIBRARIES = (
    "TF_CPP_MAX_VLOG_LEVEL=1 python -c"
    " 'import tensorflow as tf; tf.config.list_physical_devices(\"GPU\")' 2>&1"
    " | grep -E 'Could not load|dlerror|cuInit'"
)
TF_RUNPATH = f"readelf -d \"{_TF_DIRECTORY}/libtensorflow_framework.so.2\" | grep -E 'RPATH|RUNPATH'"
TF_BUILD = (
    "python -c 'from tensorflow.python.platform import build_info as b;"
    ' print(*sorted(b.build_info.items()), sep="\\n")\''
)
TF_WITH_CUDA = f'python -m pip install "tensorflow[and-cuda]=={_TF_VERSION}"'
TF_WITH_CUDA_NEWEST = "python -m pip install --upgrade 'tensorflow[and-cuda]'"
TORCH_DEVICES = (
    "python -c 'import torch; print(torch.__version__, torch.version.cuda, torch.cuda.is_available())'"
)
JAX_DEVICES = "python -c 'import jax; print(jax.devices())'"
CUINIT = "python3 -c 'import ctypes; print(ctypes.CDLL(\"libcuda.so.1\").cuInit(0))'"
LIBCUDA_LOADED = (
    "LD_DEBUG=libs python3 -c 'import ctypes; ctypes.CDLL(\"libcuda.so.1\")' 2>&1"
    " | grep 'calling init.*libcuda'"
)
PIP_CUDA_LIBRARIES = (
    "find \"$(python -c 'import sysconfig; print(sysconfig.get_path(\"purelib\"))')/nvidia\" -name 'lib*.so*'"
)
DRIVER_VERSION = "cat /proc/driver/nvidia/version"
KERNEL_LOG = "sudo dmesg | grep -iE 'nvrm|nvidia|xid'"
REBOOT = "sudo reboot"
