"""`check --pid`: processes that really run, with libraries that they really mapped."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envdoctor.errors import UsageError
from envdoctor.facts.process import mapped_files, parse_limits, read_process
from tests import environments
from tests.conftest import needs_overlay, needs_root
from tests.machines.compile import stub_library
from tests.machines.drivers import RTX_4090, SimulatedProcess, driver_libraries
from tests.machines.machine import write_wheel
from tests.machines.wheels import WHEELS
from tests.test_cli import assert_bad_usage, doctor, valid

Started = subprocess.Popen[bytes]
Start = Callable[..., Started]
LOADS = """
import ctypes, sys
for name in sys.argv[1:]:
    ctypes.CDLL(name)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process that says it is ready, and lives until the test ends."""
    processes: list[Started] = []

    def starter(command: Sequence[str | Path], **options: Any) -> Started:
        process = subprocess.Popen(
            [str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options
        )
        processes.append(process)
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        return process

    yield starter
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pid") / "env"
    venv.create(place, with_pip=False, symlinks=True)
    return place


@pytest.fixture
def libraries(tmp_path: Path) -> Path:
    """cuDNN as NVIDIA's archive has it, with links, and cudart."""
    place = tmp_path / "lib"
    stub_library(place / "libcudnn.so.9.1.0", "libcudnn.so.9")
    (place / "libcudnn.so.9").symlink_to("libcudnn.so.9.1.0")
    stub_library(place / "libcudart.so.12")
    return place


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text(LOADS)
    return path


def variables(**more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **more}


@pytest.fixture
def running(start: Start, environment: Path, libraries: Path, script: Path) -> Started:
    return start(
        [environment / "bin" / "python", script, "libcudnn.so.9", "libcudart.so.12"],
        env=variables(LD_LIBRARY_PATH=str(libraries)),
    )


def examine(process: Started, *options: str) -> Any:
    done = doctor("check", "--pid", str(process.pid), "--json", *options)
    assert done.stdout, done.stderr
    return valid(done.stdout, "check")


def stale(process: Started) -> list[str]:
    return [f["message"] for f in examine(process)["findings"] if f["code"] == "LIB014"]


# --- what a new process would load ----------------------------------------------------------------------


def test_a_process_whose_libraries_are_still_there_is_silent(running: Started) -> None:
    report = examine(running)
    assert [c["status"] for c in report["checks"] if c["code"] == "LIB014"] == ["ok"]
    assert [f for f in report["findings"] if f["severity"] != "note" or f["code"] == "LIB014"] == []


def test_a_library_that_was_replaced_since_is_still_the_old_one_in_the_process(
    running: Started, libraries: Path
) -> None:
    stub_library(libraries / "new", "libcudnn.so.9", symbols=["more"])
    (libraries / "new").rename(libraries / "libcudnn.so.9.1.0")
    (message,) = stale(running)
    assert "libcudnn.so.9" in message
    assert f"process {running.pid} still has the file that was deleted or replaced" in message


def test_all_libraries_of_an_uninstalled_package_are_one_finding(running: Started, libraries: Path) -> None:
    shutil.rmtree(libraries)
    (message,) = stale(running)
    assert "and 1 more" in message
    assert "files that were deleted or replaced" in message


def test_a_library_that_was_moved_aside_is_not_what_a_new_process_would_take(
    running: Started, libraries: Path
) -> None:
    (libraries / "libcudart.so.12").rename(libraries / "libcudart.so.12.bak")
    (message,) = stale(running)
    has = f"libcudart.so.12: process {running.pid} has {libraries}/libcudart.so.12.bak, and a new process "
    assert message.startswith(has)  # and finds none, or a machine's own in /usr/lib
    stub_library(libraries / "libcudart.so.12", symbols=["more"])
    (message,) = stale(running)
    assert message.endswith(f"and a new process would take {libraries}/libcudart.so.12")


def test_a_link_that_leads_to_an_upgrade_now(running: Started, libraries: Path) -> None:
    stub_library(libraries / "libcudnn.so.9.8.0", "libcudnn.so.9")
    (libraries / "libcudnn.so.9").unlink()
    (libraries / "libcudnn.so.9").symlink_to("libcudnn.so.9.8.0")
    finding = next(f for f in examine(running)["findings"] if f["code"] == "LIB014")
    assert finding["subject"] == "libcudnn.so.9"
    assert finding["severity"] == "note"
    assert f"restart process {running.pid} (python train.py)" in finding["remedy"]


def test_a_library_that_was_opened_by_its_path_says_nothing_of_a_look_up_by_name(
    start: Start, environment: Path, libraries: Path, script: Path, tmp_path: Path
) -> None:
    """As cupy, numba and others open the libraries of the wheels."""
    own = stub_library(tmp_path / "package" / "libcudnn.so.9")
    process = start(
        [environment / "bin" / "python", script, own], env=variables(LD_LIBRARY_PATH=str(libraries))
    )
    assert stale(process) == []


# --- TensorFlow -------------------------------------------------------------------------------------------


@pytest.fixture
def tensorflow(tmp_path: Path, start: Start) -> tuple[Path, Callable[[], Started]]:
    """Real TensorFlow beside stubs of the wheels that `light` lacks; a process that registered its GPU."""
    environments.install("light")
    place = environments.borrow("light", tmp_path / "env")
    (site,) = place.glob("lib/python3*/site-packages")
    for name in WHEELS:
        if not (site / "nvidia" / name).exists():
            write_wheel(site, name, WHEELS[name])
    (site / "nvidia/cusparse/lib/libcusolver.so.11").symlink_to("../../cusolver/lib/libcusolver.so.11")
    driver_libraries(tmp_path / "driver")
    code = (
        "import tensorflow as tf, sys\n"
        "assert tf.config.list_physical_devices('GPU')\n"
        "print('ready', flush=True)\nsys.stdin.read()"
    )

    def process() -> Started:
        return start(
            [place / "bin" / "python", "-c", code],
            env=variables(LD_LIBRARY_PATH=str(tmp_path / "driver")),
            stderr=subprocess.DEVNULL,
        )

    return site, process


@pytest.mark.tensorflow
def test_what_tensorflow_has_mapped_is_what_a_new_process_would_load_until_a_link_goes(
    tensorflow: tuple[Path, Callable[[], Started]],
) -> None:
    site, begin = tensorflow
    process = begin()
    report = examine(process)
    facts = report["facts"]["process"]
    assert facts["frameworks"] == ["tensorflow"]
    names = {Path(m["path"]).name for m in facts["mapped"]}
    assert {"libcusolver.so.11", "libcublas.so.12", "libcuda.so.550.54.14"} <= names
    assert [c["status"] for c in report["checks"] if c["code"] == "LIB014"] == ["ok"]
    assert [f["code"] for f in report["findings"] if f["severity"] != "note"] == []
    assert report["verdicts"][0]["gpu"] != "unusable"  # a stub of cuDNN does not tell its version
    assert not report["verdicts"][0]["tried"]

    link = site / "nvidia/cusparse/lib/libcusolver.so.11"
    link.unlink()
    found = {f["code"]: f for f in examine(process)["findings"]}
    assert "a new process would find none" in found["LIB014"]["message"]
    assert found["LIB014"]["subject"] == "libcusolver.so.11"
    assert "LIB002" in found  # for a new process it is

    stub_library(link)  # another file where the link was
    found = {f["code"]: f for f in examine(process)["findings"]}
    assert found["LIB014"]["message"].endswith(f"a new process would take {link}")


@pytest.mark.tensorflow
def test_a_repair_after_the_start_is_not_in_the_process(
    tensorflow: tuple[Path, Callable[[], Started]], tmp_path: Path
) -> None:
    """The process found cusolver through LD_LIBRARY_PATH's directory; a file nearer by comes later."""
    site, begin = tensorflow
    process = begin()
    stub_library(tmp_path / "driver" / "libcufft.so.11", symbols=["other"])
    (message,) = stale(process)
    assert message.startswith(f"libcufft.so.11: process {process.pid} has {site}/nvidia/cufft/lib/")
    assert message.endswith(f"would take {tmp_path}/driver/libcufft.so.11")


# --- the process's own environment, interpreter, limits -----------------------------------------------------


def test_its_interpreter_is_the_link_in_its_environment(running: Started, environment: Path) -> None:
    target = examine(running)["target"]
    assert target["python"] == f"{environment}/bin/python"
    assert (target["chosen_by"], target["pid"]) == ("its command line", running.pid)


def test_a_bare_command_is_found_on_the_process_own_path(
    start: Start, environment: Path, script: Path
) -> None:
    process = start(["python", script], env=variables() | {"PATH": f"{environment}/bin:/usr/bin"})
    target = examine(process)["target"]
    assert target["python"] == f"{environment}/bin/python"
    assert target["chosen_by"] == "its command line and $PATH"


def test_a_relative_command_is_found_from_where_it_was_started(
    start: Start, environment: Path, script: Path
) -> None:
    process = start(["bin/python", script], cwd=environment, env=variables(PWD=str(environment)))
    assert examine(process)["target"]["python"] == f"{environment}/bin/python"


def test_a_command_line_that_was_overwritten_leaves_the_variables(
    start: Start, environment: Path, script: Path
) -> None:
    process = start(
        ["ray::train", script],
        executable=f"{environment}/bin/python",
        env=variables(VIRTUAL_ENV=str(environment)),
    )
    report = examine(process)
    assert report["target"]["python"] == f"{environment}/bin/python"
    assert report["target"]["chosen_by"] == "its $VIRTUAL_ENV"
    assert report["facts"]["process"]["program"] == "ray::train"


def test_a_variable_that_names_another_environment_is_not_believed(start: Start, script: Path) -> None:
    """`VIRTUAL_ENV` is what the shell had; what runs is what was called."""
    process = start([sys.executable, script], env=variables(VIRTUAL_ENV="/nowhere"))
    assert examine(process)["target"]["python"] == sys.executable


def test_the_facts_are_of_its_environment_not_of_the_shell_that_asks(
    start: Start, environment: Path, script: Path
) -> None:
    raw = {os.fsencode(k): os.fsencode(v) for k, v in variables(OMP_NUM_THREADS="many").items()}
    process = start([environment / "bin" / "python", script], env=raw | {b"ODD": b"caf\xe9=\x1b[31m"})
    report = examine(process)
    assert report["facts"]["environment"]["OMP_NUM_THREADS"] == "many"
    assert "THR004" in [f["code"] for f in report["findings"]]
    done = doctor("check", "--pid", str(process.pid), "-v")
    assert "\x1b" not in done.stdout
    assert "ODD" not in done.stdout


def test_affinity_limits_and_threads_are_the_process_own(
    start: Start, environment: Path, tmp_path: Path
) -> None:
    script = tmp_path / "threads.py"
    script.write_text(
        "import threading, sys\nfor _ in range(3):\n"
        "    threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "print('ready', flush=True)\nsys.stdin.read()"
    )
    cpu = min(os.sched_getaffinity(0))
    process = start([environment / "bin" / "python", script], env=variables())
    for task in os.listdir(f"/proc/{process.pid}/task"):
        os.sched_setaffinity(int(task), {cpu})
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (123, 456))
    resource.prlimit(process.pid, resource.RLIMIT_NPROC, (4321, 4321))
    facts = examine(process)["facts"]
    assert facts["process"]["cpus"] == str(cpu)
    assert facts["process"]["threads"] == 4
    assert facts["process"]["limits"]["open files"] == 123
    assert facts["process"]["limits"]["processes"] == 4321
    assert facts["host"]["cpu"]["affinity"] == 1


def test_the_report_names_the_process_and_verbose_what_it_has(
    running: Started, libraries: Path, environment: Path
) -> None:
    gpu = replace(RTX_4090, processes=(SimulatedProcess(running.pid, 1536 << 20),))
    driver_libraries(libraries, gpus=(gpu,))
    done = doctor("check", "--pid", str(running.pid), "-v")
    head = done.stdout.splitlines()[0]
    assert f"process {running.pid} (python train.py)" in head
    assert f"({environment}/bin/python, from its command line)" in head
    assert "GPU memory   1536 MiB on GPU 0" in done.stdout
    assert f"mapped       {libraries}/libcudnn.so.9.1.0" in done.stdout
    assert "threads      1" in done.stdout
    assert "a running process is examined" not in doctor("check", "--pid", str(running.pid)).stdout


def test_nothing_is_started_for_it_and_it_runs_on(running: Started) -> None:
    report = examine(running)
    assert report["facts"]["runs"]["reason"] == ("a running process is examined; nothing is started for it")
    assert running.poll() is None


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pid", ["no", "0", "-1", "1.5", ""])
def test_what_is_no_process_number_is_bad_usage(pid: str) -> None:
    assert_bad_usage(doctor("check", "--pid", pid), "--pid")


@pytest.mark.parametrize("pid", [str(2**22 + 1), "9" * 30])  # PID_MAX_LIMIT is 2^22
def test_a_number_that_no_process_has(pid: str) -> None:
    assert_bad_usage(doctor("check", "--pid", pid), pid, "no process has this number", "Python process")


def test_a_process_that_has_ended_and_was_not_waited_for() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        while "Z" not in Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2][:3]:
            time.sleep(0.01)
        assert_bad_usage(doctor("check", "--pid", str(process.pid)), str(process.pid), "zombie")


def test_a_process_that_is_not_python(start: Start) -> None:
    process = start(["sh", "-c", "echo ready; read x"])
    assert_bad_usage(doctor("check", "--pid", str(process.pid)), "expected a Python process", "runs '/")


@pytest.mark.skipif(not Path("/proc/2/stat").exists(), reason="a container shows no thread of the kernel")
def test_a_thread_of_the_kernel() -> None:
    assert_bad_usage(doctor("check", "--pid", "2"), "thread of the kernel")


def test_a_thread_of_a_process_is_told_whose_it_is(start: Start, tmp_path: Path) -> None:
    code = (
        "import threading, sys\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "print('ready', flush=True)\nsys.stdin.read()"
    )
    process = start([sys.executable, "-c", code])
    (thread,) = set(os.listdir(f"/proc/{process.pid}/task")) - {str(process.pid)}
    assert_bad_usage(doctor("check", "--pid", thread), f"--pid {process.pid}")


@needs_root
def test_a_process_of_another_user_is_denied_to_who_is_not_root(start: Start, tmp_path: Path) -> None:
    process = start([sys.executable, "-c", "import sys; print('ready', flush=True); sys.stdin.read()"])
    code = f"""
import os, sys
import envdoctor.facts.process as p, envdoctor.errors as e
os.setgroups([]); os.setuid(65534)
try:
    p.read_process({process.pid})
except e.UsageError as error:
    sys.exit(str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "permission denied: it belongs to root; run envdoctor as that user" in done.stderr
    assert "Traceback" not in done.stderr


@needs_root
def test_root_may_examine_the_process_of_another_user_and_starts_nothing_of_it(
    start: Start, script: Path, tmp_path: Path
) -> None:
    python = Path("/usr/bin/python3")
    if not python.exists():
        pytest.skip("no Python that another user could start")
    tmp_path.chmod(0o755)
    trap = stub_library(tmp_path / "trap.so")
    process = start(
        [python, "-c", "import sys; print('ready', flush=True); sys.stdin.read()"],
        user=65534,
        cwd="/",
        env=variables(LD_LIBRARY_PATH=str(trap.parent)),
    )
    report = examine(process)
    assert not report["facts"]["process"]["own"]
    assert report["facts"]["interpreter"]["read_from"] == "its name"


@needs_overlay
def test_a_process_in_another_root_is_named_as_such(start: Start, tmp_path: Path) -> None:
    """As a container's is, seen from outside."""
    for name in ("up", "work", "root"):
        (tmp_path / name).mkdir()
    mount = f"mount -t overlay overlay -o lowerdir=/,upperdir={tmp_path}/up,workdir={tmp_path}/work"
    code = "import sys; print('ready', flush=True); sys.stdin.read()"
    process = start(
        [
            *("unshare", "--mount", "sh", "-c"),
            f'{mount} {tmp_path}/root && exec chroot {tmp_path}/root "$@"',
            *("sh", sys.executable, "-c", code),
        ]
    )
    done = doctor("check", "--pid", str(process.pid))
    assert_bad_usage(done, "another root directory", f"--root /proc/{process.pid}/root")


def test_a_process_that_ends_while_it_is_read_is_one_clear_line() -> None:
    """Into whichever step the end falls: it is read whole, or that is said and nothing else."""
    said = []
    for step in range(150):
        pid = os.fork()
        if pid == 0:
            time.sleep(step * 4e-6)
            os._exit(0)
        try:
            said.append(read_process(pid).python)
        except UsageError as error:
            said.append(str(error).partition(" ")[2].partition(" ")[2])
        os.waitpid(pid, 0)
    endings = ("the process ended while it was read", "has ended and only waits", "no process has")
    others = [s for s in said if not any(e in s for e in endings) and s != sys.executable]
    assert not others


def test_a_process_that_ended_just_now_is_bad_usage() -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
        process.wait()
    assert_bad_usage(doctor("check", "--pid", str(process.pid)), str(process.pid))


@pytest.mark.parametrize(("option", "value"), [("--python", sys.executable), ("--root", "/")])
def test_a_process_and_another_target_exclude_each_other(option: str, value: str) -> None:
    assert_bad_usage(doctor("check", "--pid", str(os.getpid()), option, value), "--pid", option, "exclude")


def test_fix_has_no_pid() -> None:
    assert_bad_usage(doctor("fix", "--pid", str(os.getpid())), "--pid")


# --- parsers ------------------------------------------------------------------------------------------------


def test_maps_with_blanks_newlines_and_deleted_files() -> None:
    text = (
        "7f00-7f01 r-xp 00000000 08:01 42   /opt/my libs/libcudnn.so.9\n"
        "7f01-7f02 r--p 00001000 08:01 42   /opt/my libs/libcudnn.so.9\n"
        "7f02-7f03 rw-p 00000000 00:00 0 \n"
        "7f03-7f04 r-xp 00000000 08:01 43   /tmp/a\\012b.so (deleted)\n"
        "7ffc-7ffd rw-p 00000000 00:00 0    [stack]\n"
    )
    assert [(f.path, f.gone) for f in mapped_files(text)] == [
        ("/opt/my libs/libcudnn.so.9", False),
        ("/tmp/a\nb.so", True),
    ]


def test_limits_as_the_kernel_writes_them() -> None:
    text = Path("/proc/self/limits").read_text()
    limits = dict(parse_limits(text))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert limits["open files"] == (None if soft == resource.RLIM_INFINITY else soft)
    assert set(limits) == {"processes", "open files", "locked memory", "address space"}
