"""``dm trust``."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import click

from dm.errors import Refused, UsageError
from dm.plumbing.cli.frame import Session, command
from dm.values import Outcome, fail, printable

if TYPE_CHECKING:
    from dm.plumbing.records.trust_parts import Part
    from dm.porcelain.verbs.trust import Review

#: Letters and symbols without any ink, which Unicode counts as printable.
_INKLESS = frozenset("\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")


@command("trust")
@click.option("-y", "--yes", is_flag=True, help="Allow it without asking.")
@click.option("--show", is_flag=True, help="Only show it; never asks, changes nothing.")
@click.option("--revoke", is_flag=True, help="Take the answer back.")
def COMMAND(session: Session, yes: bool, show: bool, revoke: bool) -> None:  # noqa: N802
    """Show what the manifest would run on this machine, and ask whether it may.

    Commands, fetchers, loaders, pickled data, places outside the project, and the files that the code comes from. The
    answer is yours alone, for the manifest at this path, and for exactly what was shown: when any of it changes, dm
    asks again and shows the difference. Plain URIs need no trust.
    """
    from dm.porcelain.verbs import trust as verb

    if yes + show + revoke > 1:
        raise UsageError("--yes, --show and --revoke exclude each other")
    project = session.open_project()
    name = printable(project.manifest.path.name) if project.manifest.path else ""
    if revoke:
        done = verb.revoke(project)
        told = "not trusted any more" if done else "it was not trusted"
        _finish(session, Outcome(name, "ok" if done else "unchanged", path=project.manifest.path, message=told), None)
        return
    seen = verb.review(project)
    # Where nothing is new, the answer still decides whether results of others in pickles are read.
    is_answer = yes and not seen.is_answered
    if seen.state in ("nothing", "trusted") and not show and not is_answer:
        told = "trusted" if seen.parts else "runs no code and writes to no place outside"
        _finish(session, Outcome(name, "unchanged", path=seen.manifest, message=told), seen)
        return
    if not session.json:
        _draw(seen, whole=show or seen.comparison is None)
    if show:
        _finish(session, Outcome(name, "unchanged", path=seen.manifest, message=_describe_state(seen)), seen)
        return
    if session.json and not yes:
        error = _refuse_to_ask(name)
        _finish(session, fail(name, error)._replace(path=seen.manifest), seen)
        return
    if not yes and not _ask(session, seen):
        raise Refused(f"'{name}' is not trusted: nothing of it runs", code="untrusted")
    verb.allow(project, seen)
    _finish(session, Outcome(name, "ok", path=seen.manifest, message="trusted from now on"), seen)


def _ask(session: Session, seen: Review) -> bool:
    """The user's answer at the terminal. Raises `Refused` where nobody has seen the question, or can answer it."""
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise _refuse_to_ask(printable(seen.manifest.name))
    _forget_typed_ahead()
    sys.stderr.write(f"\nMay this manifest do so on this machine: {_count(seen.parts)}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _refuse_to_ask(name: str) -> Refused:
    return Refused(
        f"'{name}' is not trusted, and there is no terminal to ask on",
        hint="dm trust --show shows what it would run, dm trust --yes allows it",
        code="untrusted",
    )


def _forget_typed_ahead() -> None:
    """What was typed, or pasted, before the question was asked is no answer to it."""
    import termios

    termios.tcflush(sys.stdin, termios.TCIFLUSH)


def _finish(session: Session, outcome: Outcome, seen: Review | None) -> None:
    from dm.porcelain.cli.render import draw_line, draw_outcome

    def draw(_outcomes: object) -> None:
        if outcome.status == "unchanged":
            draw_line(f"{outcome.name}: {outcome.message}")
        else:
            draw_outcome(session, outcome)

    session.finish([outcome], draw=draw, fields=None if seen is None else {"trust": _encode(seen)})


def _describe_state(seen: Review) -> str:
    told = {
        "nothing": "runs no code and writes to no place outside",
        "trusted": "trusted",
        "changed": "not trusted: it has changed since you allowed it",
        "new": "not trusted",
    }[seen.state]
    return f"{told}; this run trusts it (DATAMANIFEST_TRUST)" if seen.given and seen.state != "trusted" else told


# drawing


def _draw(seen: Review, *, whole: bool) -> None:
    from dm.plumbing.cli.output import write_records

    lines: list[str] = []
    if whole and seen.parts:
        lines += [f"{reveal(str(seen.manifest))} names this:", *_draw_parts(seen.parts, "  ")]
    comparison = seen.comparison
    if comparison is not None and seen.state == "changed":
        lines.append(f"{reveal(str(seen.manifest))} has changed since you allowed it:")
        lines += _draw_parts(comparison.added, "  new: ")
        lines += _draw_parts((part for part, _ in comparison.changed), "  changed: ", was=dict(comparison.changed))
        lines += _draw_parts(comparison.removed, "  gone: ")
        rest = len(seen.parts) - len(comparison.added) - len(comparison.changed)
        if rest and not whole:
            lines.append(f"  {rest} more as allowed (dm trust --show lists them)")
    write_records(lines)


def _draw_parts(parts: Iterable[Part], indent: str, *, was: Mapping[Part, str] | None = None) -> Iterator[str]:
    """Below a heading for each kind the parts; with ``was`` what each was and is now."""
    from dm.plumbing.records.trust_parts import KINDS

    heading = None
    for part in parts:
        if part.kind != heading:
            heading = part.kind
            yield f"{indent}{KINDS.get(part.kind, reveal(part.kind))}"
        if was is None:
            yield f"      {reveal(part.name)}: {reveal(part.text)}"
        else:
            yield f"      {reveal(part.name)}"
            yield f"        was {reveal(was[part])}"
            yield f"        now {reveal(part.text)}"


def _count(parts: Iterable[Part]) -> str:
    """How much of what there is: ``2 commands, 1 loaders``."""
    from dm.plumbing.records.trust_parts import KINDS

    kinds = [part.kind for part in parts]
    titles = {**KINDS, "file": "files", "pickle": "pickle data"}
    shown = [kind for kind in KINDS if kind in kinds and kind != "files"]
    return ", ".join(f"{titles[kind]}: {kinds.count(kind)}" for kind in shown)


def reveal(text: str) -> str:
    """Text from outside with everything that has no ink of its own spelled out, so that it can hide or turn nothing:
    control characters, bidirectional overrides, zero-width and combining characters, fillers.
    """
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if character in _INKLESS or unicodedata.category(character) in ("Mn", "Me")
        else character
        for character in printable(text)
    )


# JSON


def _encode(seen: Review) -> dict[str, object]:
    comparison = seen.comparison
    return {
        "state": seen.state,
        "given": seen.given,
        "parts": [_encode_part(part) for part in seen.parts],
        "added": [_encode_part(part) for part in (comparison.added if comparison else seen.parts)],
        "changed": [{**_encode_part(part), "was": was} for part, was in (comparison.changed if comparison else ())],
        "removed": [_encode_part(part) for part in (comparison.removed if comparison else ())],
    }


def _encode_part(part: Part) -> dict[str, object]:
    from dm.plumbing.cli.output import encode_text

    return {"kind": part.kind, **encode_text("name", part.name), **encode_text("text", part.text)}
