"""Pickles with changed bytes: plain data or one AnnotationError, no code is run, and memory stays in proportion."""

import os
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data.annotations import AnnotationError
from data.sources.plain_pickle import MAX_TUPLES, read_plain_pickle

PLAIN = (list, dict, tuple, set, frozenset, str, bytes, bytearray, int, float, bool, type(None))
REFS: Any = [
    {"ref_id": 0, "split": "train", "sentences": [{"tokens": ["blue", "shirt"], "sent": "blue shirt", "sent_id": 2}]},
    {"ref_id": 2**40, "box": (1.5, None, True), "long": "ab" * 200},
]
NEWER: Any = [{"raw": b"caf\xc3\xa9", "kinds": {1, 2}, "fixed": frozenset({3})}]
"""Protocols before 4 ask for a name to make these."""


class Touch:
    """Unpickled, it makes a folder in the working directory."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made",)


PICKLES = [pickle.dumps(tree, protocol) for tree in (REFS, [REFS, Touch()], NEWER) for protocol in range(6)]
# What can be put in place of bytes: any, or an opcode that counts, takes a length or asks for something.
OPCODES = [
    b"r\xff\xff\xff\x7f",
    b"p999999999\n",
    b"\x95" + b"\xff" * 8,
    b"\x8e" + b"\xff" * 8,
    b"cos\nmkdir\n",
    b"\x85",
]
PIECES = st.binary(max_size=4) | st.sampled_from([*OPCODES, b"S'made'\n", b"R", b"\x93", b"Q", b"b", b"\x94", b"."])
MUTATIONS = st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 3), PIECES), min_size=1, max_size=4)


def mutated(content: bytes, mutations: list[tuple[int, int, bytes]]) -> bytes:
    """At each place (modulo the length), so many bytes replaced by others."""
    for place, num_removed, piece in mutations:
        start = place % (len(content) + 1)
        content = content[:start] + piece + content[start + num_removed :]
    return content


def is_plain(tree: Any) -> bool:
    """Also for a tree that holds itself."""
    waiting, seen = [tree], set()
    while waiting:
        value = waiting.pop()
        if type(value) not in PLAIN:
            return False
        if id(value) not in seen and isinstance(value, list | tuple | set | frozenset | dict):
            seen.add(id(value))
            waiting.extend([*value, *value.values()] if isinstance(value, dict) else value)
    return True


def check_mutations(folder: Path, content: bytes, mutations: list[tuple[int, int, bytes]]) -> None:
    path = folder / "refs.p"
    path.write_bytes(mutated(content, mutations))
    before = os.getcwd()
    os.chdir(folder)
    try:
        assert is_plain(read_plain_pickle(path, object))
    except AnnotationError as error:
        assert error.path == str(path) and "not a plain pickle: " in str(error)
    finally:
        os.chdir(before)
    assert not (folder / "made").exists()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutated")


@settings(max_examples=600)
@given(content=st.sampled_from(PICKLES), mutations=MUTATIONS)
@example(content=PICKLES[4], mutations=[(10, 1, b"\xff")])  # FRAME longer than an integer of C
def test_changed_bytes(folder: Path, content: bytes, mutations: list[tuple[int, int, bytes]]) -> None:
    check_mutations(folder, content, mutations)


@pytest.mark.slow
@settings(max_examples=20_000)
@given(content=st.sampled_from(PICKLES), mutations=MUTATIONS)
def test_many_changed_bytes(folder: Path, content: bytes, mutations: list[tuple[int, int, bytes]]) -> None:
    check_mutations(folder, content, mutations)


@pytest.mark.parametrize(
    ("tree", "protocol"), [*((REFS, protocol) for protocol in range(6)), *((NEWER, protocol) for protocol in (4, 5))]
)
def test_unchanged(tmp_path: Path, tree: Any, protocol: int) -> None:
    (tmp_path / "refs.p").write_bytes(pickle.dumps(tree, protocol))
    assert read_plain_pickle(tmp_path / "refs.p", list) == tree


@pytest.mark.parametrize(
    "put",
    [b"r\x00\x00\x00\x01", b"r\xff\xff\xff\x7f", b"p99999999\n", b"p-1\n", b"\x96" + b"\x00" * 5 + b"\x01\x00\x00"],
)
def test_memory_is_in_proportion_to_the_file(tmp_path: Path, put: bytes) -> None:
    """A memo index of 2^24 would be 256 MiB, that of 2^31 an end of the machine's memory; so would a length of 2^40."""
    path = tmp_path / "refs.p"
    path.write_bytes(b"\x80\x02]" + put + b".")
    tracemalloc.start()
    try:
        with pytest.raises(AnnotationError, match="not a plain pickle"):
            read_plain_pickle(path, list)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 10 * 2**20


def nested_tuples(depth: int) -> bytes:
    """[{(((...))): None}]"""
    return b"\x80\x02]})" + b"\x85" * (depth - 1) + b"Nsa."


def test_tuples_so_deep_that_hashing_them_would_end_the_interpreter(tmp_path: Path) -> None:
    path = tmp_path / "refs.p"
    path.write_bytes(nested_tuples(MAX_TUPLES))
    assert len(read_plain_pickle(path, list)) == 1
    path.write_bytes(nested_tuples(10**6))
    with pytest.raises(AnnotationError, match="it has more than 1000 tuples"):
        read_plain_pickle(path, list)


def test_text_of_python_2_in_the_oldest_protocol(tmp_path: Path) -> None:
    """pickle.dumps(["caf\\xc3\\xa9"]) of Python 2."""
    (tmp_path / "refs.p").write_bytes(b"(lp0\nS'caf\\xc3\\xa9'\np1\na.")
    assert read_plain_pickle(tmp_path / "refs.p", list) == ["café"]
