"""What a call of the Python face answers: outcomes, or the error that a failed one stands for."""

from __future__ import annotations

from collections.abc import Iterable

from dm.errors import DmError, UsageError, gravest
from dm.values import Outcome

#: Several datasets by name. (Not any iterable: a single `str` is one, and means one dataset.)
Names = list[str] | tuple[str, ...]
#: One outcome for each item. (`dm.manifest.Manifest` has a method named ``list``, behind which the type is hidden.)
Outcomes = list[Outcome]


class Failed(DmError):
    """Several things were asked for and some failed.

    ``outcomes`` holds all of them; ``exit_status`` is the gravest, and the message names each failure. The hint is
    theirs where they have one between them.
    """

    default_code = "several-failed"

    def __init__(self, outcomes: Outcomes) -> None:
        failures = [outcome for outcome in outcomes if outcome.failed]
        told = "; ".join(f"{outcome.name}: {outcome.message}" for outcome in failures)
        hints = {outcome.hint for outcome in failures}
        hint = hints.pop() if len(hints) == 1 else None
        super().__init__(f"{len(failures)} of {len(outcomes)} failed: {told}", hint=hint)
        self.outcomes = outcomes
        self.exit_status = gravest(outcome.exit_status for outcome in failures)

    def __reduce__(self) -> tuple[object, ...]:
        # An exception that cannot be made again in the process that waits for it leaves that waiting for ever.
        return Failed, (self.outcomes,)


def check_name(name: object) -> str:
    """A name that a caller gave. Raises `UsageError` for what is no text: an outcome is a tuple, and has a ``name``."""
    if not isinstance(name, str):
        hint = "pass its .name" if isinstance(name, Outcome) else None
        raise UsageError(f"a name is a text, not {_name_type(name)}", hint=hint)
    return name


def list_names(names: object) -> list[str]:
    """The names that a caller gave, several at once. Raises `UsageError` for what is none: verbs take no names for all.
    """
    if isinstance(names, Outcome) or not isinstance(names, Iterable):
        hint = "pass its .name" if isinstance(names, Outcome) else "give one as a text, several as a list or tuple"
        raise UsageError(f"names are texts, not {_name_type(names)}", hint=hint)
    return [check_name(name) for name in names]


def _name_type(value: object) -> str:
    return "None" if value is None else type(value).__name__


def check_one(outcome: Outcome) -> Outcome:
    """An outcome that is no failure; the error of one that is."""
    if not outcome.failed:
        return outcome
    if outcome.error is not None:
        raise outcome.error
    kinds = {kind.exit_status: kind for kind in DmError.__subclasses__() if kind is not Failed}
    kind = kinds.get(outcome.exit_status, DmError)
    raise kind(outcome.message or outcome.status, hint=outcome.hint, code=outcome.code)


def check_all(outcomes: Outcomes) -> Outcomes:
    """Outcomes among which is no failure; else `Failed`, which comes from the first failure's error."""
    if any(outcome.failed for outcome in outcomes):
        raise Failed(outcomes) from next((each.error for each in outcomes if each.error is not None), None)
    return outcomes
