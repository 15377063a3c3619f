"""The entry point: ``dm`` and ``python -m dm``.

``--version`` is answered before anything else is imported, since scripts ask it often.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line on `sys.argv` and return the exit status."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        from dm.plumbing.cli.streams import replace_closed_streams

        replace_closed_streams()
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        from dm.version import __version__

        sys.stdout.write(f"dm {__version__}\n")
        return 0
    import gc

    # A command is short and makes few cycles: the collector's rounds over imports and long lists would be in vain.
    gc.set_threshold(100_000, 20, 20)
    from dm.porcelain.cli.app import run

    status = run(arguments)
    # Python would look for cycles in all that is left at its end; the system takes that back sooner.
    gc.freeze()
    return status


if __name__ == "__main__":
    sys.exit(main())
