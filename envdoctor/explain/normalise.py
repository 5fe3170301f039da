"""One text for what terminals, notebooks, CI and bug trackers make of it."""

from __future__ import annotations

import re

# ECMA-48: CSI sequences, OSC and other strings up to BEL or ST, and single escapes.
_CONTROLS = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]{0,4096}(?:\x07|\x1b\\)?|[ -/]*[0-~])"
)
_REPLACED = (
    ("\\_", "_"),  # Markdown
    ('\\"', '"'),  # JSON of container engines
    ("\\'", "'"),
    ("\\/", "/"),
    ("&#39;", "'"),
    ("&quot;", '"'),
    ("&gt;", ">"),
    ("&lt;", "<"),
    ("`", "'"),
    ("\u2018", "'"),
    ("\u2019", "'"),
    ("\u201c", '"'),
    ("\u201d", '"'),
    ("\u00a0", " "),
)


def without_controls(block: bytes) -> bytes:
    """The text without colours, titles and cursor movements."""
    return _CONTROLS.sub(b"", block) if b"\x1b" in block else block


def readable(line: bytes) -> str:
    """A line for matching: decoded, escapes of other formats undone, quotation marks plain."""
    text = line.decode("utf-8", "replace")
    for old, new in _REPLACED:
        if old in text:
            text = text.replace(old, new)
    return text
