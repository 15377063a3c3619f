"""Call what a manifest's binding names: substitute its arguments, import ``module:function``, call it.

Everything that runs code of a manifest takes the user's `Permission`. How modules of a project are found, and why never
as bytecode, is `dm.plumbing.formats.project_modules`'s matter (SCHEMA.md, "Bindings").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import cast

from dm.errors import SourceFailed
from dm.values import Binding, Permission, printable

#: What a fetcher that is called conventionally may ask for by name (SCHEMA.md, "Bindings").
FETCHER_KEYWORDS = (
    "download_path",
    "project_root",
    "entry",
    "uri",
    "uris",
    "key",
    "version",
    "doi",
    "format",
    "branch",
    "requires_paths",
)

Function = Callable[..., object]

_WHERE_MODULES_ARE = "a module is a file or package beside the manifest, else an installed package"


def substitute(
    value: object, variables: Mapping[str, str], *, objects: Mapping[str, object] = MappingProxyType({})
) -> object:
    """A value with ``$name`` and ``${name}`` replaced in its strings, also in those within lists and tables.

    After a bare ``$`` the longest known name counts, whatever comes after it (``$key_v2`` is the key and ``_v2``), as
    the peers have it. A name that is not known stays as it is, dollar and all, and so do the keys of tables. What was
    put in is not looked at again. A string that is the name of one of ``objects`` and nothing else becomes that object.
    """
    if isinstance(value, str):
        if "$" not in value:
            return value
        name = value[2:-1] if value.startswith("${") and value.endswith("}") else value[1:]
        if name in objects and value in (f"${name}", f"${{{name}}}"):
            return objects[name]
        return _substitute_text(value, variables)
    if isinstance(value, list | tuple):
        return [substitute(item, variables, objects=objects) for item in value]
    if isinstance(value, Mapping):
        return {name: substitute(item, variables, objects=objects) for name, item in value.items()}
    return value


def _substitute_text(text: str, variables: Mapping[str, str]) -> str:
    names = sorted(variables, key=len, reverse=True)
    first, *rest = text.split("$")
    parts = [first]
    for piece in rest:
        if piece.startswith("{"):
            name, brace, tail = piece[1:].partition("}")
            known = name if brace and name in variables else None
        else:
            known = next((name for name in names if piece.startswith(name)), None)
            tail = "" if known is None else piece[len(known) :]
        parts.append("$" + piece if known is None else variables[known] + tail)
    return "".join(parts)


def call_binding(
    binding: Binding,
    *,
    project_root: Path,
    variables: Mapping[str, str],
    conventional: Callable[[Function], object],
    permission: Permission,
    objects: Mapping[str, object] = MappingProxyType({}),
) -> object:
    """Import what a binding names and call it; return what it returns.

    With arguments the call is ``ref(*args, **kwargs)`` after `substitute`, and nothing else; without any,
    ``conventional`` is given the function and makes the call. Raises `SourceFailed` (``binding-broken``) when it cannot
    be imported; what the function raises passes through as it is.
    """
    function = import_function(binding, project_root=project_root, permission=permission)
    if not binding.args and not binding.kwargs:
        return conventional(function)
    args = cast("list[object]", substitute(binding.args, variables, objects=objects))
    kwargs = cast("dict[str, object]", substitute(binding.kwargs, variables, objects=objects))
    return function(*args, **kwargs)


def import_function(binding: Binding, *, project_root: Path, permission: Permission) -> Function:
    """The function that a binding of a manifest names, imported; from the project where it has such a module.

    Raises `SourceFailed` (exit 5, ``binding-broken``) with the binding's origin and the reason, chained, for a
    reference that is not ``module:function``, a module that cannot be imported or is already another's in this
    process, an attribute that is missing or cannot be called.
    """
    if not isinstance(permission, Permission):
        raise TypeError("code of a manifest runs by a Permission only")
    from dm.plumbing.formats.project_modules import import_module

    return _resolve(binding, lambda name: import_module(name, project_root=project_root), hint=_WHERE_MODULES_ARE)


def import_own(ref: str, *, origin: str) -> Function:
    """The function that the caller of the library names as ``module:function``: imported as the process imports.

    The caller's own code needs nobody's permission, and for the same reason nothing is looked for in a project: what
    a clone brings cannot take its place. Raises as `import_function` does.
    """
    from importlib import import_module

    return _resolve(Binding(ref.strip(), origin=origin), import_module)


def _resolve(binding: Binding, import_module: Callable[[str], object], *, hint: str | None = None) -> Function:
    """``hint`` is the way out where there is no such module."""
    name, attributes = split_reference(binding)
    try:
        found = import_module(name)
    except (Exception, SystemExit) as error:
        reason = error.message if isinstance(error, SourceFailed) else f"{type(error).__name__}: {error}"
        is_missing = isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}.")
        raise _broken(binding, reason, hint=hint if is_missing else getattr(error, "hint", None)) from error
    for attribute in attributes:
        try:
            found = getattr(found, attribute)
        except AttributeError as error:
            raise _broken(binding, f"there is no '{attribute}' in it") from error
    if not callable(found):
        raise _broken(binding, f"it is no function, but of type '{type(found).__name__}'")
    return found


def split_reference(binding: Binding) -> tuple[str, list[str]]:
    """The module's name and the attributes below it, of a binding in the own language.

    Raises `SourceFailed` (``binding-broken``) for a reference of another form.
    """
    module, colon, attribute = binding.ref.partition(":")
    attributes = attribute.split(".")
    parts = [*module.split("."), *attributes]
    if not colon or not all(part.isidentifier() for part in parts):
        hint = "a module is named with dots, as for import; a file is named without its .py"
        raise _broken(binding, "it is not of the form 'module:function'", hint=hint)
    return module, attributes


def _broken(binding: Binding, reason: str, *, hint: str | None = None) -> SourceFailed:
    first_line = reason.strip().partition("\n")[0]
    where = f" ({printable(binding.origin)})" if binding.origin else ""
    message = f"cannot use '{printable(binding.ref)}'{where}: {printable(first_line)}"
    return SourceFailed(message, hint=hint, code="binding-broken")


def call_fetcher(function: Function, context: Mapping[str, object]) -> object:
    """The conventional call of a fetcher: those keywords of ``context`` that it names, all of them with ``**kwargs``.

    ``context`` holds `FETCHER_KEYWORDS`. One that tells no signature gets all of them, as from the peers. Raises
    `SourceFailed` (``binding-broken``) for one that asks for something else and has no default for it; what it raises
    passes through.
    """
    import inspect

    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return function(**context)
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        names = set(context) - {each.name for each in parameters if each.kind is each.POSITIONAL_ONLY}
    else:
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        names = {each.name for each in parameters if each.kind in named} & set(context)
    in_order = []
    for each in parameters:
        known = each.name in context
        if not known and each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            raise SourceFailed(
                f"a fetcher asks for '{each.name}', which it is not given",
                hint=f"it may name {', '.join(context)}; or give it 'args' and 'kwargs' in the manifest",
                code="binding-broken",
            )
        if each.kind is each.POSITIONAL_ONLY and known:
            in_order.append(context[each.name])
    return function(*in_order, **{name: context[name] for name in context if name in names})
