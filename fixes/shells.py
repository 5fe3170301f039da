"""What extends a variable in each shell, as text: for activation scripts, and as one line to be evaluated.

In a script the addition is remembered in an exported variable, `_ENVDOCTOR_VENV_<variable>` (or CONDA), so
that a deactivation takes out just that, wherever it then stands, and keeps what the user added since; a
subshell or another environment's block does the same. A variable that was set but empty is unset afterwards;
to the loader both are the same. All of it does nothing where what it adds stands in front already, and
leaves no empty entry (which means the current directory to the loader and to Python).

XLA takes XLA_FLAGS for a file's name where it does not start with a dash (parse_flags_from_env.cc): such a
value is left alone, as no words can be added to it.
"""

from __future__ import annotations

import re
import shlex
import textwrap

from envdoctor.fixes.joining import SEPARATORS
from envdoctor.fixes.plan import Join


def posix_quote(text: str) -> str:
    return shlex.quote(text)


def fish_quote(text: str) -> str:
    r"""In fish's single quotes only `\\` and `\'` are escapes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def csh_quote(text: str) -> str:
    r"""In csh's single quotes history expansion (`!`) and newline still count; a backslash takes both."""
    return "'" + text.replace("'", "'\\''").replace("!", "\\!").replace("\n", "\\\n") + "'"


def _csh_glob(text: str) -> str:
    """A pattern for `=~`, where quotes protect nothing (seen with tcsh 6.24): `?` for whatever is special."""
    return csh_quote(re.sub(r"[*?\[\]{}\\^~]", "?", text))


# --- one line ---------------------------------------------------------------------------------------

_LINES = {
    ("sh", Join.PATH): 'case "${NAME-}:" in VALUE:*) ;; *) export NAME=VALUE"${NAME:+:$NAME}" ;; esac',
    ("sh", Join.WORDS): (
        """case "${NAME-} " in VALUE' '*) ;; ' ' | -* | ' '*-*) export NAME=VALUE"${NAME:+ $NAME}" ;; esac"""
    ),
    ("sh", Join.DEFAULT): '[ -n "${NAME:-}" ] || export NAME=VALUE',
    ("fish", Join.PATH): (
        'if test "$NAME[1..COUNT]" != JOINED; '
        'test -n "$NAME"; or set -e NAME; set -gx --path NAME VALUE $NAME; end'
    ),
    ("fish", Join.WORDS): (
        'if test -z "$NAME"; set -gx NAME VALUE; '
        'else if string match -qr -- "^( .*)?-" "$NAME"; '
        "and test (string sub -l (string length -- VALUE' ') -- \"$NAME \" | string collect) != VALUE' '; "
        'set -gx NAME VALUE" $NAME"; end'
    ),
    ("fish", Join.DEFAULT): 'test -n "$NAME"; or set -gx NAME VALUE',
    ("csh", Join.PATH): (
        "if ( ! $?NAME ) setenv NAME ''; if ( $NAME:q == '' ) setenv NAME VALUE; "
        "if ( $NAME:q':' !~ GLOB':'* ) setenv NAME VALUE':'$NAME:q;"
    ),
    ("csh", Join.WORDS): (
        "if ( ! $?NAME ) setenv NAME ''; if ( $NAME:q == '' ) setenv NAME VALUE; "
        "if ( ( $NAME:q =~ -* || $NAME:q =~ ' '*-* ) && $NAME:q' ' !~ GLOB' '* ) setenv NAME VALUE' '$NAME:q;"
    ),
    ("csh", Join.DEFAULT): "if ( ! $?NAME ) setenv NAME ''; if ( $NAME:q == '' ) setenv NAME VALUE;",
}


def line(variable: str, values: tuple[str, ...], join: Join, shell: str) -> str:
    """One statement for `sh` (bash, zsh, dash), `fish` or `csh`; the last as eval "`…`" takes it.

    ValueError where csh cannot: its backquotes end a word at every newline.
    """
    if shell == "csh" and any("\n" in value for value in values):
        raise ValueError(f"csh cannot evaluate a value with a newline ({variable})")
    return _fill(_LINES[shell, join], _words(shell, variable, values, join))


# --- scripts: POSIX ---------------------------------------------------------------------------------

_POSIX_DROP_ENTRIES = """\
if [ -n "${ADDED:-}" ]; then
    NAME="SEP${NAME-}SEP"
    case "$NAME" in
        *"SEP$ADDEDSEP"*) NAME="${NAME%%"SEP$ADDEDSEP"*}SEP${NAME#*"SEP$ADDEDSEP"}" ;;
    esac
    NAME="${NAME#SEP}"
    NAME="${NAME%SEP}"
    [ -n "$NAME" ] || unset NAME
    unset ADDED
fi
"""
_POSIX_DROP_DEFAULT = """\
if [ -n "${ADDED:-}" ]; then
    [ "${NAME-}" != "$ADDED" ] || unset NAME
    unset ADDED
fi
"""
_POSIX_DROP = {
    Join.PATH: _POSIX_DROP_ENTRIES,
    Join.WORDS: _POSIX_DROP_ENTRIES,
    Join.DEFAULT: _POSIX_DROP_DEFAULT,
}
_POSIX_ADD = {
    Join.PATH: """\
case "${NAME-}:" in
    VALUE:*) ;;
    *)
        export ADDED=VALUE
        export NAME="$ADDED${NAME:+:$NAME}"
        ;;
esac
""",
    Join.WORDS: """\
case "${NAME-} " in
    VALUE' '*) ;;
    ' ' | -* | ' '*-*)
        export ADDED=VALUE
        export NAME="$ADDED${NAME:+ $NAME}"
        ;;
esac
""",
    Join.DEFAULT: """\
if [ -z "${NAME:-}" ]; then
    export ADDED=VALUE
    export NAME=VALUE
fi
""",
}

# bash and zsh print a function as it is defined, so that `eval` gives it a second name. dash has no
# `typeset`: there the addition stays until the shell ends.
_POSIX_WRAP = """\
if typeset -f deactivate >/dev/null 2>&1; then
    eval "_envdoctor_NAME_$(typeset -f deactivate)"
    deactivate () {
        _envdoctor_drop_NAME
        _envdoctor_NAME_deactivate "$@"
        if [ "${1:-}" != nondestructive ]; then
            unset -f _envdoctor_drop_NAME _envdoctor_NAME_deactivate
        fi
    }
fi
"""

# --- scripts: fish ----------------------------------------------------------------------------------

_FISH_DROP = {
    Join.PATH: """\
if set -q ADDED
    for entry in $ADDED
        if set -l index (contains -i -- $entry $NAME)
            set -e NAME[$index]
        end
    end
    test -n "$NAME"; or set -e NAME
    set -e ADDED
end
""",
    Join.WORDS: """\
if set -q ADDED
    set -gx NAME (string replace -- " $ADDED " " " " $NAME " | string sub -s 2 -e -1 | string collect)
    test -n "$NAME"; or set -e NAME
    set -e ADDED
end
""",
    Join.DEFAULT: """\
if set -q ADDED
    test "$NAME" = "$ADDED"; and set -e NAME
    set -e ADDED
end
""",
}
_FISH_ADD = {
    Join.PATH: """\
set -l --path _envdoctor_new VALUE
if test "$NAME[1..COUNT]" != "$_envdoctor_new"
    set -gx --path ADDED $_envdoctor_new
    if test -n "$NAME"
        set -gx --path NAME $_envdoctor_new $NAME
    else
        set -gx --path NAME $_envdoctor_new
    end
end
""",
    Join.WORDS: """\
set -l _envdoctor_new VALUE
set -l _envdoctor_head (string sub -l (string length -- "$_envdoctor_new ") -- "$NAME " | string collect)
if test -z "$NAME"
    set -gx ADDED $_envdoctor_new
    set -gx NAME $_envdoctor_new
else if string match -qr -- '^( .*)?-' "$NAME"; and test "$_envdoctor_head" != "$_envdoctor_new "
    set -gx ADDED $_envdoctor_new
    set -gx NAME "$_envdoctor_new $NAME"
end
""",
    Join.DEFAULT: """\
if test -z "$NAME"
    set -gx ADDED VALUE
    set -gx NAME VALUE
end
""",
}
_FISH_WRAP = """\
functions -q _envdoctor_NAME_deactivate; and functions -e _envdoctor_NAME_deactivate
if functions -q deactivate
    functions -c deactivate _envdoctor_NAME_deactivate
    function deactivate
        _envdoctor_drop_NAME
        _envdoctor_NAME_deactivate $argv
        if test "$argv[1]" != nondestructive
            functions -e _envdoctor_drop_NAME _envdoctor_NAME_deactivate
        end
    end
end
"""

# --- scripts: csh -----------------------------------------------------------------------------------

# csh cannot cut text without a child. So what stood there before is kept too, and put back where the value is
# still the two together; where the user has changed it since, it stays as it is until the shell ends.
# A one-line `if` substitutes the variables of its command also where it does not run it: all are set first.
_CSH_DROP_ENTRIES = """\
if ( ! $?NAME ) setenv NAME ""
if ( ! $?ADDED ) setenv ADDED ""
if ( ! $?BEFORE ) setenv BEFORE ""
if ( $ADDED:q != "" && $NAME:q == $ADDED:q"SEP"$BEFORE:q ) setenv NAME $BEFORE:q
if ( $ADDED:q != "" && $NAME:q == $ADDED:q ) setenv NAME ""
if ( $NAME:q == "" ) unsetenv NAME
unsetenv ADDED
unsetenv BEFORE
"""
_CSH_DROP_DEFAULT = """\
if ( ! $?NAME ) setenv NAME ""
if ( ! $?ADDED ) setenv ADDED ""
if ( $ADDED:q != "" && $NAME:q == $ADDED:q ) setenv NAME ""
if ( $NAME:q == "" ) unsetenv NAME
unsetenv ADDED
"""
_CSH_DROP = {
    Join.PATH: _CSH_DROP_ENTRIES,
    Join.WORDS: _CSH_DROP_ENTRIES,
    Join.DEFAULT: _CSH_DROP_DEFAULT,
}
_CSH_ADD = {
    Join.PATH: """\
if ( ! $?NAME ) setenv NAME ""
if ( $NAME:q == "" ) then
    setenv ADDED VALUE
    setenv NAME VALUE
else if ( $NAME:q":" !~ GLOB":"* ) then
    setenv ADDED VALUE
    setenv BEFORE $NAME:q
    setenv NAME VALUE":"$NAME:q
endif
""",
    Join.WORDS: """\
if ( ! $?NAME ) setenv NAME ""
if ( $NAME:q == "" ) then
    setenv ADDED VALUE
    setenv NAME VALUE
else if ( ( $NAME:q =~ -* || $NAME:q =~ " "*-* ) && $NAME:q" " !~ GLOB" "* ) then
    setenv ADDED VALUE
    setenv BEFORE $NAME:q
    setenv NAME VALUE" "$NAME:q
endif
""",
    Join.DEFAULT: """\
if ( ! $?NAME ) setenv NAME ""
if ( $NAME:q == "" ) then
    setenv ADDED VALUE
    setenv NAME VALUE
endif
""",
}
_CSH_WRAP = """\
alias _envdoctor_drop_NAME 'DROP'
set _envdoctor_alias = "`alias deactivate`"
if ( $_envdoctor_alias:q != "" ) then
    alias deactivate '_envdoctor_drop_NAME;' $_envdoctor_alias:q
endif
unset _envdoctor_alias
"""

# --- the scripts ------------------------------------------------------------------------------------

_QUOTE = {"sh": posix_quote, "fish": fish_quote, "csh": csh_quote}
_DROP = {"sh": _POSIX_DROP, "fish": _FISH_DROP, "csh": _CSH_DROP}
_ADD = {"sh": _POSIX_ADD, "fish": _FISH_ADD, "csh": _CSH_ADD}


def venv_activate(shell: str, variable: str, values: tuple[str, ...], join: Join) -> str:
    """For a venv's activation script: it adds, and its `deactivate` drops first, except in dash."""
    words = _words(shell, variable, values, join, "VENV")
    drop, add = _fill(_DROP[shell][join], words), _fill(_ADD[shell][join], words)
    if shell == "csh":
        return f"{drop}{add}" + _fill(_CSH_WRAP, {**words, "DROP": drop.rstrip("\n").replace("\n", "; ")})
    indented, name = textwrap.indent(drop, "    "), f"_envdoctor_drop_{variable}"
    if shell == "fish":
        return f"function {name}\n{indented}end\n{name}\n{add}{_fill(_FISH_WRAP, words)}"
    return f"{name} () {{\n{indented}}}\n{name}\n{add}{_fill(_POSIX_WRAP, words)}"


def conda_activate(shell: str, variable: str, values: tuple[str, ...], join: Join) -> str:
    """For a file in etc/conda/activate.d; conda sources those with the shell's ending."""
    words = _words(shell, variable, values, join, "CONDA")
    return _fill(_DROP[shell][join], words) + _fill(_ADD[shell][join], words)


def conda_deactivate(shell: str, variable: str, values: tuple[str, ...], join: Join) -> str:
    return _fill(_DROP[shell][join], _words(shell, variable, values, join, "CONDA"))


def _words(shell: str, variable: str, values: tuple[str, ...], join: Join, owner: str = "") -> dict[str, str]:
    separator = SEPARATORS[join]
    joined = separator.join(values)
    entries = values if (shell, join) == ("fish", Join.PATH) else (joined,)
    return {
        "NAME": variable,
        "ADDED": f"_ENVDOCTOR_{owner}_{variable}",
        "BEFORE": f"_ENVDOCTOR_{owner}_{variable}_BEFORE",
        "SEP": separator,
        "COUNT": str(len(values)),
        "VALUE": " ".join(map(_QUOTE[shell], entries)),
        "JOINED": _QUOTE[shell](joined),
        "GLOB": _csh_glob(joined),
    }


def _fill(template: str, words: dict[str, str]) -> str:
    return re.sub(
        "NAME|ADDED|BEFORE|SEP|COUNT|VALUE|JOINED|GLOB|DROP", lambda found: words[found[0]], template
    )
