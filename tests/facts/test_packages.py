"""The target's interpreter and distributions, on real environments and on damaged ones."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from envdoctor.errors import UsageError
from envdoctor.facts.frameworks import parse_build_info, read_frameworks
from envdoctor.facts.interpreter import read_interpreter
from envdoctor.facts.model import Interpreter, Unavailable
from envdoctor.facts.packages import read_packages
from envdoctor.facts.root import Root
from envdoctor.target import Target, choose_target


def target(python: Path | str, **environment: str) -> Target:
    return choose_target(str(python), None, {"PATH": os.environ["PATH"], **environment})


def interpreter(python: Path | str, **environment: str) -> Interpreter:
    found = read_interpreter(target(python, **environment))
    assert isinstance(found, Interpreter)
    return found


def asked(python: Path) -> list[str]:
    """What the interpreter itself says of its site-packages."""
    code = "import sys; print('\\n'.join(p for p in sys.path if p.endswith('-packages')))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, env={"PATH": ""})
    return done.stdout.split()


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("venv") / "env"
    venv.create(place, with_pip=False, symlinks=True)
    return place


def test_a_venv_is_read_without_starting_it_and_agrees_with_it(environment: Path) -> None:
    python = environment / "bin" / "python"
    found = interpreter(python)
    assert found.read_from == "pyvenv.cfg"
    assert found.kind == "venv"
    assert list(found.site_packages) == asked(python)
    assert found.version == ".".join(map(str, sys.version_info[:3]))


def test_a_venv_with_system_site_packages_searches_those_after_its_own(tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=False, symlinks=True, system_site_packages=True)
    python = tmp_path / "env" / "bin" / "python"
    assert [p for p in interpreter(python).site_packages if Path(p).is_dir()] == asked(python)


def test_an_interpreter_that_is_no_venv_is_asked_itself() -> None:
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    found = interpreter(base)
    assert found.read_from == "a child"
    assert found.kind == "system"
    assert set(asked(base)) <= set(found.site_packages)


def test_a_directory_and_a_command_name_their_interpreter(environment: Path) -> None:
    assert target(environment).python == str(environment / "bin" / "python")
    assert target("python3").python.startswith("/")


def test_pythonpath_is_searched_first(environment: Path) -> None:
    found = interpreter(environment / "bin" / "python", PYTHONPATH="/somewhere/lib")
    assert found.site_packages[0] == "/somewhere/lib"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: None, "does not exist"),
        (lambda p: p.mkdir(), "does not exist"),  # a directory stands for its bin/python
        (lambda p: p.write_text("#!/bin/sh\n"), "is not executable"),
        (lambda p: p.symlink_to("/nowhere/python"), "leads nowhere"),
        (lambda p: p.symlink_to(p), "leads nowhere"),
    ],
)
def test_what_is_no_interpreter_is_named_in_one_line(tmp_path: Path, make: object, says: str) -> None:
    path = tmp_path / "python"
    assert callable(make)
    make(path)
    with pytest.raises(UsageError, match=says) as caught:
        target(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "body", ["echo hello", "kill -SEGV $$", "exit 3", "cat /dev/zero | head -c 100000000"]
)
def test_a_program_that_is_not_python_is_bad_usage(tmp_path: Path, body: str) -> None:
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    with pytest.raises(UsageError, match="does not answer as a Python interpreter does"):
        read_interpreter(target(path))


def test_a_deleted_environment_that_is_still_active_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\$VIRTUAL_ENV names .*deactivate"):
        choose_target(None, None, {"VIRTUAL_ENV": str(tmp_path / "gone")})


def test_virtual_env_comes_before_conda_prefix_and_the_option_before_both(
    environment: Path, tmp_path: Path
) -> None:
    both = {"VIRTUAL_ENV": str(environment), "CONDA_PREFIX": str(tmp_path)}
    assert choose_target(None, None, both).chosen_by == "$VIRTUAL_ENV"
    assert choose_target(sys.executable, None, both).chosen_by == "--python"
    assert choose_target(None, None, {}).python == sys.executable


def test_a_root_must_be_a_directory(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        choose_target(None, str(tmp_path / "none"), {})
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is not a directory"):
        choose_target(None, str(tmp_path / "file"), {})


def test_damaged_metadata_is_said_and_the_others_are_read(environment: Path, tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    for name, metadata in {
        "nvidia_cudnn_cu12-9.1.0.70": b"Metadata-Version: 2.1\nName: nvidia-cudnn-cu12\nVersion: 9.1.0.70\n",
        "nvidia_cublas_cu12-12.5.0": b"\xff\xfe garbage \x00",
        "nvidia_cufft_cu12-11.0": None,
        "Some.Thing-1.0": None,
    }.items():
        place = site / f"{name}.dist-info"
        place.mkdir(parents=True)
        if metadata is not None:
            (place / "METADATA").write_bytes(metadata)
    found = interpreter(environment / "bin" / "python", PYTHONPATH=str(site))
    packages = {d.name: d for d in read_packages(found, Root()).distributions}
    assert packages["nvidia-cudnn-cu12"].version == "9.1.0.70"
    assert not packages["nvidia-cudnn-cu12"].problem
    assert "names no Name" in packages["nvidia-cublas-cu12"].problem
    assert packages["nvidia-cublas-cu12"].version == "12.5.0"
    assert "No such file" in packages["nvidia-cufft-cu12"].problem
    assert packages["some-thing"].version == "1.0"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("build_info = {'is_cuda_build': True, 'cuda_version': '11.2'}", ("11.2", True)),
        (
            "import collections\nbuild_info = collections.OrderedDict([('is_cuda_build', False)])",
            (None, False),
        ),
        ("is_cuda_build = True\ncuda_version_number = '10.1'\n", ("10.1", True)),  # TensorFlow 2.1
    ],
)
def test_build_info_of_every_era_is_read(text: str, expected: tuple[str | None, bool]) -> None:
    build = parse_build_info(text)
    assert (build.get("cuda_version"), build["is_cuda_build"]) == expected


@pytest.mark.parametrize("text", ["", "def (", "build_info = 3", "build_info = f()", "\x00", "x = 1"])
def test_build_info_that_cannot_be_read_is_unknown_and_no_pass(
    environment: Path, tmp_path: Path, text: str
) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_build_info(text)
    package = tmp_path / "tensorflow" / "python" / "platform"
    package.mkdir(parents=True)
    (tmp_path / "tensorflow" / "__init__.py").touch()
    (package / "build_info.py").write_text(text)
    found = interpreter(environment / "bin" / "python", PYTHONPATH=str(tmp_path))
    (framework,) = read_frameworks(found, read_packages(found, Root()), Root())
    assert isinstance(framework.cuda_build, Unavailable)
