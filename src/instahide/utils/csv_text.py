"""Texts of others as cells of a CSV file, which a spreadsheet does not take for formulas."""

from __future__ import annotations

#: A spreadsheet reads a cell that begins with one of these as a formula; the last four are the
#: full-width forms.
_FORMULA = frozenset("=+-@\uff1d\uff0b\uff0d\uff20")
#: Spreadsheets in many languages separate cells by semicolons, also those in quotes.
_SEPARATOR, _SEPARATOR_ESCAPE = ";", "\\x3b"


def csv_text(text: str) -> str:
    r"""``text`` as a cell that is not a formula and has printable characters only.

    A semicolon, a backslash and every character that is not printable become an escape of Python,
    such as ``\x3b``, ``\\`` or ``\n``. Then ``'`` is put before a text that begins with ``=``,
    ``+``, ``-``, ``@`` or one of their full-width forms, after spaces or not, or with ``'``
    itself. Different texts become different cells.

    Examples:
        >>> print(csv_text("scans/7.png"), csv_text("=1+1"), csv_text("a\tb"))
        scans/7.png '=1+1 a\tb
    """
    escaped = "".join(map(_escaped, text))
    first = escaped.lstrip(" ")[:1]
    return f"'{escaped}" if first in _FORMULA or escaped.startswith("'") else escaped


def _escaped(char: str) -> str:
    if char == _SEPARATOR:
        return _SEPARATOR_ESCAPE
    if char.isprintable() and char != "\\":
        return char
    return char.encode("unicode_escape", "surrogatepass").decode()
