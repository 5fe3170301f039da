"""The loader's rules, each as the loader itself follows it: every test runs both."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from envdoctor.facts.loader_model import Rule
from tests.facts import real_loader
from tests.facts.comparison import Both, Driver, compare
from tests.facts.layouts import Content, Library, Link, layout

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the driver has x86-64 code")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    path = real_loader.build_program(str(tmp_path_factory.mktemp("driver")))
    return Driver(path, real_loader.can_replace_cache())


@pytest.fixture
def both(driver: Driver, tmp_path: os.PathLike[str]) -> Both:
    return Both(driver, os.path.realpath(tmp_path))


@settings(max_examples=400, database=None, deadline=None)
@given(seed=st.integers(0, 2**64))
def test_the_model_does_what_the_loader_does(driver: Driver, seed: int) -> None:
    top = os.path.realpath(tempfile.mkdtemp(prefix="layout"))
    try:
        case = layout(seed)
        case.write(top)
        for lookup in compare(driver, case, top)[1:]:
            event(f"dlopen: {lookup.rule.value if lookup.rule else 'failed'}")
    finally:
        shutil.rmtree(top)


OPENED = "{top}/d0/liba.so.1"


def test_runpath_of_the_caller_is_not_inherited_by_its_needs(both: Both) -> None:
    opener = Library(needed=("libb.so.1",), runpath="{top}/d1:{top}/d2")
    files = {"d0/liba.so.1": opener, "d1/libb.so.1": Library(needed=("libd.so",)), "d2/libd.so": Library()}
    (lookup,) = both.play(files, OPENED)
    assert [failure.name for failure in lookup.failures] == ["libd.so"]
    assert lookup.needed[0].rule is Rule.RUNPATH


def test_rpath_of_the_caller_is_inherited_by_its_needs(both: Both) -> None:
    opener = Library(needed=("libb.so.1",), rpath="{top}/d1:{top}/d2")
    files = {"d0/liba.so.1": opener, "d1/libb.so.1": Library(needed=("libd.so",)), "d2/libd.so": Library()}
    (lookup,) = both.play(files, OPENED)
    assert lookup.ok
    assert lookup.needed[0].needed[0].rule is Rule.RPATH


def test_rpath_of_the_program_counts_for_every_object(both: Both) -> None:
    files = {"d0/liba.so.1": Library(needed=("libb.so.1",)), "d1/libb.so.1": Library()}
    (lookup,) = both.play(files, OPENED, search=("rpath", "{top}/d1"))
    assert lookup.needed[0].rule is Rule.RPATH


@pytest.mark.parametrize("runpath", ["", "{top}/nowhere"])
def test_a_runpath_even_an_empty_one_turns_rpaths_off(both: Both, runpath: str) -> None:
    asking = Library(needed=("libb.so.1",), rpath="{top}/d1", runpath=runpath)
    files = {"d0/liba.so.1": asking, "d1/libb.so.1": Library()}
    (lookup,) = both.play(files, OPENED, search=("rpath", "{top}/d1"))
    assert not lookup.ok


@pytest.mark.parametrize(("tag", "path"), [("rpath", "d0/liba.so.1"), ("runpath", "d1/liba.so.1")])
def test_ld_library_path_comes_after_rpath_and_before_runpath(both: Both, tag: str, path: str) -> None:
    files = {"d0/liba.so.1": Library(), "d1/liba.so.1": Library()}
    environment = {"LD_LIBRARY_PATH": "{top}/d1"}
    (lookup,) = both.play(files, "liba.so.1", search=(tag, "{top}/d0"), environment=environment)
    assert lookup.path == path


def test_an_empty_element_of_ld_library_path_is_the_current_directory(both: Both) -> None:
    (lookup,) = both.play({"libhere.so": Library()}, "libhere.so", environment={"LD_LIBRARY_PATH": "/none:"})
    assert lookup.path == "libhere.so"


def test_a_library_of_another_class_is_passed_over(both: Both) -> None:
    files: dict[str, Content] = {"d0/liba.so.1": "wrong class", "d1/liba.so.1": Library()}
    (lookup,) = both.play(files, "liba.so.1", environment={"LD_LIBRARY_PATH": "{top}/d0:{top}/d1"})
    assert lookup.path == "d1/liba.so.1"
    assert lookup.attempts[0].outcome == "wrong ELF class: ELFCLASS32"


def test_a_text_under_the_name_of_a_library_ends_the_search(both: Both) -> None:
    files: dict[str, Content] = {"d0/liba.so.1": "text", "d1/liba.so.1": Library()}
    (lookup,) = both.play(files, "liba.so.1", environment={"LD_LIBRARY_PATH": "{top}/d0:{top}/d1"})
    assert lookup.error.endswith("d0/liba.so.1: invalid ELF header")


def test_a_link_loop_ends_its_list_of_directories_and_not_the_search(both: Both) -> None:
    name = "liba.so.1"
    files: dict[str, Content] = {
        f"d0/{name}": Link("{name}"),
        f"d1/{name}": Library(),
        f"d2/{name}": Library(),
    }
    environment = {"LD_LIBRARY_PATH": "{top}/d0:{top}/d1"}
    (lookup,) = both.play(files, name, search=("runpath", "{top}/d2"), environment=environment)
    assert lookup.path == "d2/liba.so.1"
    assert [attempt.outcome for attempt in lookup.attempts] == ["link loop"]


def test_a_loaded_soname_answers_without_a_search(both: Both) -> None:
    files = {"d0/liba.so.1": Library(soname="libb.so.1"), "d1/libb.so.1": Library()}
    _, again = both.play(files, OPENED, "libb.so.1", environment={"LD_LIBRARY_PATH": "{top}/d1"})
    assert again.rule is Rule.LOADED


def test_a_failed_dlopen_takes_back_what_it_brought(both: Both) -> None:
    files = {"d0/liba.so.1": Library(needed=("libb.so.1", "libnone.so")), "d0/libb.so.1": Library()}
    failed, again = both.play(files, OPENED, "libb.so.1", environment={"LD_LIBRARY_PATH": "{top}/d0"})
    assert not failed.ok
    assert again.rule is Rule.LD_LIBRARY_PATH


def test_a_missing_preload_ends_nothing(both: Both) -> None:
    preload = {"LD_PRELOAD": "libnone.so {top}/d0/liba.so.1"}
    (lookup,) = both.play({"d0/liba.so.1": Library(soname="liba.so.1")}, "liba.so.1", environment=preload)
    assert lookup.rule is Rule.LOADED


def test_hwcaps_subdirectories_come_before_their_directory(both: Both) -> None:
    files = {"d1/glibc-hwcaps/x86-64-v2/liba.so.1": Library(), "d1/liba.so.1": Library()}
    (lookup,) = both.play(files, "liba.so.1", environment={"LD_LIBRARY_PATH": "{top}/d1"})
    assert lookup.path in {"d1/glibc-hwcaps/x86-64-v2/liba.so.1", "d1/liba.so.1"}  # as the CPU is


def test_a_failure_tells_all_that_is_missing(both: Both) -> None:
    (lookup,) = both.play({"d0/liba.so.1": Library(needed=("libone.so", "libtwo.so"))}, OPENED)
    assert [failure.name for failure in lookup.failures] == ["libone.so", "libtwo.so"]
