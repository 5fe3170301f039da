"""Runs in the target's interpreter (Python 3.7+): imports PyTorch, lists its devices, and uses them.

Each step is one JSON line on the descriptor named in argv[1]. A step that is asked for a device says where
it really ran, read back from the tensor. PyTorch has no soft placement and takes memory as it needs it;
torch.compile is not tried, it asks for a C++ compiler.
"""

import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import envdoctor_probe as common  # noqa: E402

sys.path[:] = [place for place in sys.path if place != HERE]  # no framework looks here


def short(device):
    """`GPU:0` of `cuda:0`, which ROCm's devices are called too; `CPU:0` of `cpu`."""
    kind = {"cuda": "GPU"}.get(device.type, device.type.upper())
    return "%s:%d" % (kind, device.index or 0)


def operations(torch, device):
    def matmul():
        a = torch.ones((64, 64), device=device)
        return torch.matmul(a, a)

    def convolution():
        images = torch.ones((4, 1, 28, 28), device=device)
        kernel = torch.ones((8, 1, 3, 3), device=device, requires_grad=True)
        torch.nn.functional.conv2d(images, kernel, padding=1).sum().backward()
        return kernel.grad

    def integer():
        a = torch.tensor([1, 2], dtype=torch.int32, device=device)
        return torch.add(a, a)

    return {"matmul": matmul, "conv2d with gradient": convolution, "int32 add": integer}


def place(torch, operation, asked, device):
    """Run an operation on a device to its end, for errors come late from a GPU; the device of its result."""
    try:
        result = operation()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return {"asked": asked, "soft": False, "ran": short(result.device)}
    except Exception as error:
        return {"asked": asked, "soft": False, "error": common.describe(error)}


def main():
    channel = common.Channel(int(sys.argv[1]))
    channel.begin("import")
    started = time.time()
    try:
        import torch
    except BaseException as error:
        channel.say("import", error=common.describe(error))
        raise
    channel.say(
        "import",
        version=str(torch.__version__),
        seconds=time.time() - started,
        peak_bytes=common.peak_memory(),
    )
    channel.begin("devices")
    try:
        # The first asks the driver, the second may ask NVML and count GPUs that CUDA cannot use
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        gpus = [torch.device("cuda", index) for index in range(count)]
    except BaseException as error:
        channel.say("devices", error=common.describe(error))
        raise
    channel.say("devices", gpus=[short(gpu) for gpu in gpus])
    simulated = bool(gpus) and common.driver_is_simulated()
    channel.attempt("libraries", lambda: {"mapped": common.mapped_libraries()})
    if simulated:
        channel.say("simulated")
    for device in [torch.device("cpu")] + ([] if simulated else gpus):
        asked = short(device)
        for name, operation in operations(torch, device).items():
            channel.begin("%s on %s" % (name, asked))
            channel.say("placement", operation=name, **place(torch, operation, asked, device))
    channel.attempt("threads", lambda: threads(torch))
    channel.attempt("libraries", lambda: {"mapped": common.mapped_libraries()})
    channel.leave()


def threads(torch):
    """How parallel the CPU really works, under whatever limits are in force."""
    cpu = torch.device("cpu")
    a = torch.ones((768, 768), device=cpu)
    images, kernel = torch.ones((16, 32, 56, 56), device=cpu), torch.ones((32, 32, 3, 3), device=cpu)
    inter_op = getattr(torch, "get_num_interop_threads", lambda: 0)  # since 1.2
    with torch.no_grad():
        return {
            "intra_op": torch.get_num_threads(),
            "inter_op": inter_op(),
            "matmul": common.parallelism(lambda: torch.matmul(a, a)),
            "convolution": common.parallelism(lambda: torch.nn.functional.conv2d(images, kernel, padding=1)),
            "threads": common.thread_count(),
        }


main()
