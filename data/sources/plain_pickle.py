"""Reading a pickle that holds only plain data, without running anything that it asks for.

A pickle is a program: by name it can fetch any function and call it. Plain lists, dicts, strings and numbers need no
names, so every name is refused before it is looked up (docs.python.org/3/library/pickle.html, "Restricting globals").
Before that its opcodes are read through once, for what would take the interpreter's memory or its stack.
"""

import io
import pickle
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from data.annotations import AnnotationError, read_bytes

OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
MAX_TUPLES = 1000
"""Of a file; our choice. C hashes nested tuples by recursion, and a million of them end the interpreter."""
BROKEN = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, LookupError),
    *(MemoryError, OverflowError, RecursionError),
)
"""What a broken pickle raises is whatever the opcode at fault does ("other exceptions may also be raised")."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}; only plain data is read")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for the external object {pid!r:.80}; only plain data is read")


def read_plain_pickle(path: Path, expected: type) -> Any:
    """Lists, dicts, sets, str, bytes, int, float, bool, None and a few tuples; the top is a `expected`.

    Byte strings of Python 2 become str by UTF-8; a byte that is not becomes a surrogate, which RawRecord refuses.
    Raises AnnotationError.
    """
    content = read_bytes(path)
    try:
        _check_size(content)
        tree = _PlainUnpickler(io.BytesIO(content), encoding="utf-8", errors="surrogateescape").load()
    except BROKEN as error:
        raise AnnotationError(path, f"not a plain pickle: {error or type(error).__name__}") from None
    if not isinstance(tree, expected):
        raise AnnotationError(path, f"expected a {expected.__name__}, found a {type(tree).__name__}")
    return tree


def _check_size(content: bytes) -> None:
    """Raises UnpicklingError where loading would take memory that is out of all proportion to the file."""
    num_tuples = 0
    for name, argument, position in _opcodes(content):
        # The memo is an array up to the largest index; a pickler counts up, one for each object.
        if name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > position:
            raise pickle.UnpicklingError(f"it has memo index {argument} at byte {position}")
        num_tuples += name.startswith("TUPLE")
        if num_tuples > MAX_TUPLES:
            raise pickle.UnpicklingError(f"it has more than {MAX_TUPLES} tuples")


def _opcodes(content: bytes) -> Iterator[tuple[str, Any, int]]:
    """(name, argument, position), up to the STOP.

    As pickletools.genops, which refuses byte strings of Python 2 that are not ASCII.
    """
    file = io.BytesIO(content)
    while code := file.read(1):
        opcode, position = OPCODES[code], file.tell() - 1
        if opcode.name == "STRING":
            yield opcode.name, file.readline(), position
        else:
            yield opcode.name, opcode.arg.reader(file) if opcode.arg else None, position
        if opcode.name == "STOP":
            return
