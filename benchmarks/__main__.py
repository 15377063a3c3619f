"""``python -m benchmarks [ROW…]``: measure rows and write them into RESULTS.md."""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.bench import Bench, NotHere, Result
from benchmarks.report import describe_machine, write_results
from benchmarks.timing import CommandFailed

_KINDS = ("start", "fetch", "store", "integrity", "links", "tables", "cached", "resume")
_CHECKOUT = Path(__file__).resolve().parents[1]


def find_rows() -> dict[str, Callable[[Bench], Result]]:
    """Every row by name, in the order of the table."""
    rows: dict[str, Callable[[Bench], Result]] = {}
    for kind in _KINDS:
        rows.update(importlib.import_module(f"benchmarks.rows.{kind}").ROWS)
    return rows


def main() -> int:
    """Measure. Exit 1 when a mark was missed or a row could not be measured."""
    rows = find_rows()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="rows to measure (default: all)")
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    parser.add_argument("--pairs", type=int, help="pairs of each row instead of its own number")
    parser.add_argument("--scale", type=float, default=1.0, help="a part of the work, to try things out; not written")
    parser.add_argument("--dm", help="the dm program (default: beside this interpreter)")
    parser.add_argument("--peer", help="an interpreter with datamanifestpy and numpy (default: not compared)")
    parser.add_argument("--folder", type=Path, default=_CHECKOUT / "build", help="where to work (default: build/)")
    parser.add_argument("--dry-run", action="store_true", help="do not write RESULTS.md")
    options = parser.parse_args()
    if options.list:
        print("\n".join(rows))
        return 0
    unknown = [name for name in options.rows if name not in rows]
    if unknown:
        parser.error(f"no row '{unknown[0]}'; there are {', '.join(rows)}")

    options.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=options.folder))
    try:
        bench = Bench(folder, pairs=options.pairs, scale=options.scale, dm=options.dm, peer=options.peer)
    except NotHere as error:
        folder.rmdir()
        parser.error(str(error))
    machine = describe_machine(folder)
    results: list[Result] = []
    failed = False
    print(f"{machine}; dm is {' '.join(bench.dm)}")
    try:
        with bench.stack:
            for name in options.rows or rows:
                try:
                    result = rows[name](bench)
                except (CommandFailed, NotHere) as error:
                    print(f"{name}: not measured: {error}", file=sys.stderr)
                    failed = True
                    continue
                results.append(result)
                failed = failed or not result.met
                print(
                    f"{name}: dm {result.dm}, {result.yardsticks}: {result.ratio}; mark {result.mark}:"
                    f" {'met' if result.met else 'MISSED'}; {result.memory}",
                    flush=True,
                )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if results and options.scale == 1.0 and not options.dry_run:
            write_results(Path(__file__).with_name("RESULTS.md"), results, machine=machine, order=list(rows))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
