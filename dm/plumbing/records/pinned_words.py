"""Which files of a project the words of a command, and the arguments of a binding, may name.

Nothing is looked at here. Every reading of a word that might be a file's name is given (SCHEMA.md, "Trust"): what names
none costs nothing.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping

from dm.plumbing.records.pinned import RUN_MODULE, Pin

#: What parts a word that is more than a name: ``sh -c './a.sh;./b.sh>c'``, ``--files=a,b``, ``@file``, ``PATHS=a:b``.
_BREAKS = str.maketrans(dict.fromkeys(";&|<>(){}[]`'\"$=,:@%", " "))
#: Programs that read a file of their folder unasked, which runs then too.
_READ_UNASKED = {
    "R": (".Renviron", ".Rprofile"),
    "Rscript": (".Renviron", ".Rprofile"),
    "doit": ("dodo.py",),
    "gmake": ("GNUmakefile", "makefile", "Makefile"),
    "just": (".justfile", "justfile", "Justfile"),
    "make": ("GNUmakefile", "makefile", "Makefile"),
    "snakemake": ("Snakefile", "snakefile", "workflow/Snakefile", "workflow/snakefile"),
}
#: An option that names a module to run, alone or with the module in the same word: ``-m``, ``-Im``, ``-mpackage``.
_RUN_OPTION = re.compile(r"-[A-Za-z]*?m([\w.]*)")
#: An option whose argument is code, alone or with the code in the same word: ``-c``, ``-Ic``, ``-cimport x``.
_CODE_OPTION = re.compile(r"-[A-Za-z]*?c(.*)", re.DOTALL)
_PYTHON = re.compile(r"(?:python|pypy)[\d.]*")
_IMPORTS = re.compile(
    r"\bfrom\s+([\w.]+)\s+import\b\s*\(?\s*(\w*)|"
    r"\bimport\s+([\w.]+(?:\s+as\s+\w+)?(?:\s*,\s*[\w.]+(?:\s+as\s+\w+)?)*)"
)


def pin_command(command: str, variables: Mapping[str, str]) -> Iterator[Pin]:
    """What a command may name: its words with and without the variables put in, the words within these, what stands
    after an option's letter; the modules that ``python -m`` runs and ``python -c`` imports; what its programs read
    unasked.
    """
    words: list[str] = []
    for word in split_words(command):
        for text in dict.fromkeys((word, substitute_once(word, variables))):
            words += _split_further(text)
    before = ""
    is_python = False
    for word in words:
        yield Pin("", word)
        yield Pin("", word.partition("=")[2])
        if word.startswith("-"):
            yield Pin("", word[2:])
        for name in _READ_UNASKED.get(os.path.basename(word), ()):
            yield Pin("", name)
        run = _RUN_OPTION.fullmatch(before)
        if run is not None and not run[1] and not word.startswith("-"):
            yield Pin(RUN_MODULE, word)
        run = _RUN_OPTION.fullmatch(word)
        if run is not None and run[1]:
            yield Pin(RUN_MODULE, run[1])
        is_python = is_python or _PYTHON.fullmatch(os.path.basename(word)) is not None
        if is_python:
            yield from _pin_imports(before, word)
        before = word


def _pin_imports(before: str, word: str) -> Iterator[Pin]:
    """The modules that code after ``python -c`` imports: it looks for them in the folder first, as ``-m`` does."""
    option = _CODE_OPTION.fullmatch(before)
    own = _CODE_OPTION.fullmatch(word)
    code = word if option is not None and not option[1] else own[1] if own is not None else ""
    for package, name, modules in _IMPORTS.findall(code):
        # What is imported from a folder may be a module in it.
        for module in [f"{package}.{name}".rstrip(".")] if package else modules.split(","):
            yield Pin(RUN_MODULE, module.split()[0])


def pin_arguments(value: object, variables: Mapping[str, str]) -> Iterator[Pin]:
    """What the strings in a binding's arguments may name, read as the words of a command are."""
    if isinstance(value, str):
        for text in dict.fromkeys((value, substitute_once(value, variables))):
            for word in _split_further(text):
                yield Pin("", word)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from pin_arguments(item, variables)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from pin_arguments(item, variables)


def split_words(command: str) -> list[str]:
    """The words of a command; of one that no shell would take, what stands between blanks."""
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def substitute_once(text: str, variables: Mapping[str, str]) -> str:
    """A text with ``$name`` and ``${name}`` put in, the longest name first, and not looked at again."""
    names = "|".join(map(re.escape, sorted(variables, key=len, reverse=True)))
    return re.sub(rf"\$(?:\{{({names})\}}|({names}))", lambda found: variables[found[1] or found[2]], text)


def _split_further(text: str) -> list[str]:
    """A word, and the words within it where it is a command or a list itself."""
    within = split_words(text) if any(map(str.isspace, text)) else []
    pieces = text.translate(_BREAKS).split()
    return [text, *within, *(pieces if pieces != [text] else ())]
