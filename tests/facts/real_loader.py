"""The real loader as an oracle: a program that calls dlopen from any of its objects, under LD_DEBUG."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from envdoctor.facts.loader import Process
from envdoctor.facts.loader_model import Lookup, Rule
from tests.facts.elf_factory import patched_program

RPATH_PLACEHOLDER = "/placeholder" * 40
NEED_PLACEHOLDERS = (
    "libplaceholder_for_a_need_one_0123456789.so",
    "libplaceholder_for_a_need_two_0123456789.so",
)

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
typedef void *(*opener)(void *(*)(const char *, int), const char *, int);
static void *__attribute__((noinline)) here(void *(*f)(const char *, int), const char *name, int flags) {
  void *handle = f(name, flags);
  __asm__ volatile("" ::: "memory");
  return handle;
}
static void list(void) {
  struct link_map *map;
  void *self = dlopen(NULL, RTLD_NOW);
  dlinfo(self, RTLD_DI_LINKMAP, &map);
  for (; map; map = map->l_next) printf("loaded\t%s\n", map->l_name);
  printf("end\n");
  fflush(stdout);
}
int main(int count, char **arguments) {
  list();
  for (int i = 1; i + 1 < count; i += 2) {
    opener from = here;
    if (*arguments[i]) {
      void *caller = dlopen(arguments[i], RTLD_NOW | RTLD_NOLOAD);
      if (!caller) { printf("error\tno such caller\n"); list(); continue; }
      from = (opener)dlsym(caller, "open_from_here");
    }
    fprintf(stderr, "=== request\n");
    struct link_map *map = from(dlopen, arguments[i + 1], RTLD_NOW);
    if (map) printf("ok\t%s\n", map->l_name); else printf("error\t%s\n", dlerror());
    list();
  }
  return 0;
}
"""


@dataclass
class Step:
    """What the start or one request did: its outcome, what is loaded after it, and the log of it."""

    ok: bool = True
    text: str = ""  # link_map's l_name, or dlerror
    loaded: list[str] = field(default_factory=list)
    log: str = ""


def build_program(directory: str) -> str:
    """Compile the driver, with placeholders for its search path and two needs. Its path."""
    source = os.path.join(directory, "driver.c")
    with open(source, "w") as file:
        file.write(_SOURCE)
    for name in NEED_PLACEHOLDERS:
        stub = ["gcc", "-shared", "-nostdlib", f"-Wl,-soname,{name}", "-x", "c", "/dev/null", "-o", name]
        subprocess.run(stub, check=True, cwd=directory)
    command = ["gcc", "-O1", "-fno-optimize-sibling-calls", source, "-o", os.path.join(directory, "driver")]
    command += ["-Wl,--no-as-needed", *(os.path.join(directory, name) for name in NEED_PLACEHOLDERS)]
    command += [f"-Wl,--disable-new-dtags,-rpath,{RPATH_PLACEHOLDER}", "-ldl"]
    subprocess.run(command, check=True)
    return os.path.join(directory, "driver")


def program(image: bytes, search: tuple[str, str] | None = None, needed: Sequence[str] = ()) -> bytes:
    needs = dict(zip(NEED_PLACEHOLDERS, [*needed, "", ""], strict=False))
    return patched_program(image, rpath_placeholder=RPATH_PLACEHOLDER, search=search, needs=needs)


def can_replace_cache() -> bool:
    """May this process lay a file over /etc/ld.so.cache in a mount namespace of its own?"""
    command = ["unshare", "-m", "mount", "--bind", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0


def run(
    path: str,
    requests: Sequence[tuple[str, str]],
    environment: Mapping[str, str],
    *,
    cwd: str,
    cache: str = "",
) -> list[Step]:
    """Start the driver and let it dlopen each (caller, name). One step for the start and for each request."""
    debug = {**environment, "LD_DEBUG": "libs,files"}
    arguments = [path, *(text for request in requests for text in request)]
    if cache:
        script = 'mount --bind "$0" /etc/ld.so.cache && exec env -i "$@"'
        settings = [f"{name}={value}" for name, value in debug.items()]
        arguments = ["unshare", "-m", "sh", "-c", script, cache, *settings, *arguments]
        debug = {"PATH": os.environ["PATH"]}
    done = subprocess.run(arguments, env=debug, cwd=cwd, capture_output=True, text=True, check=False)
    logs = done.stderr.split("=== request\n")
    steps = [Step()]
    for line in done.stdout.splitlines():
        kind, _, text = line.partition("\t")
        if kind in ("ok", "error"):
            steps[-1].ok, steps[-1].text = kind == "ok", text
        elif kind == "loaded":
            steps[-1].loaded.append(text)
        elif kind == "end":
            steps.append(Step())
    if not done.stdout:
        match = re.search(r"error while loading shared libraries: (.*)", done.stderr)
        assert match, done.stderr[-2000:]
        steps = [Step(ok=False, text=match[1]), Step()]
    assert done.returncode >= 0, (done.returncode, done.stderr[-2000:])
    for step, log in zip(steps, logs, strict=False):
        step.log = log
    return steps[:-1]


def searches(log: str) -> list[tuple[str, list[str]]]:
    """(name, files tried) of each search in an LD_DEBUG=libs log, in order."""
    found: list[tuple[str, list[str]]] = []
    for line in log.splitlines():
        if match := re.search(r":\s+find library=(.*) \[0\]; searching", line):
            found.append((match[1], []))
        elif found and (match := re.search(r":\s+ trying file=(.*)", line)):
            found[-1][1].append(match[1])
    return found


def chosen_files(log: str) -> dict[str, str]:
    """{name asked: file mapped} of an LD_DEBUG=libs,files log; a name with a slash is its own file."""
    chosen: dict[str, str] = {}
    tried: dict[str, str] = {}
    name = ""
    for line in log.splitlines():
        if match := re.search(r":\s+find library=(.*) \[0\]; searching", line):
            name = match[1]
        elif match := re.search(r":\s+ trying file=(.*)", line):
            tried[name] = match[1]
        elif match := re.search(r":\s+file=(.*) \[0\];  generating link map", line):
            chosen[match[1]] = tried.get(match[1], match[1])
    return chosen


def dynamic_loads(log: str) -> list[tuple[str, str]]:
    """(name, caller) of each dlopen of something new, in order; the caller as LD_DEBUG names it."""
    return re.findall(r":\s+file=(.*) \[0\];  dynamically loaded by (.*) \[0\]", log)


def replay(process: Process, path: str, log: str) -> tuple[dict[str, str], dict[str, str]]:
    """Play a program's whole LD_DEBUG=libs,files log on the model: {name: file} as the model has it, and
    as the loader had it. A caller that the model has not loaded is taken for the program."""
    lookups = [process.load_program(path)]
    for name, caller in dynamic_loads(log):
        known = {caller} & {spelled for spelled, _ in process.loaded}
        lookups.append(process.dlopen(name, known.pop() if known else ""))
    modelled: dict[str, str] = {}
    for lookup in lookups:
        modelled.update(_new_files(lookup))
    return modelled, chosen_files(log)


def _new_files(lookup: Lookup) -> dict[str, str]:
    found = {}
    if lookup.rule not in (None, Rule.LOADED) and lookup.requester and not lookup.failures:
        found[lookup.name] = lookup.path
    for need in lookup.needed:
        found.update(_new_files(need))
    return found
