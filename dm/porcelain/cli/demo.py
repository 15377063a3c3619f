"""``dm demo``: the main job on real data, with the very commands that a user types."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from dm.errors import DmError, MachineFailed, Refused
from dm.plumbing.cli.frame import Session, command


@command("demo", json=False)
@click.option("--keep", metavar="DIR", help="Work in DIR, which must not exist, and leave it there.")
def COMMAND(session: Session, keep: str | None) -> None:  # noqa: N802
    """Run the main job on real climate records in a scratch folder: init, add, fetch, status, a flipped bit, verify,
    repair. A server on this machine stands for the internet; nothing of yours is touched, everything is removed.
    """
    from dm.porcelain.cli.render import draw_line

    with _scratch_folder(session, keep) as folder, _serve(_find_examples()) as address:
        demo = _Demo(session, folder)
        draw_line(f"Real records (examples/README.md names their sources), served at {address}\n")
        demo.say("A project declares its data. Adding fetches, verifies and pins it.")
        demo.run("init", ".")
        demo.run("add", f"{address}/co2.csv", "--name", "co2")
        demo.run("add", f"{address}/elnino.csv", "--name", "elnino")
        demo.say("An archive becomes a folder.")
        demo.run("add", f"{address}/yearly-records.tar.gz", "--name", "yearly", "--extract")
        demo.say("The manifest is what you commit; every byte is pinned in it.")
        draw_line(_indent((folder / "project" / "datamanifest.toml").read_text()))
        demo.say("Fetching again costs no request; all is there.")
        demo.run("fetch")
        demo.run("status")
        demo.say("One bit flips on disk, under an unchanged size and time stamp.")
        _flip_a_bit(Path(demo.ask("path", "co2")))
        demo.run("verify", expect=4)
        demo.run("status", "--exit-code", expect=1)
        demo.say(
            "Wrong bytes are never handed out: repair puts them aside and finds the right ones, here at the source."
        )
        demo.run("verify", "--repair", "co2")
        demo.run("verify")
        demo.say("Underneath is a store of content-addressed objects; a copy and its object are one on disk.")
        demo.run("count-objects")
        demo.run("list-refs")
        demo.run("ls-tree", demo.ask("verify-path", demo.ask("path", "yearly"), "--json", field="digest"))
        draw_line("That is the main job. Start with: dm init && dm add URI")


class _Demo:
    """Runs commands of this very `dm` in a world of their own and shows them."""

    def __init__(self, session: Session, folder: Path) -> None:
        self._session = session
        self._project = folder / "project"
        self._project.mkdir()
        hidden = ("DATAMANIFEST_", "DATASETS_TOML", "XDG_")
        kept = {name: text for name, text in session.environment.variables.items() if not name.startswith(hidden)}
        home = folder / "home"
        home.mkdir()
        source = str(Path(__file__).resolve().parents[3])
        path = os.pathsep.join(filter(None, (source, kept.get("PYTHONPATH"))))
        self._environment = {**kept, "HOME": str(home), "NO_PROXY": "127.0.0.1", "PYTHONPATH": path}

    def say(self, text: str) -> None:
        from dm.porcelain.cli.render import draw_line

        draw_line(f"# {text}")

    def run(self, *words: str, expect: int = 0) -> None:
        """Show a command, its output and, where one is expected, its exit status."""
        from dm.porcelain.cli.render import draw_line

        draw_line("$ dm " + " ".join(words))
        status, output = self._call(words)
        draw_line(_indent(output) if expect == 0 else f"{_indent(output)}  (exit {status})\n")
        if status != expect:
            raise DmError(f"the demo's 'dm {words[0]}' ended with {status}, not {expect}", code="demo-failed")

    def ask(self, *words: str, field: str | None = None) -> str:
        """A command's answer, not shown: its line, or a field of its one outcome."""
        status, output = self._call(words)
        if status:
            raise DmError(f"the demo's 'dm {words[0]}' ended with {status}: {output}", code="demo-failed")
        if field is None:
            return output.strip()
        import json

        return str(json.loads(output)["outcomes"][0][field])

    def _call(self, words: tuple[str, ...]) -> tuple[int, str]:
        import subprocess

        done = subprocess.run(
            [sys.executable, "-m", "dm", *words],
            cwd=self._project,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout


@contextmanager
def _scratch_folder(session: Session, keep: str | None) -> Iterator[Path]:
    import tempfile

    from dm.plumbing.fs.machine import machine_errors
    from dm.plumbing.fs.publish import remove_tree

    if keep is not None:
        folder = session.resolve(keep)
        if os.path.lexists(folder):
            raise Refused(f"'{keep}' exists", hint="name a folder that does not", code="place-taken")
        with machine_errors("create", folder):
            folder.mkdir(parents=True)
        yield folder
        return
    folder = Path(tempfile.mkdtemp(prefix="dm-demo-"))
    try:
        yield folder
    finally:
        remove_tree(folder)


def _find_examples() -> Path:
    """The example data: of the installed package, else of the checkout."""
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "examples" / "data", package.parent / "examples" / "data"):
        if folder.is_dir():
            return folder
    raise MachineFailed("the example data is not installed", hint="run make demo in a checkout", code="no-examples")


@contextmanager
def _serve(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port of the loopback address; yield the base URL."""
    import functools
    import threading
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_words: object) -> None:
            """Nothing: the demo shows what the commands say."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def _flip_a_bit(path: Path) -> None:
    status = path.stat()
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    path.chmod(status.st_mode & 0o7777)


def _indent(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


