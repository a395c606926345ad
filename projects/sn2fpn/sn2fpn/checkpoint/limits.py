"""Limits on what a checkpoint file may ask for, so that a small file cannot take all memory or run forever.

Every limit grows with the size of the file. Files that torch, numpy and Detectron2 write stay far below the limits.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

__all__ = ["DEEPEST", "allowance", "check_archive", "check_pickle"]

DEEPEST = 100
"""The most containers inside each other. The checkpoints of this project have 6."""

_MOST_OPCODES = 2_000_000
"""The most steps of a pickle program. The checkpoint of a ResNet-101 with its optimizer has 40,000."""

_MEMO_READS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_MEMO_WRITES = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_FILLED = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"})
"""Opcodes that change their first operand and leave it on the stack."""
_CONTAINERS = frozenset({"LIST", "DICT"})
_MARK = pickletools.markobject


def allowance(size: int) -> int:
    """Return how many bytes the content of a file of `size` bytes may take, or how many units of work.

    Reading an array copies its bytes up to six times, and weights hardly compress, so a factor of 16 is generous; the
    64 MiB are for small files.
    """
    return 16 * size + 2**26


class _Value:
    """A value on the stack of a pickle program: the number of bytes and items that an operation on it may visit."""

    __slots__ = ("weight",)

    def __init__(self, weight: int = 1) -> None:
        self.weight = weight


def check_pickle(stream: IO[bytes], size: int) -> None:
    """Follow a pickle program up to its end without making any objects.

    Each opcode costs 1 and the weights of the values that it takes from the stack. The weight of a tuple and of the
    result of a call is that of everything inside, however often it is shared, since hashing a tuple visits all of it.
    The weight of a list or a dict, which nothing visits deeply, is the number of its items.

    Args:
        stream: the pickle, at its start; it is left behind the pickle. `read` must not allocate more than there is.
        size: bytes of the file.

    Raises:
        ValueError: the program costs more than the `allowance`, has too many opcodes, or is damaged.
    """
    stack: list[_Value] = []
    marks: list[int] = []
    memo: dict[int, _Value] = {}
    left = allowance(size)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        index = len(memo) if opcode.name == "MEMOIZE" else argument
        if opcode.name in _MEMO_WRITES and index > count:
            raise ValueError(f"it reserves a place for value {index} before there are as many")
        try:
            left -= 1 + _apply(opcode, index, stack, marks, memo)
        except (IndexError, KeyError):
            raise ValueError("it takes a value that it has not made") from None
        if left < 0 or count > _MOST_OPCODES:
            raise ValueError(f"it asks for much more work than {size} bytes of weights need")


def _apply(opcode: Any, argument: Any, stack: list[_Value], marks: list[int], memo: dict[int, _Value]) -> int:
    """Do to the stack of values what an opcode does, and return the weight of its operands."""
    name = opcode.name
    if name in _MEMO_READS:
        stack.append(memo[argument])
    elif name in _MEMO_WRITES:
        memo[argument] = stack[-1]
    elif name == "MARK":
        marks.append(len(stack))
    elif name == "DUP":
        stack.append(stack[-1])
    elif name == "POP" and marks and marks[-1] == len(stack):
        marks.pop()
    else:
        return _replace(opcode, argument, stack, marks)
    return 0


def _replace(opcode: Any, argument: Any, stack: list[_Value], marks: list[int]) -> int:
    """Replace the operands of an opcode on the stack with its result, and return the weight of the operands."""
    takes = opcode.stack_before
    below = takes.index(_MARK) if _MARK in takes else len(takes)  # operands under the mark, or all of them
    start = (marks.pop() if _MARK in takes else len(stack)) - below
    if start < 0:
        raise IndexError
    operands, stack[start:] = stack[start:], []
    if opcode.name in _FILLED:
        filled, *operands = operands
        filled.weight += len(operands)
        stack.append(filled)
        return sum(value.weight for value in operands)
    weight = sum(value.weight for value in operands)
    if opcode.stack_after:
        inside = len(operands) if opcode.name in _CONTAINERS else weight
        stack.append(_Value(1 + inside + (len(argument) if isinstance(argument, str | bytes | bytearray) else 0)))
    return weight


def check_archive(path: Path) -> None:
    """Check the table of contents and the pickle of an archive that `torch.save` wrote.

    Raises:
        ValueError: the entries claim more than the `allowance` of bytes, a name occurs twice, or see `check_pickle`.
        Exception: the archive is damaged.
    """
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    claimed = sum(entry.file_size for entry in entries)
    if claimed > allowance(size):
        raise ValueError(f"its entries claim {claimed} bytes, but the file has {size}")
    names = [entry.filename.lower() for entry in entries]  # torch finds entries without regard to case
    if len(set(names)) < len(names):
        raise ValueError("its table of contents names an entry twice")
    pickled = torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")  # as torch.load finds it
    check_pickle(io.BytesIO(pickled), size)
