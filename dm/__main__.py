"""The entry point: ``dm`` and ``python -m dm``.

``--version`` is answered before anything else is imported, since scripts ask it often.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line on `sys.argv` and return the exit status."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _replace_closed_streams()
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        from dm.version import __version__

        sys.stdout.write(f"dm {__version__}\n")
        return 0
    from dm.porcelain.cli.app import run

    return run(arguments)


def _replace_closed_streams() -> None:
    """Let closed standard streams lead nowhere: else the next file that is opened would take their number, and be
    written to.
    """
    import os

    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        continue
    os.close(descriptor)
    sys.stdin = sys.stdin or open(0, encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives


if __name__ == "__main__":
    sys.exit(main())
