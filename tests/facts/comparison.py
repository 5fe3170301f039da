"""The comparison of the model with the real loader on one layout."""

from __future__ import annotations

import os
import posixpath
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from envdoctor.facts.ldcache import parse_ld_so_cache
from envdoctor.facts.loader import DiskView, Process, RecordedView
from envdoctor.facts.loader_model import CacheEntry, Lookup, Rule
from envdoctor.facts.root import Root
from tests.facts import real_loader
from tests.facts.elf_factory import ld_so_cache
from tests.facts.layouts import Content, Layout


@dataclass
class Driver:
    path: str
    replaces_cache: bool

    def image(self) -> bytes:
        with open(self.path, "rb") as file:
            return file.read()


class WithCache(DiskView):
    """The live root with another ld.so.cache, as the driver sees it in its mount namespace."""

    def __init__(self, cache: tuple[CacheEntry, ...] | None) -> None:
        super().__init__(Root("/"))
        self._other_cache = cache

    @property
    def cache(self) -> tuple[CacheEntry, ...]:
        return super().cache if self._other_cache is None else self._other_cache


def breadth_first(lookups: list[Lookup]) -> Iterator[Lookup]:
    todo = list(lookups)
    for lookup in todo:
        yield lookup
        todo += lookup.needed


def until_failure(lookups: Iterator[Lookup]) -> list[Lookup]:
    """What the loader gets to do: it stops where the model goes on to tell all that is missing."""
    done = []
    for lookup in lookups:
        done.append(lookup)
        if lookup.error:
            break
    return done


def start(process: Process, lookup: Lookup, preload: str) -> list[Lookup]:
    """The look-ups of a program's start in their order: a preload that fails ends nothing."""
    failed, found = list(process.failed_preloads), list(lookup.needed)
    names = preload.replace(":", " ").split()
    preloads = [failed.pop(0) if failed and failed[0].name == name else found.pop(0) for name in names]
    rest = breadth_first([*(p for p in preloads if not p.error), *found])
    return preloads + until_failure(one for one in rest if not any(one is p for p in preloads))


def tried(lookups: list[Lookup]) -> list[tuple[str, list[str]]]:
    """As `real_loader.searches`: the files tried, without those of directories that do not exist."""
    found = []
    for lookup in lookups:
        if lookup.rule is not Rule.LOADED and "/" not in lookup.name:
            paths = [a.path for a in lookup.attempts if a.outcome != "no such directory"]
            # The last attempt of a file that opens and cannot be mapped is one try, as is the found path.
            found.append((lookup.name, paths + ([lookup.path] if lookup.path else [])))
    return found


def really_tried(log: str, cwd: str) -> list[tuple[str, list[str]]]:
    def in_directory(path: str) -> bool:
        return os.path.isdir(os.path.join(cwd, os.path.dirname(path)))

    return [
        (name, [path for path in paths if in_directory(path)]) for name, paths in real_loader.searches(log)
    ]


def without_loader(paths: list[str]) -> list[str]:
    return [path for path in paths if "vdso" not in path and "ld-linux" not in path]


def normalised(error: str) -> str:
    """Without the shades that the model does not keep; a starting program has few words for errno."""
    for text, meaning in (
        ("position-independent ", ""),
        ("not a regular file", "cannot read file data: Is a directory"),
        ("Error 21", "Is a directory"),
        ("Error 40", "Too many levels of symbolic links"),
    ):
        error = error.replace(text, meaning)
    return re.sub("(: No such file or directory|: Not a directory)$", "", error)


def play(
    process: Process, case: Layout, top: str
) -> tuple[list[Lookup], list[list[str]], list[tuple[str, str]]]:
    """The start and the requests on the model: look-ups, what is loaded after each, and the real requests."""
    lookups = [process.load_program(f"{top}/program")]
    loaded = [[path for path, _ in process.loaded]]
    requests: list[tuple[str, str]] = []
    if not lookups[0].failures:
        for index, name in case.requests:
            callers = [(p, r) for p, r in process.loaded if not p or r.startswith(top)]
            path, real = callers[index % len(callers)]
            requests.append((path, name.format(top=top)))
            lookups.append(process.dlopen(requests[-1][1], real if path else ""))
            loaded.append([path for path, _ in process.loaded])
    return lookups, loaded, requests


def compare(driver: Driver, case: Layout, top: str) -> list[Lookup]:
    """Play a layout on the model and on the loader, which must agree. The model's look-ups."""
    search = case.search and (case.search[0], case.search[1].format(top=top))
    program = f"{top}/program"
    with open(program, "wb") as file:
        file.write(real_loader.program(driver.image(), search, case.needed))
    os.chmod(program, 0o755)
    environment = {name: value.format(top=top) for name, value in case.environment.items()}
    cache, entries = "", None
    if case.cache is not None and driver.replaces_cache:
        cache = f"{top}/cache"
        content = ld_so_cache([(name, path.format(top=top), hwcap) for name, path, hwcap in case.cache])
        with open(cache, "wb") as file:
            file.write(content)
        entries = parse_ld_so_cache(content)

    view = WithCache(entries)
    process = Process(view, environment, cwd=top)
    lookups, loaded, requests = play(process, case, top)
    steps = real_loader.run(program, requests, environment, cwd=top, cache=cache)

    assert len(steps) == len(lookups)
    for index, (lookup, step, after) in enumerate(zip(lookups, steps, loaded, strict=True)):
        assert not lookup.doubts
        if index:
            walk = until_failure(breadth_first([lookup]))
        else:
            walk = start(process, lookup, environment.get("LD_PRELOAD", ""))
        assert tried(walk) == really_tried(step.log, top)
        assert lookup.ok == step.ok, (lookup, step)
        if step.ok:
            assert without_loader(after) == without_loader(step.loaded)
            if index:
                assert lookup.path == step.text or lookup.rule is not Rule.LOADED
        else:
            error = next(x for x in walk[::-1] if x.error).error
            assert normalised(error.split(": ", 1)[1]) in normalised(step.text)

    world = view.record()
    again = play(Process(RecordedView(world), environment, cwd=top), case, top)
    assert again == (lookups, loaded, requests)
    return lookups


class Both:
    """Layouts played on the model and on the loader: what a test sees of the model is true of the loader."""

    def __init__(self, driver: Driver, top: str) -> None:
        self._driver = driver
        self._top = top

    def play(self, files: Mapping[str, Content], *names: str, **options: Any) -> list[Lookup]:
        """What the program's dlopens of these names do, with these files ("d0/liba.so.1") in place."""
        top = tempfile.mkdtemp(dir=self._top)
        split = {posixpath.split(path): content for path, content in files.items()}
        case = Layout(files=split, requests=tuple((0, name) for name in names), **options)
        case.write(top)
        lookups = compare(self._driver, case, top)[1:]
        return [replace(lookup, path=lookup.path.removeprefix(top + "/")) for lookup in lookups]
