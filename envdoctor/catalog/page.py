"""The page of a condition, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from envdoctor.catalog import CONDITIONS, condition
from envdoctor.catalog.condition import Condition, Repair


def file_name(row: Condition) -> str:
    """`LIB002-pip-cuda-libs-not-on-path.md`: the name does not change, so it can be linked to."""
    return f"{row.code}-{row.name}.md"


def render_markdown(row: Condition) -> str:
    """The whole page of a condition, ending in a newline."""
    parts = [
        f"# {row.code} {row.name}",
        f"**{row.title}.** ({row.severity.value})",
        row.means,
        row.why,
        *_section("See it yourself", [_commands(row.see)] if row.see else []),
        *_section("Repair", [text for repair in row.repairs for text in _repair(repair)]),
        *_section("Follows from", [_links(row.follows_from)] if row.follows_from else []),
        *_section("Leads to", [_links(leads_to(row))] if leads_to(row) else []),
        *_section("Sources", ["\n".join(f"- {source}" for source in row.sources)] if row.sources else []),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def render_index() -> str:
    """The table of all pages."""
    lines = [
        "# Conditions",
        "",
        "What envdoctor can find. A code and a name never change their meaning.",
        "",
        "| code | name | severity | |",
        "|---|---|---|---|",
        *(
            f"| [{row.code}]({file_name(row)}) | {row.name} | {row.severity.value} | {row.title} |"
            for row in CONDITIONS
        ),
    ]
    return "\n".join(lines) + "\n"


def leads_to(row: Condition) -> tuple[str, ...]:
    """The codes that this condition explains."""
    return tuple(other.code for other in CONDITIONS if row.code in other.follows_from)


def _section(heading: str, paragraphs: Sequence[str]) -> list[str]:
    return [f"## {heading}", *paragraphs] if paragraphs else []


def _repair(repair: Repair) -> Iterable[str]:
    lead = f"**{repair.situation}.**" if repair.situation else ""
    if lead or repair.advice:
        yield f"{lead} {repair.advice}".strip()
    if repair.commands:
        yield _commands(repair.commands)


def _commands(commands: Sequence[str]) -> str:
    return "\n".join(["```sh", *commands, "```"])


def _links(codes: Sequence[str]) -> str:
    rows = [condition(code) for code in codes]
    return "\n".join(f"- [{row.code}]({file_name(row)}) {row.title}" for row in rows)
