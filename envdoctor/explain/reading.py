"""A log from a file or a pipe, as UTF-8 chunks of bytes: gzip, UTF-16 and notebooks are undone on the way."""

from __future__ import annotations

import codecs
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import msgspec

from envdoctor.errors import UsageError
from envdoctor.report.terminal import harmless

CHUNK = 1 << 20
NOTEBOOK = 1 << 28  # bytes of a notebook, which is read whole
_GZIP = b"\x1f\x8b"
_OTHER_FORMATS = {
    b"\x7fELF": "a program or library (ELF)",
    b"PK\x03\x04": "a zip archive",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ\x00": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
    b"%PDF": "a PDF document",
}
_TEXT_CONTROLS = frozenset(b"\t\n\r\f\b\x1b\x07\x00")
_UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


class Readable(Protocol):
    def read(self, size: int, /) -> bytes | None: ...


def read_log(path: str, standard_input: Readable, warn: Callable[[str], None]) -> Iterator[bytes]:
    """The text of a file, or of standard input for "-", in chunks; `warn` is told what is missing of it.

    Raises:
        UsageError: it cannot be read, is empty, is no text, or is a damaged gzip file.

    """
    name = "standard input" if path == "-" else path
    if path == "-":
        yield from _text(_chunks(standard_input, name), name, warn)
        return
    if os.path.isdir(path):
        raise UsageError(f"{path} is a directory; a log file, a code or a name of a condition was expected")
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115  closed below
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; a log file was expected") from None
    with file:
        yield from _text(_chunks(file, name), name, warn)


def _chunks(stream: Readable, name: str) -> Iterator[bytes]:
    try:
        while chunk := stream.read(CHUNK):
            yield chunk
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}; a log file was expected") from None


def _text(chunks: Iterator[bytes], name: str, warn: Callable[[str], None]) -> Iterator[bytes]:
    first, chunks = _peek(chunks)
    if first.startswith(_GZIP):
        first, chunks = _peek(_unzipped(chunks, name, warn))
    if not first:
        raise UsageError(f"{name} is empty; the text of a log was expected")
    encoding = _utf16(first)
    if encoding:
        first, chunks = _peek(_recoded(chunks, encoding))
    else:
        _require_text(first, name)
    if not first.strip():
        rest = list(_limited(chunks, CHUNK))
        if not b"".join(rest).strip():
            raise UsageError(f"{name} is empty; the text of a log was expected")
        chunks = iter((*rest, *chunks))
    if first.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"{") and b'"cells"' in first:
        chunks = _notebook(chunks)
    yield from chunks


def _peek(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first kilobytes, and all chunks: a pipe may give a single byte at first."""
    held: list[bytes] = list(_limited(chunks, 4096))
    return b"".join(held), _all(held, chunks)


def _limited(chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        size -= len(chunk)
        if size <= 0:
            return


def _all(held: list[bytes], chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield from held
    yield from chunks


def _unzipped(chunks: Iterable[bytes], name: str, warn: Callable[[str], None]) -> Iterator[bytes]:
    """Every member of a gzip file, a bounded piece at a time; of one that was cut, what is there."""
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
    ended = False
    try:
        for chunk in chunks:
            data = chunk
            while data:
                piece = inflate.decompress(data, CHUNK)
                if piece:
                    yield piece
                data = inflate.unconsumed_tail
                ended = inflate.eof
                if ended:
                    data = inflate.unused_data.lstrip(b"\0")
                    inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
    except zlib.error as error:
        raise UsageError(f"{name} is a damaged gzip file ({error}); a log was expected") from None
    if not ended:
        warn(f"{name} is a truncated gzip file; what there is of it was read")


def _utf16(first: bytes) -> str:
    """The encoding of UTF-16 text, by its byte order mark or by its zeros; "" for anything else."""
    for mark, encoding in _UTF16.items():
        if first.startswith(mark):
            return encoding
    sample = first[:1024]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    half = len(sample) // 2
    if half >= 8 and odd > half * 0.7 and even < half * 0.05:
        return "utf-16-le"
    return "utf-16-be" if half >= 8 and even > half * 0.7 and odd < half * 0.05 else ""


def _recoded(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    for chunk in chunks:
        yield decoder.decode(chunk).lstrip("\ufeff").encode("utf-8", "replace")
    yield decoder.decode(b"", final=True).encode("utf-8", "replace")


def _require_text(first: bytes, name: str) -> None:
    """Refuse what is no text. Runs of zeros stand in system logs after a crash, and are taken."""
    expected = "the text of a log was expected"
    for magic, what in _OTHER_FORMATS.items():
        if first.startswith(magic):
            raise UsageError(f"{name} is {what}; {expected}")
    sample = first[:65536].replace(b"\0\0", b"")
    controls = sum(byte < 32 and byte not in _TEXT_CONTROLS for byte in sample)
    undecodable = sample.decode("utf-8", "replace").count("\ufffd")
    if controls > len(sample) * 0.05 or undecodable > len(sample) * 0.2:
        raise UsageError(f"{name} is a binary file; {expected}")


class _Output(msgspec.Struct):
    text: str | list[str] = ""
    traceback: list[str] = []
    ename: str = ""
    evalue: str = ""


class _Cell(msgspec.Struct):
    outputs: list[_Output] = []


class _Notebook(msgspec.Struct):
    cells: list[_Cell]


def _notebook(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The outputs of a notebook, each on the line of the file where it stands; other JSON as it is."""
    held = list(_limited(iter(chunks), NOTEBOOK))
    raw = b"".join(held)
    try:
        cells = msgspec.json.decode(raw, type=_Notebook, strict=False).cells
    except (msgspec.DecodeError, UnicodeDecodeError):
        yield from held
        yield from chunks
        return
    position = 0
    for cell in cells:
        for output in cell.outputs:
            texts = [output.text] if isinstance(output.text, str) else output.text
            for text in (*texts, *output.traceback, f"{output.ename}: {output.evalue}"):
                found = _place(raw, text, position)
                if found >= 0:
                    skipped = raw.count(b"\n", position, found)
                    yield b"\n" * skipped
                    position = found
                # Lines within one string of the file are parts of its line, as a terminal's \r makes them.
                yield text.replace("\n", "\r").encode("utf-8", "replace") + b"\r"


def _place(raw: bytes, text: str, position: int) -> int:
    for ascii_only in (False, True):
        written = json.dumps(text, ensure_ascii=ascii_only).encode("utf-8", "replace")
        found = raw.find(written, position)
        if found >= 0:
            return found
    return -1


def display_name(path: str) -> str:
    return harmless("standard input" if path == "-" else path)
