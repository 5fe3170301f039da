"""Exports as text: marked blocks for POSIX shells, fish and csh, put into a file and taken out exactly.

Every block extends what is there, adds nothing when sourced twice, and leaves no empty entry (which means
the current directory to the loader and to Python). What was added is remembered in an exported variable,
`_ENVDOCTOR_VENV_<variable>` (or CONDA), so that a deactivation takes out just that, wherever it then stands,
and keeps what the user added since; a subshell or another environment's block does the same. A variable that
was set but empty is unset afterwards; to the loader both are the same.
"""

from __future__ import annotations

import posixpath
import re
import shlex
import textwrap
from typing import TYPE_CHECKING

from envdoctor.fixes.plan import FileEdit, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NOTE = "# Written by `envdoctor fix`; `envdoctor undo` takes it out.\n"


def unexportable(variable: str, prepend: tuple[str, ...]) -> str:
    """Why these entries cannot be exported in this variable; "" where they can.

    glibc splits LD_LIBRARY_PATH at `:` and `;` and expands its tokens there (ld.so(8)); nothing escapes them.
    """
    if not re.fullmatch(r"[A-Z_]*PATH", variable):
        return f"{variable!r} is not the name of a search path"
    if not prepend:
        return f"no entry for {variable}"
    for entry in prepend:
        if not entry.startswith("/"):
            return f"{entry!r} is not an absolute path"
        if "\0" in entry or ":" in entry:
            return f"{entry!r} has a character that no search path can hold"
        if variable == "LD_LIBRARY_PATH" and re.search(r";|\$\{?(ORIGIN|LIB|PLATFORM)", entry):
            return f"{entry!r} would be read by the loader as something else"
        if "envdoctor" in entry and re.search(r"\n# (>>>|<<<) envdoctor ", entry):
            return f"{entry!r} looks like envdoctor's own marks"
    return ""


# --- blocks in a text -------------------------------------------------------------------------------


def block(variable: str, body: str) -> str:
    return f"# >>> envdoctor {variable} >>>\n{_NOTE}{body}# <<< envdoctor {variable} <<<\n"


def insert(text: str, variable: str, marked: str) -> str:
    """`text` with the block at its end, or in the place of the one that it has.

    A last line without newline is closed, and the block then ends without one in its stead: so `remove`
    can tell. ValueError where the marks were tampered with.
    """
    span = _span(text, variable)
    if span is not None:
        start, end = span
        kept_open = not text[start:end].endswith("\n")
        return text[:start] + (marked.removesuffix("\n") if kept_open else marked) + text[end:]
    if text and not text.endswith("\n"):
        return f"{text}\n{marked}".removesuffix("\n")
    return text + marked


def remove(text: str, variable: str) -> str:
    """The inverse of `insert` into a text that had no block."""
    span = _span(text, variable)
    if span is None:
        return text
    start, end = span
    if not text[start:end].endswith("\n"):
        return text[:start].removesuffix("\n")
    return text[:start] + text[end:]


def _span(text: str, variable: str) -> tuple[int, int] | None:
    begins = list(re.finditer(rf"^# >>> envdoctor {variable} >>>\r?$", text, re.MULTILINE))
    ends = list(re.finditer(rf"^# <<< envdoctor {variable} <<<(\r?\n|\r?\Z)", text, re.MULTILINE))
    if not begins and not ends:
        return None
    if len(begins) != 1 or len(ends) != 1 or begins[0].start() > ends[0].start():
        raise ValueError(f"the marks of envdoctor's block for {variable} were edited")
    return begins[0].start(), ends[0].end()


# --- what the blocks say ----------------------------------------------------------------------------


def posix_quote(text: str) -> str:
    return shlex.quote(text)


def fish_quote(text: str) -> str:
    r"""In fish's single quotes only `\\` and `\'` are escapes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def csh_quote(text: str) -> str:
    r"""In csh's single quotes history expansion (`!`) and newline still count; a backslash takes both."""
    return "'" + text.replace("'", "'\\''").replace("!", "\\!").replace("\n", "\\\n") + "'"


_POSIX_DROP = """\
if [ -n "${ADDED:-}" ]; then
    PATHVAR=":${PATHVAR-}:"
    case "$PATHVAR" in
        *":$ADDED:"*) PATHVAR="${PATHVAR%%":$ADDED:"*}:${PATHVAR#*":$ADDED:"}" ;;
    esac
    PATHVAR="${PATHVAR#:}"
    PATHVAR="${PATHVAR%:}"
    [ -n "$PATHVAR" ] || unset PATHVAR
    unset ADDED
fi
"""

_POSIX_ADD = """\
case "${PATHVAR-}:" in
    VALUE:*) ;;
    *)
        export ADDED=VALUE
        export PATHVAR="$ADDED${PATHVAR:+:$PATHVAR}"
        ;;
esac
"""

# bash and zsh print a function as it is defined, so that `eval` gives it a second name. dash has no
# `typeset`: there the entry stays until the shell ends.
_POSIX_WRAP = """\
if typeset -f deactivate >/dev/null 2>&1; then
    eval "_envdoctor_PATHVAR_$(typeset -f deactivate)"
    deactivate () {
        _envdoctor_drop_PATHVAR
        _envdoctor_PATHVAR_deactivate "$@"
        if [ "${1:-}" != nondestructive ]; then
            unset -f _envdoctor_drop_PATHVAR _envdoctor_PATHVAR_deactivate
        fi
    }
fi
"""

_FISH = """\
function _envdoctor_drop_PATHVAR
    if set -q ADDED
        for entry in $ADDED
            if set -l index (contains -i -- $entry $PATHVAR)
                set -e PATHVAR[$index]
            end
        end
        test -n "$PATHVAR"; or set -e PATHVAR
        set -e ADDED
    end
end
_envdoctor_drop_PATHVAR
set -l --path _envdoctor_new VALUE
if test "$PATHVAR[1..COUNT]" != "$_envdoctor_new"
    set -gx --path ADDED $_envdoctor_new
    if test -n "$PATHVAR"
        set -gx --path PATHVAR $_envdoctor_new $PATHVAR
    else
        set -gx --path PATHVAR $_envdoctor_new
    end
end
functions -q _envdoctor_PATHVAR_deactivate; and functions -e _envdoctor_PATHVAR_deactivate
if functions -q deactivate
    functions -c deactivate _envdoctor_PATHVAR_deactivate
    function deactivate
        _envdoctor_drop_PATHVAR
        _envdoctor_PATHVAR_deactivate $argv
        if test "$argv[1]" != nondestructive
            functions -e _envdoctor_drop_PATHVAR _envdoctor_PATHVAR_deactivate
        end
    end
end
"""

# csh cannot cut text without a child, and its `deactivate` is an alias: the entry stays until the shell ends.
_CSH = """\
if ( ! $?PATHVAR ) setenv PATHVAR ''
if ( ! $?ADDED ) setenv ADDED ''
set _envdoctor_new = VALUE
if ( $PATHVAR:q == '' ) then
    setenv PATHVAR $_envdoctor_new:q
else if ( $ADDED:q != $_envdoctor_new:q ) then
    setenv PATHVAR $_envdoctor_new:q":"$PATHVAR:q
endif
setenv ADDED $_envdoctor_new:q
unset _envdoctor_new
"""


def _fill(template: str, variable: str, owner: str, values: tuple[str, ...] = ()) -> str:
    words = {"PATHVAR": variable, "ADDED": f"_ENVDOCTOR_{owner}_{variable}", "COUNT": str(len(values))}
    words["VALUE"] = " ".join(values)
    return re.sub("PATHVAR|ADDED|COUNT|VALUE", lambda match: words[match[0]], template)


def _posix(variable: str, prepend: tuple[str, ...], owner: str) -> tuple[str, str]:
    drop = _fill(_POSIX_DROP, variable, owner)
    return drop, _fill(_POSIX_ADD, variable, owner, (posix_quote(":".join(prepend)),))


def venv_posix(variable: str, prepend: tuple[str, ...]) -> str:
    """For a venv's `activate`: bash and zsh drop the entries in `deactivate`."""
    drop, add = _posix(variable, prepend, "VENV")
    function = f"_envdoctor_drop_{variable} () {{\n{textwrap.indent(drop, '    ')}}}\n"
    return f"{function}_envdoctor_drop_{variable}\n{add}{_fill(_POSIX_WRAP, variable, 'VENV')}"


def venv_fish(variable: str, prepend: tuple[str, ...]) -> str:
    return _fill(_FISH, variable, "VENV", tuple(map(fish_quote, prepend)))


def venv_csh(variable: str, prepend: tuple[str, ...]) -> str:
    return _fill(_CSH, variable, "VENV", (csh_quote(":".join(prepend)),))


def conda_activate(variable: str, prepend: tuple[str, ...]) -> str:
    return "".join(_posix(variable, prepend, "CONDA"))


def conda_deactivate(variable: str, prepend: tuple[str, ...]) -> str:
    return _posix(variable, prepend, "CONDA")[0]


# --- the edits of an export -------------------------------------------------------------------------

VENV_FILES: Mapping[str, Callable[[str, tuple[str, ...]], str]] = {
    "bin/activate": venv_posix,
    "bin/activate.fish": venv_fish,
    "bin/activate.csh": venv_csh,
}
CONDA_FILES: Mapping[str, Callable[[str, tuple[str, ...]], str]] = {
    "etc/conda/activate.d/envdoctor.sh": conda_activate,
    "etc/conda/deactivate.d/envdoctor.sh": conda_deactivate,
}
CONDA_DIRECTORIES = ("etc", "etc/conda", "etc/conda/activate.d", "etc/conda/deactivate.d")


def shell_line(variable: str, prepend: tuple[str, ...]) -> str:
    """One line for the user's own shell (bash, zsh, dash)."""
    return f'export {variable}={posix_quote(":".join(prepend))}"${{{variable}:+:${variable}}}"'


def venv_edits(
    prefix: str, variable: str, prepend: tuple[str, ...], found: Mapping[str, bytes]
) -> tuple[FileEdit, ...]:
    """The edits of those activation scripts that `found` has (path → contents)."""
    return _edits(prefix, VENV_FILES, variable, prepend, found, create=False)


def conda_edits(
    prefix: str, variable: str, prepend: tuple[str, ...], found: Mapping[str, bytes]
) -> tuple[FileEdit, ...]:
    """For the two directories that conda sources; `found` has the files already there."""
    return _edits(prefix, CONDA_FILES, variable, prepend, found, create=True)


def conda_directories(prefix: str) -> tuple[str, ...]:
    return tuple(posixpath.join(prefix, name) for name in CONDA_DIRECTORIES)


def _edits(
    prefix: str,
    files: Mapping[str, Callable[[str, tuple[str, ...]], str]],
    variable: str,
    prepend: tuple[str, ...],
    found: Mapping[str, bytes],
    *,
    create: bool,
) -> tuple[FileEdit, ...]:
    problem = unexportable(variable, prepend)
    if problem:
        raise ValueError(problem)
    edits: list[FileEdit] = []
    for name, body in files.items():
        path = posixpath.join(prefix, name)
        before = found.get(path)
        if before is None and not create:
            continue
        after = encode(insert(decode(before or b""), variable, block(variable, body(variable, prepend))))
        if after != before:
            edits.append(FileEdit(path=path, before=before, after=after))
    return tuple(edits)
