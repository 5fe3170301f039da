"""Options that several commands take, and the types of their values."""

from __future__ import annotations

from typing import Any

import click

JSON = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
COLOR = click.option(
    "--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True
)
_TARGET = (
    click.option(
        "--python",
        metavar="PY",
        help="Interpreter to examine: a path, an environment or a command. Default: $VIRTUAL_ENV, "
        "$CONDA_PREFIX, then the one envdoctor runs in.",
    ),
    click.option("--root", metavar="DIR", help="Judge the file tree below DIR; nothing in it is executed."),
    click.option("--gpu", is_flag=True, help="A GPU is required: its absence is an error."),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=60.0,
        show_default=True,
        metavar="S",
        help="Seconds that a framework may take to import and list its devices.",
    ),
    JSON,
    COLOR,
)


def target_options(command: Any) -> Any:
    for option in reversed(_TARGET):
        command = option(command)
    return command


class Codes(click.ParamType[frozenset[str]]):
    """Codes or names of conditions, as a set of codes; several with commas or by repeating the option."""

    name = "CODE"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> frozenset[str]:
        from envdoctor.catalog import CONDITIONS, find  # noqa: PLC0415

        codes = set()
        for word in value.split(","):
            row = find(word.strip())
            if row is None:
                import difflib  # noqa: PLC0415

                known = [r.code for r in CONDITIONS] + [r.name for r in CONDITIONS]
                near = difflib.get_close_matches(word.strip(), known, 1) or difflib.get_close_matches(
                    word.strip().upper(), known, 1
                )
                hint = f" (did you mean {near[0]}?)" if near else "; envdoctor check --list-checks lists them"
                self.fail(f"{word.strip()!r} is not a condition's code or name{hint}", param, ctx)
            codes.add(row.code)
        return frozenset(codes)


class BatchSizes(click.ParamType[tuple[int, ...]]):
    """Whole numbers of 1 or more, with commas between them."""

    name = "N[,N...]"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        words = str(value).split(",")
        if not all(word.strip().isascii() and word.strip().isdecimal() and int(word) > 0 for word in words):
            self.fail(f"{value!r}: expected whole numbers of 1 or more, such as 64 or 64,512", param, ctx)
        return tuple(dict.fromkeys(int(word) for word in words))


class Threads(click.ParamType[str]):
    """A number of threads, or "tune"."""

    name = "N|tune"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value != "tune" and not (value.isascii() and value.isdecimal() and 1 <= int(value) <= 1024):
            self.fail(f"{value!r}: expected a whole number from 1 to 1024, or tune", param, ctx)
        return value
