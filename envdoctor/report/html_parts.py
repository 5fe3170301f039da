"""Pieces of HTML. What goes into them is HTML already, but for `Escaper`, which makes it of text."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from envdoctor.facts.model import Facts
from envdoctor.validate.judge import Result
from envdoctor.validate.measure import DeviceRow

NONE = "-"


class Escaper:
    """Text made HTML, after `share` took out what must not leave the machine."""

    def __init__(self, share: Callable[[object], str]) -> None:
        self._share = share

    def __call__(self, text: object) -> str:
        return html.escape(self._share(text))

    def command(self, *lines: str) -> str:
        text = "\n".join(map(self, lines))
        return f"<pre><code>{text}</code></pre>"


@dataclass(frozen=True)
class Page:
    """What every section is made from."""

    facts: Facts
    result: Result
    text: Escaper

    @property
    def first(self) -> list[DeviceRow]:
        """The row of each device by which it is judged: that of the first batch size."""
        found: dict[str, DeviceRow] = {}
        for row in self.result.devices:
            found.setdefault(row.device, row)
        return list(found.values())

    def called(self, row: DeviceRow) -> str:
        return self.text(f"{row.device} ({row.device_name})" if row.device_name else row.device)


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{text}</p>' if kind else f"<p>{text}</p>"


def bullets(items: Iterable[str]) -> str:
    found = "".join(f"<li>{item}</li>" for item in items)
    return f"<ul>{found}</ul>" if found else ""


def definitions(pairs: Iterable[tuple[str, str]], kind: str = "facts") -> str:
    """Pairs without a value are left out."""
    if kind == "tiles":
        rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in pairs if value)
    else:
        rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in pairs if value)
    return f'<dl class="{kind}">{rows}</dl>'


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, left: Sequence[int] = ()
) -> str:
    """The first cell of a row is its heading; `left`: further columns that hold words."""

    def aligned(column: int) -> str:
        return ' class="left"' if column in left else ""

    top = "".join(f'<th scope="col"{aligned(i)}>{cell}</th>' for i, cell in enumerate(head))
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(f"<td{aligned(i)}>{cell}</td>" for i, cell in enumerate(row[1:], 1))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide"><table><caption>{caption}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def chart(svg: str, says: str) -> str:
    """`says`: what is to be seen, for those who do not see it. "" where there is no chart."""
    return f'<figure role="img" aria-label="{says}">{svg}</figure>' if svg else ""


def figures(*drawn: str) -> str:
    return f'<div class="figures">{"".join(drawn)}</div>' if any(drawn) else ""


def section(name: str, heading: str, *content: str) -> str:
    body = "\n".join(c for c in content if c)
    return f'<section id="{name}"><h2>{heading}</h2>\n{body}\n</section>\n'
