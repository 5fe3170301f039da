"""The command `envdoctor`."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run the command line; bad input is one line and exit 2, a defect of ours one line and exit 4."""
    gc.disable()  # a short process: collecting its imports costs a twentieth of `check --quick`
    from envdoctor.cli import run  # noqa: PLC0415  so that `python -m envdoctor` imports nothing twice

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
