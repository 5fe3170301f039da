"""The devices of TensorFlow, JAX and PyTorch in one set of words: "CPU:0", "GPU:0". Python 3.9+."""

import importlib


class NoDeviceError(Exception):
    """The device that was asked for is not there."""


class Devices:
    """The framework `name`, imported, and its devices."""

    def __init__(self, name):
        self.name = name
        self.module = importlib.import_module(name)
        self.version = self.module.__version__

    def prepare(self, wanted, logical_cpus=0):
        """Make `wanted` ("cpu", "gpu", "cpu:1") usable, and say what it is; NoDeviceError where it is not there.

        TensorFlow takes a GPU's memory as it needs it, for others may use the GPU too. `logical_cpus` splits the
        CPU into so many of TensorFlow's devices, which stand in for accelerators.
        """
        if logical_cpus:
            config = self.module.config
            cpu = config.list_physical_devices("CPU")[0]
            config.set_logical_device_configuration(
                cpu, [config.LogicalDeviceConfiguration() for _ in range(logical_cpus)]
            )
        if not wanted.startswith("gpu"):
            return ""
        found = getattr(self, "_gpus_" + self.name)()
        if not found:
            raise NoDeviceError("%s registers no GPU" % self.name)
        return found[0]

    def _gpus_tensorflow(self):
        config = self.module.config
        gpus = config.list_physical_devices("GPU")
        for gpu in gpus:
            config.experimental.set_memory_growth(gpu, True)
        return [str(config.experimental.get_device_details(gpu).get("device_name", gpu.name)) for gpu in gpus]

    def _gpus_jax(self):
        try:
            return [device.device_kind for device in self.module.devices("gpu")]
        except RuntimeError as error:  # "Unknown backend: 'gpu' requested"
            raise NoDeviceError("jax: %s" % str(error).strip().splitlines()[0]) from None

    def _gpus_torch(self):
        cuda = self.module.cuda
        return [cuda.get_device_name(i) for i in range(cuda.device_count())] if cuda.is_available() else []

    def of(self, tensor):
        """Where a tensor lies, or a Keras variable: "GPU:0"."""
        tensor = getattr(tensor, "value", tensor)
        if self.name == "tensorflow":
            return ":".join(tensor.device.rsplit(":", 2)[1:])
        if self.name == "jax":
            device = next(iter(tensor.devices()))
            return "%s:%d" % (
                "GPU" if device.platform in ("gpu", "cuda", "rocm") else device.platform.upper(),
                device.id,
            )
        kind = {"cuda": "GPU"}.get(tensor.device.type, tensor.device.type.upper())
        return "%s:%d" % (kind, tensor.device.index or 0)

    def peak_bytes(self):
        """The most memory that the framework has taken on its GPU; None where it does not count it."""
        try:
            if self.name == "tensorflow":
                return int(self.module.config.experimental.get_memory_info("GPU:0")["peak"])
            if self.name == "jax":
                return int(self.module.devices("gpu")[0].memory_stats()["peak_bytes_in_use"])
            return int(self.module.cuda.max_memory_allocated())
        except Exception:
            return None

    def release(self):
        """Give back what a failed step has taken on the GPU, as far as the framework does."""
        if self.name == "torch" and self.module.cuda.is_available():
            self.module.cuda.empty_cache()


_NO_MEMORY = (
    "resource_exhausted",
    "out of memory",
    "out_of_memory",
    "oom when allocating",
    "alloc_failed",
    "bad_alloc",
)


def is_out_of_memory(error):
    """Whether the device, or the machine, had not enough memory."""
    if isinstance(error, MemoryError) or type(error).__name__ in (
        "ResourceExhaustedError",
        "OutOfMemoryError",
    ):
        return True
    return any(words in str(error).lower() for words in _NO_MEMORY)
