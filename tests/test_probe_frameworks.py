"""PyTorch and JAX as they run: real ones on the CPU, and fakes that misplace, hang, die, or lie."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import venv
from pathlib import Path
from typing import Any

import pytest

from tests import environments

VERSIONS = {"torch": environments.TORCH, "jax": environments.JAX}
FAKE_TORCH = """
import os
__version__ = "2.13.0"
WRONG = os.environ.get("WRONG", "")

class device:
    def __init__(self, kind, index=None):
        self.type, self.index = kind, index

class Tensor:
    def __init__(self, device):
        self.device, self.grad = device, self
        if WRONG == "elsewhere" and device.type == "cuda":
            self.device = globals()["device"]("cpu")
    def sum(self): return self
    def backward(self): pass

class cuda:
    is_available = staticmethod(lambda: True)
    device_count = staticmethod(lambda: 2)
    @staticmethod
    def synchronize(device):
        if WRONG == "late":  # the error of a kernel comes when it is waited for
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device")
        if WRONG == "dies":
            os.kill(os.getpid(), 11)

class nn:
    class functional:
        conv2d = staticmethod(lambda images, kernel, padding: kernel)

class no_grad:
    __enter__ = __exit__ = lambda *_: None

int32 = None
def ones(shape, device, requires_grad=False): return Tensor(device)
def tensor(values, dtype, device): return Tensor(device)
def matmul(a, b): return a
def add(a, b): return a
def get_num_threads(): return 1
"""
FAKE_JAX = """
import os
__version__ = "0.10.2"
WRONG = os.environ.get("WRONG", "")

class Device:
    def __init__(self, platform): self.platform, self.id = platform, 0
CPU, CUDA = Device("cpu"), Device("gpu")

class Array:
    def __init__(self, device): self.device = device
    def devices(self): return {CPU if WRONG == "elsewhere" else self.device}
    def block_until_ready(self): return self
    def sum(self): return self
    def __matmul__(self, other):
        if WRONG == "compiler" and self.device is CUDA:
            raise RuntimeError("INTERNAL: ptxas exited with non-zero error code 2")
        return self

def devices(platform=None): return [CPU] if platform == "cpu" else [CUDA]
def device_put(value, device): return Array(device)
def grad(function): return function
def jit(function): return function

class numpy:
    matmul = add = staticmethod(lambda a, b: a)

class lax:
    conv = staticmethod(lambda images, kernel, strides, padding: kernel)

assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
"""
FAKES = {"torch": FAKE_TORCH, "jax": FAKE_JAX}


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("frameworks") / "env"
    venv.create(place, with_pip=False, symlinks=True)
    (site,) = place.glob("lib/python*/site-packages")
    (site / "numpy").mkdir()  # for the fake jax
    (site / "numpy" / "__init__.py").write_text("ones = lambda *_: 1\narray = lambda *_: 1\n")
    return place


@pytest.fixture
def environment(prefix: Path) -> Path:
    for name in VERSIONS:
        for path in prefix.glob(f"lib/python*/site-packages/{name}*"):
            shutil.rmtree(path)
    return prefix


def install(environment: Path, name: str, body: str) -> None:
    """A package `name` whose import runs `body`."""
    (site,) = environment.glob("lib/python*/site-packages")
    version = VERSIONS[name]
    (site / name).mkdir()
    (site / name / "__init__.py").write_text(textwrap.dedent(body))
    if name == "torch":
        (site / "torch" / "version.py").write_text(f"__version__ = '{version}'\ncuda = None\n")
    for distribution in ["torch"] if name == "torch" else ["jax", "jaxlib"]:
        info = site / f"{distribution}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")


def command(environment: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "envdoctor", "check", "--json", "--python", str(environment), *arguments]


def check(environment: Path, *arguments: str, cpus: str = "", **variables: str) -> Any:
    done = subprocess.run(
        [*(("taskset", "-c", cpus) if cpus else ()), *command(environment, *arguments)],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def finding(report: Any, code: str) -> Any:
    return next(f for f in report["findings"] if f["code"] == code)


def codes(report: Any) -> set[str]:
    return {f["code"] for f in report["findings"]}


@pytest.mark.parametrize("name", VERSIONS)
@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise ImportError('libcudnn.so.9: cannot open shared object file')", "libcudnn.so.9: cannot open"),
        ("import os; os.kill(os.getpid(), 11)", "SIGSEGV"),
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
        ("import os; os._exit(0)", "exit status 0"),
        ("import os\nos.write(1, b'x' * 100_000_000)\nos._exit(5)", "exit status 5"),
        ("import os\nos.write(2, b'x' * 100_000_000)\nos._exit(5)", "exit status 5"),
        ("raise SystemExit", "SystemExit"),
        ("__version__ = '1'", "AttributeError"),  # imports, and is something else
    ],
    ids=["ImportError", "SIGSEGV", "SIGKILL", "silent", "floods stdout", "floods stderr", "exits", "other"],
)
def test_an_import_that_fails_is_import_failed_with_its_own_words(
    environment: Path, name: str, body: str, says: str
) -> None:
    install(environment, name, body)
    assert says in finding(check(environment), "PLC004")["message"]


def test_a_framework_that_hangs_or_dies_keeps_no_other_from_running(environment: Path) -> None:
    install(environment, "torch", "import time; time.sleep(600)")
    install(environment, "jax", FAKE_JAX)
    started = time.monotonic()
    report = check(environment, "--timeout", "1.5")
    assert time.monotonic() - started < 30
    hung, ran = report["facts"]["runs"]
    assert (hung["framework"], hung["step"], hung["failure"]["kind"]) == ("torch", "import", "hang")
    assert (ran["framework"], ran["gpus"], ran["failures"]) == ("jax", ["GPU:0"], [])


def test_frameworks_run_one_after_another(environment: Path, tmp_path: Path) -> None:
    for name in VERSIONS:
        body = f"""
            import time
            log = open({str(tmp_path / name)!r}, "w")
            print(time.monotonic(), file=log)
            time.sleep(0.5)
            print(time.monotonic(), file=log, flush=True)
            raise ImportError
        """
        install(environment, name, body)
    check(environment)
    ended = time.monotonic()
    (_, first), (second, last) = (map(float, (tmp_path / name).read_text().split()) for name in VERSIONS)
    assert 0 < second - first < 10  # a Python starts in between
    assert ended - last < 10  # 0.2 s where nothing else runs


def test_an_interrupt_ends_the_probe_under_way_and_starts_no_other(environment: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "torch", tmp_path / "jax"
    install(
        environment,
        "torch",
        f"import os, time\nopen({str(first)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)",
    )
    install(environment, "jax", f"open({str(second)!r}, 'w')")
    doctor = subprocess.Popen(
        command(environment), env={"PATH": os.environ["PATH"]}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 20
    while not (first.exists() and first.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    doctor.send_signal(signal.SIGINT)
    stdout, stderr = doctor.communicate(timeout=10)
    assert (doctor.returncode, stdout, stderr.strip()) == (130, b"", b"envdoctor: interrupted")
    time.sleep(0.3)
    assert not Path(f"/proc/{first.read_text()}").exists()
    assert not second.exists()


def test_operations_run_on_every_gpu_and_are_read_back_from_the_tensors(environment: Path) -> None:
    install(environment, "torch", FAKE_TORCH)
    install(environment, "jax", FAKE_JAX)
    report = check(environment)
    torch, jax = report["facts"]["runs"]
    assert torch["gpus"] == ["GPU:0", "GPU:1"]
    for run, devices in (torch, ["CPU:0", "GPU:0", "GPU:1"]), (jax, ["CPU:0", "GPU:0"]):
        assert [(p["operation"], p["asked"], p["ran"]) for p in run["placements"]] == [
            (operation, device, device)
            for device in devices
            for operation in ("matmul", "conv2d with gradient", "int32 add")
        ]
    assert [(c["device"], c["ran"]) for c in jax["compiled"]] == [("CPU:0", "CPU:0"), ("GPU:0", "GPU:0")]
    assert codes(report) & {"PLC001", "PLC002", "PLC003", "PLC004", "PLC005"} == set()


@pytest.mark.parametrize("name", VERSIONS)
def test_an_operation_that_ran_elsewhere_is_named(environment: Path, name: str) -> None:
    install(environment, name, FAKES[name])
    assert (
        "matmul asked for GPU:0 ran on CPU:0"
        in finding(check(environment, WRONG="elsewhere"), "PLC002")["message"]
    )


def test_an_error_that_comes_when_the_gpu_is_waited_for_belongs_to_its_operation(environment: Path) -> None:
    install(environment, "torch", FAKE_TORCH)
    message = finding(check(environment, WRONG="late"), "PLC002")["message"]
    assert "matmul asked for GPU:0 fails there: RuntimeError: CUDA error: no kernel image" in message


def test_a_crash_on_the_gpu_is_named_with_its_step(environment: Path) -> None:
    install(environment, "torch", FAKE_TORCH)
    (run,) = check(environment, WRONG="dies")["facts"]["runs"]
    (failure,) = run["failures"]
    assert (failure["step"], failure["failure"]["detail"]) == ("matmul on GPU:0", "SIGSEGV")
    assert {p["asked"] for p in run["placements"]} == {"CPU:0"}


def test_a_compiler_that_fails_for_jax_is_xla_compile_failed(environment: Path) -> None:
    install(environment, "jax", FAKE_JAX)
    report = check(environment, WRONG="compiler")
    assert "GPU:0 fails: RuntimeError: INTERNAL: ptxas exited" in finding(report, "PLC005")["message"]
    assert "PLC002" not in codes(report)


@pytest.mark.parametrize(
    ("variable", "preallocates"),
    [
        ("", True),
        ("XLA_PYTHON_CLIENT_PREALLOCATE=true", True),
        ("XLA_PYTHON_CLIENT_PREALLOCATE=FALSE", True),  # as jaxlib reads it
        ("XLA_PYTHON_CLIENT_PREALLOCATE=false", False),
        ("XLA_PYTHON_CLIENT_PREALLOCATE=0", False),
        ("XLA_PYTHON_CLIENT_ALLOCATOR=platform", False),
    ],
)
def test_jax_takes_the_memory_of_the_gpu_unless_it_was_told_not_to_and_its_probe_never_does(
    environment: Path, variable: str, preallocates: bool
) -> None:
    install(environment, "jax", FAKE_JAX)  # which asserts that the probe does not
    name, _, value = variable.partition("=")
    wish = {name: value} if variable else {}
    report = check(environment, **{"JAX_COMPILATION_CACHE_DIR": "/nowhere", **wish})
    (run,) = report["facts"]["runs"]
    assert run["memory_growth"] == [not preallocates]
    assert ("PLC006" in codes(report)) == preallocates


REAL = [
    pytest.param(
        name,
        marks=[
            getattr(pytest.mark, name),
            pytest.mark.skipif(
                environments.installed(name) is None,
                reason=f"not installed: python tests/environments.py {name}",
            ),
        ],
    )
    for name in VERSIONS
]


@pytest.mark.parametrize("name", REAL)
def test_the_real_framework_places_computes_and_is_measured_on_the_cpu(name: str) -> None:
    report = check(environments.directory(name))
    (run,) = report["facts"]["runs"]
    assert run["version"].startswith(VERSIONS[name])
    assert run["failures"] == []
    assert [(p["asked"], p["ran"]) for p in run["placements"] if p["asked"] == "CPU:0"] == [
        ("CPU:0", "CPU:0")
    ] * 3
    assert [c["ran"] for c in run["compiled"] if c["device"] == "CPU:0"] == (
        ["CPU:0"] if name == "jax" else []
    )
    assert run["threads"]["matmul"]["calls"] > 0
    assert codes(report) & {"PLC002", "PLC003", "PLC004", "PLC005", "THR002"} == set()


@pytest.mark.parametrize("name", REAL)
def test_one_cpu_is_measured_as_one(name: str) -> None:
    (run,) = check(environments.directory(name), cpus="0")["facts"]["runs"]
    assert run["threads"]["matmul"]["parallelism"] < 1.2


@pytest.mark.parametrize("name", REAL[:1])
def test_pytorch_keeps_the_limit_of_openmp(name: str) -> None:
    report = check(environments.directory(name), OMP_NUM_THREADS="1")
    (run,) = report["facts"]["runs"]
    assert run["threads"]["intra_op"] == 1
    assert run["threads"]["matmul"]["parallelism"] < 1.2
    assert "THR002" not in codes(report)


@pytest.mark.parametrize("name", REAL[1:])
def test_jax_that_was_told_to_use_a_platform_that_is_not_there_says_which(name: str) -> None:
    crash = finding(check(environments.directory(name), JAX_PLATFORMS="cuda"), "PLC004")
    assert "JAX_PLATFORMS=cuda" in crash["message"]
