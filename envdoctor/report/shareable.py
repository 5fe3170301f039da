"""Text for a report that leaves the machine: no host name, no home, no user name."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator

from envdoctor.facts.model import Facts
from envdoctor.report.terminal import harmless

HOST = "(host)"
USER = "(user)"
_HOMES = re.compile(r"(?<![\w.-])(?:/(?:home|Users)/[^/\s:'\"]+|/root(?=/|$|\s))")
_USERS = ("USER", "LOGNAME", "SUDO_USER")


class Shareable:
    """Takes out what names this machine and its user; what else a text says stays as it is."""

    def __init__(self, facts: Facts) -> None:
        own = {os.path.expanduser("~"), facts.environment.get("HOME", ""), _home_of_account()}
        homes = sorted(
            {home.rstrip("/") for home in own if home.startswith("/")} - {""}, key=len, reverse=True
        )
        self._homes = [re.compile(rf"(?<![\w.-]){re.escape(home)}(?![\w.-])") for home in homes]
        self._host = [re.compile(rf"(?<![\w./-]){re.escape(name)}(?![\w/-])") for name in _host_names(facts)]
        users = {os.path.basename(home) for home in homes} | {facts.environment.get(n, "") for n in _USERS}
        # As a part of a path alone: many users are called as ordinary things are.
        self._users = [re.compile(rf"(?<=/){re.escape(user)}(?=/|$|\s)") for user in sorted(users - {""})]

    def __call__(self, text: object) -> str:
        """Control characters written out, too."""
        found = str(text)
        for home in (*self._homes, _HOMES):
            found = home.sub("~", found)
        for user in self._users:
            found = user.sub(USER, found)
        for host in self._host:
            found = host.sub(HOST, found)
        return harmless(found)


def _host_names(facts: Facts) -> Iterator[str]:
    """With its domain first, then without."""
    name = facts.host.hostname
    short = name.partition(".")[0]
    return (one for one in dict.fromkeys((name, short)) if one != "localhost" and re.search("[A-Za-z]", one))


def _home_of_account() -> str:
    """$HOME may be elsewhere. "" where the user has no entry, as in many containers."""
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""
