"""Everything that this library raises for a user to put right.

::

    InstaHideError (a ValueError)    an argument or a setting that cannot be used
    ├── DataError                    images, labels or their source cannot be used
    ├── SchemeError                  a scheme is impossible, or does not fit the images
    ├── ExposureLimitError           an image reached its limit of encodings
    ├── LedgerError                  the counts of a ledger cannot be read, written or trusted
    ├── DamagedFileError             a file is damaged, incomplete or of another version
    └── IntegrationError             another library cannot be used as asked, or is missing
        └── RefusalError             a client takes no part in a round (integrations.flower)
            └── ArraysError          arrays that were received do not fit the network

Every error has a ``problem`` and a ``remedy``:

>>> from instahide import Scheme
>>> from instahide.errors import SchemeError
>>> try:
...     Scheme(k=0)
... except SchemeError as error:
...     print(error.problem, "Remedy:", error.remedy)
k = 0: a mix holds at least one image. Remedy: Use k = 4 or more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


#: Largest length of another library's message that is quoted.
MOST_REASON = 200


class InstaHideError(ValueError):
    """Input or settings that cannot be used as they are.

    Args:
        problem: what is wrong, in one sentence, naming the file or the setting.
        remedy: what to change, in one sentence.

    Examples:
        >>> from instahide import InstaHideError, Scheme
        >>> try:
        ...     Scheme(k=0)
        ... except InstaHideError as error:
        ...     print(error.remedy)
        Use k = 4 or more.

    The message never holds a key, a coefficient or a partner index: it is printed and logged. Names
    and texts of files in it are made harmless by `printable`.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        problem, remedy = printable(problem), printable(remedy)
        super().__init__(f"{problem} {remedy}")
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[InstaHideError], tuple[str, str]]:
        """So that it can be raised again in another process."""
        return type(self), (self.problem, self.remedy)


class DataError(InstaHideError):
    """Images, labels, or a source of them, cannot be used."""


class SchemeError(InstaHideError):
    """A scheme is impossible, or does not fit the private images or the public pool."""


class ExposureLimitError(InstaHideError):
    """An image reached its limit of encodings, so no more can be encrypted."""


class LedgerError(InstaHideError):
    """The counts of a ledger cannot be read, written or trusted."""


class DamagedFileError(InstaHideError):
    """A file is damaged, incomplete, not what it should be, or of another version."""


class IntegrationError(InstaHideError):
    """A data loader, trainer, cluster or package cannot be used as asked, or is missing."""


def printable(text: str) -> str:
    r"""``text`` on one line, with every character that is not printable written as an escape.

    Control characters, line breaks and bidirectional overrides in a file name or in a file's
    content could otherwise rewrite what a terminal, a log or a report shows.

    >>> print(printable("cat" + chr(0x202e) + "gnp.exe"))
    cat\u202egnp.exe
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def failure_reason(error: BaseException) -> str:
    """The message of an error that another library raised, short and on one line."""
    text = printable(" ".join(str(error).split()) or type(error).__name__)
    return text if len(text) <= MOST_REASON else text[:MOST_REASON] + "..."


def problem_and_remedy(error: InstaHideError | OSError | MemoryError) -> tuple[str, str]:
    """Problem and remedy of what a user can put right."""
    if isinstance(error, InstaHideError):
        return error.problem, error.remedy
    if isinstance(error, MemoryError):
        return f"There is too little memory. {error}".strip(), "Use fewer images, or smaller ones."
    return printable(str(error)), "Check that the path is right and the disk has room."


def first_validation_error(error: ValidationError) -> str:
    """The first field that was refused, and why: printable, and without what stood there."""
    first = error.errors(include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"][:3])[:80]
    reason = f"{place}: {first['msg']}" if place else first["msg"]
    return printable(reason)
