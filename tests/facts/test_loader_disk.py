"""The loader's world below a root: read from the disk, and as it was recorded."""

from __future__ import annotations

import os
import sys
import time

import pytest
from msgspec.structs import replace

from envdoctor.facts.loader import DiskView, Process, RecordedView
from envdoctor.facts.loader_model import LibraryWorld, Rule
from envdoctor.facts.root import Root
from tests.facts.elf_factory import DF_1_PIE, ld_so_cache, library

LOADER = library(soname="ld-linux-x86-64.so.2") + b"glibc-hwcaps\0/lib64/\0/usr/lib64/\0"
FLAGS = "flags\t\t: cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3 fpu\n"


@pytest.fixture
def tree(tmp_path: os.PathLike[str]) -> str:
    """A root of its own, with absolute links and a loader that searches lib64."""
    top = os.path.join(tmp_path, "root")
    for directory in ("usr/lib64/glibc-hwcaps/x86-64-v2", "usr/bin", "etc", "proc", "opt/cuda/lib64"):
        os.makedirs(os.path.join(top, directory))
    os.symlink("/usr/lib64", os.path.join(top, "lib64"))
    os.symlink("/opt/cuda", os.path.join(top, "usr/cuda"))
    for path, content in {
        "usr/lib64/ld-linux-x86-64.so.2": LOADER,
        "usr/lib64/libc.so.6": library(soname="libc.so.6"),
        "opt/cuda/lib64/libcudart.so.12.1": library(soname="libcudart.so.12", needed=["libc.so.6"]),
        "usr/bin/program": library(needed=["libc.so.6"], flags_1=DF_1_PIE),
        "proc/cpuinfo": FLAGS.encode(),
        "etc/ld.so.cache": ld_so_cache([("libcudart.so.12", "/usr/cuda/lib64/libcudart.so.12", "")]),
    }.items():
        with open(os.path.join(top, path), "wb") as file:
            file.write(content)
    os.symlink("/opt/cuda/lib64/libcudart.so.12.1", os.path.join(top, "opt/cuda/lib64/libcudart.so.12"))
    return top


def test_a_root_tells_its_machine_and_directories_through_its_own_loader(tree: str) -> None:
    view = DiskView(Root(tree))
    assert (view.machine, view.bits) == ("x86_64", 64)
    assert view.default_directories == ("/lib64", "/usr/lib64")
    assert view.hwcaps == ("x86-64-v2",)


def test_links_are_followed_inside_the_root(tree: str) -> None:
    process = Process(DiskView(Root(tree)), {})
    assert process.load_program("/usr/bin/program").ok
    lookup = process.dlopen("libcudart.so.12")
    assert lookup.path == "/usr/cuda/lib64/libcudart.so.12"
    assert lookup.real == "/opt/cuda/lib64/libcudart.so.12.1"
    assert lookup.rule is Rule.CACHE
    assert lookup.needed[0].rule is Rule.LOADED


def test_hwcaps_of_the_root_come_first(tree: str) -> None:
    with open(f"{tree}/usr/lib64/glibc-hwcaps/x86-64-v2/libz.so.1", "wb") as file:
        file.write(library())
    process = Process(DiskView(Root(tree)), {})
    process.load_program("/usr/bin/program")
    assert process.dlopen("libz.so.1").path == "/lib64/glibc-hwcaps/x86-64-v2/libz.so.1"


def test_a_root_without_a_loader_gets_the_customary_directories(tmp_path: os.PathLike[str]) -> None:
    multiarch = f"usr/lib/{os.uname().machine}-linux-gnu"
    os.makedirs(os.path.join(tmp_path, multiarch))
    assert DiskView(Root(os.fspath(tmp_path))).default_directories == (f"/{multiarch}", "/usr/lib")


def test_a_damaged_cache_makes_what_it_would_answer_unknown(tree: str) -> None:
    with open(f"{tree}/etc/ld.so.cache", "r+b") as file:
        file.truncate(60)
    process = Process(DiskView(Root(tree)), {})
    process.load_program("/usr/bin/program")
    lookup = process.dlopen("libcudart.so.12")
    assert lookup.unknown.startswith("ld.so.cache could not be read: /etc/ld.so.cache")
    assert not lookup.error
    assert not lookup.ok


def recorded(tree: str) -> tuple[DiskView, LibraryWorld]:
    view = DiskView(Root(tree))
    Process(view, {}).load_program("/usr/bin/program")
    return view, view.record(["libcudart"])


def test_a_recorded_world_does_not_know_names_that_nobody_asked_for(tree: str) -> None:
    _, world = recorded(tree)
    process = Process(RecordedView(world), {})
    assert process.load_program("/usr/bin/program").ok
    assert process.dlopen("libnccl.so.2").unknown == "no names like libnccl.so.2 were recorded"
    assert process.dlopen("/opt/libx.so").unknown == "the directory /opt was not recorded"


def test_a_recorded_world_answers_what_it_was_made_to_look_at(tree: str) -> None:
    view = DiskView(Root(tree))
    Process(view, {}).load_program("/usr/bin/program")
    assert set(view.look_at_directory("/opt/cuda/lib64")) == {"libcudart.so.12", "libcudart.so.12.1"}
    world = view.record(["libcudart"])
    process = Process(RecordedView(world), {"LD_LIBRARY_PATH": "/opt/cuda/lib64"})
    process.load_program("/usr/bin/program")
    assert process.dlopen("libcudart.so.12").rule is Rule.LD_LIBRARY_PATH


def test_a_link_made_in_memory_is_found(tree: str) -> None:
    view = DiskView(Root(tree))
    Process(view, {}).load_program("/usr/bin/program")
    assert view.look_at_object("/opt/cuda/lib64/libcudart.so.12")
    world = view.record().with_link("/usr/lib64", "libcudart.so.12", "/opt/cuda/lib64/libcudart.so.12.1")
    process = Process(RecordedView(replace(world, cache=())), {})
    process.load_program("/usr/bin/program")
    assert process.dlopen("libcudart.so.12").path == "/lib64/libcudart.so.12"


def test_recorded_listings_are_complete_for_the_stems_asked_for(tree: str) -> None:
    for name in ("libc.so", "libc.so.5", "libcurl.so.4"):
        with open(f"{tree}/usr/lib64/{name}", "wb") as file:
            file.write(library())
    _, world = recorded(tree)
    assert {name for name in world.listings["/usr/lib64"] if name.startswith("libc")} == {
        "libc.so",
        "libc.so.5",
        "libc.so.6",
    }
    assert set(world.objects) >= {"/usr/lib64/libc.so", "/usr/lib64/libc.so.5", "/usr/lib64/libc.so.6"}


def test_only_a_loaded_object_can_ask(tree: str) -> None:
    process = Process(DiskView(Root(tree)), {})
    process.load_program("/usr/bin/program")
    assert process.dlopen("libc.so.6", "/opt/libother.so").unknown.startswith(
        "/opt/libother.so is not loaded"
    )


def test_unreadable_files_are_passed_over(tree: str) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    os.makedirs(f"{tree}/first")
    with open(f"{tree}/first/libc.so.6", "wb") as file:
        os.chmod(file.name, 0)
    process = Process(DiskView(Root(tree)), {"LD_LIBRARY_PATH": "/first"})
    lookup = process.load_program("/usr/bin/program").needed[0]
    assert lookup.attempts[0].outcome == "permission denied"
    assert lookup.path == "/lib64/libc.so.6"


def test_the_libraries_of_this_interpreter_are_resolved_in_milliseconds() -> None:
    def seconds() -> float:
        begin = time.perf_counter()
        process = Process(DiskView(Root("/"), sys.executable), os.environ)
        assert process.load_program(sys.executable).ok
        return time.perf_counter() - begin

    assert min(seconds() for _ in range(5)) < 0.02
