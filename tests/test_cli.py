"""The command line as a user meets it: exit codes, bad input, colour, JSON against its schema."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import envdoctor.report
from envdoctor.catalog import CONDITIONS
from tests.machines.compile import stub_library
from tests.machines.drivers import CRASH, HANG, driver_libraries
from tests.tree import signature

SCHEMA = json.loads((Path(envdoctor.report.__file__).parent / "schema.json").read_text())


def doctor(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]} | variables
    return subprocess.run(
        [sys.executable, "-m", "envdoctor", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def valid(text: str, kind: str) -> Any:
    document = json.loads(text)
    jsonschema.validate(document, {**SCHEMA, "anyOf": [{"$ref": f"#/$defs/{kind}"}]})
    return document


def assert_bad_usage(done: subprocess.CompletedProcess[str], *says: str) -> None:
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for text in says:
        assert text in done.stderr


def test_a_machine_without_a_gpu_and_without_a_framework_is_no_error() -> None:
    done = doctor("check", "--quick")
    assert done.returncode == 0, done
    assert "GPU001  no NVIDIA GPU here" in done.stdout
    assert "PKG001" in done.stdout
    assert "TensorFlow" in done.stdout  # what it would need
    assert done.stderr == ""


def test_a_required_gpu_that_is_absent_is_an_error() -> None:
    done = doctor("check", "--quick", "--gpu", "--json")
    assert done.returncode == 1
    document = valid(done.stdout, "check")
    leading = document["findings"][0]
    assert (leading["code"], leading["severity"], leading["because"]) == ("GPU001", "error", [])


def test_the_json_answers_keep_to_the_schema(tmp_path: Path) -> None:
    valid(doctor("check", "--json").stdout, "check")
    valid(doctor("check", "--format", "json", "--quick").stdout, "check")
    state = {"XDG_STATE_HOME": str(tmp_path)}
    valid(doctor("fix", "--dry-run", "--json", **state).stdout, "fix")
    valid(doctor("undo", "--list", "--json", **state).stdout, "undo_list")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["check", "--python", "/nowhere/python"],
            ["/nowhere/python", "does not exist", "expected a Python"],
        ),
        (["check", "--python", "/etc/passwd"], ["/etc/passwd", "not executable"]),
        (["check", "--python", "no-such-command"], ["no-such-command", "not a command on PATH"]),
        (["check", "--python", "/bin/ls"], ["/bin/ls", "does not answer as a Python interpreter"]),
        (["check", "--root", "/nowhere"], ["/nowhere", "does not exist"]),
        (["check", "--root", "/etc/passwd"], ["/etc/passwd", "is not a directory"]),
        (["check", "--select", "LIB999"], ["LIB999", "is not a condition's code or name"]),
        (["check", "--ignore", "pip-cuda-libs-not-on-pth"], ["did you mean pip-cuda-libs-not-on-path"]),
        (["check", "--timeout", "0"], ["0", "--timeout"]),
        (["check", "--timeout", "soon"], ["soon", "--timeout"]),
        (["check", "--format", "yaml"], ["yaml", "json"]),
        (["fix", "--root", "/"], ["--root"]),
        (["undo", "nonsense", "--yes"], ["nothing to undo"]),
        (["no-such-command"], ["no-such-command"]),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_2(
    arguments: list[str], says: list[str], tmp_path: Path
) -> None:
    assert_bad_usage(doctor(*arguments, XDG_STATE_HOME=str(tmp_path)), *says)


def test_a_virtual_environment_that_was_deleted_is_named_with_its_variable(tmp_path: Path) -> None:
    assert_bad_usage(
        doctor("check", VIRTUAL_ENV=str(tmp_path / "gone")), "$VIRTUAL_ENV", "gone", "deactivate"
    )


def test_check_needs_no_home_and_fix_says_what_it_needs(tmp_path: Path) -> None:
    home = tmp_path / "file"
    home.touch()
    assert doctor("check", "--quick", HOME=str(home)).returncode == 0
    assert_bad_usage(doctor("undo", "--yes", HOME=str(home)), "XDG_STATE_HOME")


def test_environment_values_that_are_not_utf_8_are_read_and_shown_harmlessly() -> None:
    raw = {b"PATH": os.environb[b"PATH"], b"LD_LIBRARY_PATH": b"/caf\xe9", b"ODD": b"\xff\x1b[31m"}
    for arguments in (["check", "--quick"], ["check", "--quick", "--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "envdoctor", *arguments], env=raw, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert b"\x1b" not in done.stdout
        done.stdout.decode()


@pytest.mark.parametrize(
    ("variables", "arguments", "coloured"),
    [
        ({}, [], True),
        ({"NO_COLOR": "1"}, [], False),
        ({"NO_COLOR": ""}, [], True),  # no-color.org: only when not empty
        ({"NO_COLOR": "1"}, ["--color", "always"], True),
        ({"TERM": "dumb"}, [], False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, [], True),
    ],
)
def test_colour_on_a_terminal(variables: dict[str, str], arguments: list[str], coloured: bool) -> None:
    primary, secondary = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm", **variables}
    child = subprocess.Popen(
        [sys.executable, "-m", "envdoctor", "check", "--quick", *arguments],
        env=environment,
        stdout=secondary,
        stderr=subprocess.DEVNULL,
    )
    os.close(secondary)
    output = b""
    try:
        while chunk := os.read(primary, 65536):
            output += chunk
    except OSError:  # EIO: the other end is closed
        pass
    assert child.wait() == 0
    os.close(primary)
    assert (b"\x1b[" in output) is coloured


def test_a_pipe_gets_no_colour_unless_it_is_forced() -> None:
    assert "\x1b" not in doctor("check", "--quick").stdout
    assert "\x1b[" in doctor("check", "--quick", FORCE_COLOR="1").stdout


def test_an_encoding_without_the_symbols_gets_ascii() -> None:
    done = doctor("check", "--quick", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "- GPU001" in done.stdout


def test_list_checks_names_every_condition_its_area_and_what_it_takes_to_see_it() -> None:
    lines = [line.split(maxsplit=4) for line in doctor("check", "--list-checks").stdout.splitlines()]
    assert [line[0] for line in lines] == [row.code for row in CONDITIONS]
    how = {line[0]: (line[1], line[4]) for line in lines}
    assert how["LIB002"] == ("libraries", "facts")
    assert how["PLC001"] == ("placement", "runs the framework")
    assert how["GPU015"] == ("gpu", "logs only")


def test_select_and_ignore_take_codes_and_names() -> None:
    only = json.loads(doctor("check", "--quick", "--json", "--select", "no-gpu").stdout)
    assert [c["code"] for c in only["checks"]] == ["GPU001"]
    rest = json.loads(doctor("check", "--quick", "--json", "--ignore", "GPU001,PKG001").stdout)
    assert rest["findings"] == []


@pytest.mark.parametrize(("behaviour", "says"), [(HANG, "no answer in"), (CRASH, "SIGSEGV")])
def test_a_driver_that_hangs_or_crashes_is_said_in_time_and_the_rest_stands(
    tmp_path: Path, behaviour: str, says: str
) -> None:
    driver_libraries(tmp_path, nvml=behaviour)
    done = doctor("check", "--quick", "--json", LD_LIBRARY_PATH=str(tmp_path))
    document = valid(done.stdout, "check")
    assert done.returncode == 1
    unresponsive = next(f for f in document["findings"] if f["code"] == "DRV014")
    assert says in unresponsive["message"]
    assert document["facts"]["driver"]["cuda"]["devices"]  # libcuda was asked apart, and answers
    assert document["facts"]["packages"]["distributions"]


def test_the_healthy_twin_of_a_sick_driver_is_silent(tmp_path: Path) -> None:
    driver_libraries(tmp_path)
    done = doctor("check", "--quick", "--json", LD_LIBRARY_PATH=str(tmp_path))
    assert done.returncode == 0
    assert [f["code"] for f in json.loads(done.stdout)["findings"]] == ["PKG001"]


def test_a_text_file_posing_as_libnvidia_ml_harms_nothing(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library\n")
    stub_library(tmp_path / "libcuda.so.1")
    done = doctor("check", "--quick", LD_LIBRARY_PATH=str(tmp_path))
    assert done.returncode in {0, 1, 3}
    assert "Traceback" not in done.stderr


def test_check_changes_nothing_in_home_or_in_the_environment(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    before = signature(tmp_path)
    assert doctor("check", "--quick", HOME=str(home)).returncode == 0
    assert doctor("fix", "--dry-run", HOME=str(home)).returncode == 0
    assert signature(tmp_path) == before


def test_the_output_may_be_cut_off() -> None:
    done = subprocess.run(
        f"{sys.executable} -m envdoctor check --quick | head -1", shell=True, capture_output=True, check=False
    )
    assert b"Traceback" not in done.stderr


def test_no_variable_that_may_hold_a_secret_is_shown_anywhere() -> None:
    secrets = {"GITHUB_TOKEN": "hush-1", "MY_DATABASE": "hush-2", "JUPYTER_TOKEN": "hush-3"}
    for arguments in (["--json"], ["-v"], []):
        done = doctor("check", "--quick", *arguments, CUDA_CACHE_PATH="/scratch", **secrets)
        assert "hush" not in done.stdout + done.stderr
    shown = json.loads(doctor("check", "--quick", "--json", CUDA_CACHE_PATH="/scratch", **secrets).stdout)
    assert shown["facts"]["environment"]["CUDA_CACHE_PATH"] == "/scratch"
    assert shown["facts"]["environment"]["GITHUB_TOKEN"] == "(not shown)"
