"""Exports in a file that the user names, as the programs read it that such files are for."""

from __future__ import annotations

import http.server
import json
import os
import shlex
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envdoctor.fixes import blocks
from envdoctor.fixes.exports import file_edits, shell_line
from envdoctor.fixes.plan import Join, decode
from tests.fixes.real_shells import run_shell, show

PATH, FLAGS, THREADS = "LD_LIBRARY_PATH", "XLA_FLAGS", "OMP_NUM_THREADS"
GENERATOR = "/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator"


def written(file: Path, variable: str, values: tuple[str, ...], join: Join = Join.PATH) -> Path:
    """The file after the export was put into it."""
    found = {str(file): file.read_bytes()} if file.exists() else {}
    for edit in file_edits(str(file), variable, values, join, found):
        assert edit.path == str(file)
        assert edit.before == found.get(str(file))
        file.write_bytes(edit.after)
    return file


# --- NAME=value lines -------------------------------------------------------------------------------


def read_by_systemd(file: Path) -> Mapping[str, str]:
    """By the parser of EnvironmentFile=, in the program that reads environment.d with it."""
    if not os.path.exists(GENERATOR):
        pytest.skip("systemd is not installed")
    directory = file.parent / "config/environment.d"
    directory.mkdir(parents=True)
    shutil.copy(file, directory / "99-test.conf")
    environment = {"XDG_CONFIG_HOME": str(file.parent / "config"), "PATH": os.environ["PATH"]}
    done = subprocess.run([GENERATOR], env=environment, capture_output=True, text=True, check=True)
    return dict(word.split("=", 1) for word in shlex.split(done.stdout))


def read_by_dotenv(file: Path) -> Mapping[str, str | None]:
    dotenv = pytest.importorskip("dotenv")
    values: Mapping[str, str | None] = dotenv.dotenv_values(file)
    return values


class StandInDaemon(http.server.BaseHTTPRequestHandler):
    """Takes what the docker command asks of its daemon, and creates nothing."""

    asked: dict[str, list[str]]

    def _answer(self, body: bytes = b"OK", status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Api-Version", "1.41")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET = _answer  # noqa: N815  the names that http.server calls

    def do_POST(self) -> None:
        type(self).asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(b'{"Id": "x", "Warnings": []}', 201)

    def log_message(self, *_: object) -> None:
        pass


def read_by_docker(file: Path) -> Mapping[str, str]:
    """By the docker command; of several lines with one name, runc takes the last (libcontainer/env.go)."""
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("docker is not installed")
    socket = file.parent / "docker.sock"
    with socketserver.UnixStreamServer(str(socket), StandInDaemon) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            subprocess.run(
                [docker, "create", "--env-file", file, "image"],
                env={"DOCKER_HOST": f"unix://{socket}", "HOME": str(file.parent)},
                capture_output=True,
                check=True,
            )
        finally:
            server.shutdown()
            thread.join()
    return dict(entry.split("=", 1) for entry in StandInDaemon.asked["Env"])


READERS = {"systemd": read_by_systemd, "docker": read_by_docker, "python-dotenv": read_by_dotenv}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("own", "variable", "values", "join", "expected"),
    [
        ("", PATH, ("/a",), Join.PATH, "/a"),
        ("OTHER=1\n", PATH, ("/a b", "/é#x,=~*"), Join.PATH, "/a b:/é#x,=~*"),
        ("OTHER=1", PATH, ("/a",), Join.PATH, "/a"),
        (f"{PATH}=/x:/y\n", PATH, ("/a",), Join.PATH, "/a:/x:/y"),
        (f"{PATH}=/x\n{PATH}=/y\nOTHER=1\n", PATH, ("/a",), Join.PATH, "/a:/y"),
        (f"{PATH}=/a:/x\n", PATH, ("/a",), Join.PATH, "/a:/x"),
        (f"{FLAGS}=--old --o2\n", FLAGS, ("--x=/a", "--y"), Join.WORDS, "--x=/a --y --old --o2"),
        ("", THREADS, ("2",), Join.DEFAULT, "2"),
        (f"{THREADS}=8\n", THREADS, ("2",), Join.DEFAULT, "8"),
        (f"{THREADS}=\n", THREADS, ("2",), Join.DEFAULT, "2"),
    ],
)
def test_every_reader_sees_the_files_own_value_extended(
    tmp_path: Path, reader: str, own: str, variable: str, values: tuple[str, ...], join: Join, expected: str
) -> None:
    file = tmp_path / "service.env"
    file.write_text(own)
    assert READERS[reader](written(file, variable, values, join))[variable] == expected
    assert file.read_text().startswith(own.rstrip("\n"))


def test_what_this_shell_holds_is_not_frozen_into_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PATH, "/of/this/shell")
    assert "/of/this/shell" not in written(tmp_path / "service.env", PATH, ("/a",)).read_text()


def test_a_second_export_keeps_the_first_and_a_third_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "service.env"
    file.write_text(f"{PATH}=/x\n")
    written(written(file, PATH, ("/a",)), PATH, ("/b",))
    assert read_by_lines(file)[PATH] == "/b:/a:/x"
    before = file.read_bytes()
    assert written(file, PATH, ("/b",)).read_bytes() == before


def test_a_line_that_the_user_wrote_after_the_block_is_extended_too(tmp_path: Path) -> None:
    file = written(written(tmp_path / "service.env", PATH, ("/a",)), THREADS, ("2",), Join.DEFAULT)
    with file.open("a") as appended:
        appended.write(f"{PATH}=/mine\n")
    assert read_by_lines(written(file, PATH, ("/a",))) == {PATH: "/a:/mine", THREADS: "2"}


def read_by_lines(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize(
    "value",
    ["/a'b", '/a"b', "/a\\b", "/a$b", "/a #b", "/a\nb", "/a\rb", "/a ", "/a\t", "/a\udcff", "/a\x1b[0m"],
)
def test_a_value_that_readers_take_differently_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"/f\.env: .*not read alike"):
        file_edits("/f.env", PATH, (value,), Join.PATH, {})
    with pytest.raises(ValueError, match="not read alike"):
        shell_line(PATH, (value,), Join.PATH, "dotenv")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (f"{PATH}=/x$HOME", "not read alike"),
        (f"{PATH}='/x", "not read alike"),
        (f"{PATH}=/x\\ y", "not read alike"),
        (PATH, "docker take the host's value"),
    ],
)
def test_an_own_line_that_cannot_be_extended_is_left_alone(line: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        file_edits("/f.env", PATH, ("/a",), Join.PATH, {"/f.env": line.encode()})


@pytest.mark.parametrize("line", [f'{PATH}="/x"', f"export {PATH}='/x'", f" {PATH} = /x \r"])
def test_an_own_line_in_a_readers_own_style_is_extended(tmp_path: Path, line: str) -> None:
    file = tmp_path / "service.env"
    file.write_text(line + "\n", newline="")
    assert read_by_lines(written(file, PATH, ("/a",)))[PATH] == "/a:/x"


def test_a_file_of_flags_takes_no_further_words() -> None:
    with pytest.raises(ValueError, match="names a file"):
        file_edits("/f.env", FLAGS, ("--a",), Join.WORDS, {"/f.env": f"{FLAGS}=/flags\n".encode()})


own_lines = st.lists(
    st.sampled_from([f"{PATH}=/x", f"{PATH}=", "OTHER=1", "# note", "", f"{PATH}=/y", f"{PATH}_2=/no"])
)
plain_paths = st.text("ab /é.-_=#@%+,", min_size=1).map("/{}".format).filter(lambda p: p == p.strip())
plain_paths = plain_paths.filter(lambda p: " #" not in p)


@given(own_lines, st.booleans(), st.lists(plain_paths, min_size=1, max_size=3, unique=True).map(tuple))
def test_the_block_can_be_taken_out_exactly(own: list[str], ended: bool, values: tuple[str, ...]) -> None:
    text = "\n".join(own) + ("\n" if ended else "")
    edits = file_edits("/f.env", PATH, values, Join.PATH, {"/f.env": text.encode()})
    held = next((line.split("=", 1)[1] for line in reversed(own) if line.startswith(f"{PATH}=")), "")
    (edit,) = edits
    after = decode(edit.after)
    assert blocks.remove(after, PATH) == text
    joined = ":".join(values)
    assert after.splitlines()[-2] == f"{PATH}={joined}{':' if held else ''}{held}"


# --- direnv -----------------------------------------------------------------------------------------


@pytest.fixture
def direnv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project directory that direnv looks at."""
    if shutil.which("direnv") is None:
        pytest.skip("direnv is not installed")
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "DIRENV_DIFF", "DIRENV_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DIRENV_LOG_FORMAT", "")
    project = tmp_path / "project"
    project.mkdir()
    return project


def test_direnv_extends_in_the_project_and_takes_back_outside(direnv: Path) -> None:
    nasty = ("/tmp/a b'c\"d$HOME`id`!x\\y*[z]?~\n#w é!", "/end\\")
    envrc = direnv / ".envrc"
    envrc.write_text("export MINE=1\n")
    written(envrc, PATH, nasty)
    written(envrc, PATH, ("/second",))
    written(envrc, FLAGS, ("--a=/b",), Join.WORDS)
    written(envrc, THREADS, ("2",), Join.DEFAULT)
    subprocess.run(["direnv", "allow", envrc], check=True, capture_output=True)
    every = show(PATH) + show(FLAGS) + show(THREADS)
    hook = 'eval "$(direnv export bash 2>/dev/null)"\n'
    script = f"cd '{direnv}'\n{hook}{every}{hook}{show(PATH)}cd /\n{hook}{every}"
    inside = os.fsencode(":".join(("/second", *nasty))) + b":/old"
    seen = run_shell("bash", script, {PATH: b"/old", FLAGS: b"--old", THREADS: None})
    assert seen == [inside, b"--a=/b --old", b"2", inside, b"/old", b"--old", None]


def test_an_envrc_is_extended_by_the_shell_and_not_with_what_it_says_now() -> None:
    own = f"export {PATH}=/x\n"
    (edit,) = file_edits("/p/.envrc", PATH, ("/a",), Join.PATH, {"/p/.envrc": own.encode()})
    body = decode(edit.after)
    assert body.startswith(own)
    assert f"${{{PATH}:+:${PATH}}}" in body
    assert run_shell("bash", body + body + show(PATH), {PATH: None}) == [b"/a:/x"]
    assert blocks.remove(body, PATH) == own
