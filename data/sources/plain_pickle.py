"""Reading a pickle that holds only plain data, without running anything that it asks for.

A pickle is a program: by name it can fetch any function and call it. Plain lists, dicts, strings and numbers need no
names, so every name is refused before it is looked up (docs.python.org/3/library/pickle.html, "Restricting globals").
"""

import io
import pickle
from pathlib import Path
from typing import Any, NoReturn

from data.annotations import AnnotationError, read_bytes


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}; only plain data is read")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for the external object {pid!r:.80}; only plain data is read")


def read_plain_pickle(path: Path, expected: type) -> Any:
    """Lists, tuples, dicts, sets, str, bytes, int, float, bool and None; the top is a `expected`. Raises AnnotationError.

    Byte strings of Python 2 become str by UTF-8; a byte that is not becomes a surrogate, which RawRecord refuses.
    """
    file = io.BytesIO(read_bytes(path))
    try:
        tree = _PlainUnpickler(file, encoding="utf-8", errors="surrogateescape").load()
    # What a broken pickle raises is whatever the opcode at fault does ("other exceptions may also be raised").
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, LookupError, MemoryError) as error:
        raise AnnotationError(path, f"not a plain pickle: {error or type(error).__name__}") from None
    if not isinstance(tree, expected):
        raise AnnotationError(path, f"expected a {expected.__name__}, found a {type(tree).__name__}")
    return tree
