"""The one exception for user mistakes, and the words for 'did you mean'."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["UserError", "did_you_mean"]


class UserError(ValueError):
    """A mistake that the user can correct: a wrong key, file, flag or data set.

    The message names the file, key or flag, what was found, what was expected and the nearest valid
    choice. The entry point prints it without a traceback and exits with code 2.
    """


def did_you_mean(found: str, choices: Iterable[str], limit: int = 8) -> str:
    """`"; did you mean 'x'?"` for a close match, otherwise the (first few) valid choices."""
    choices = sorted(map(str, choices))
    lowered = {c.lower(): c for c in choices}
    close = difflib.get_close_matches(str(found).lower(), lowered, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {lowered[close[0]]!r}?"
    if not choices:
        return "; there is none to choose from"
    more = f", … ({len(choices)} in all)" if len(choices) > limit else ""
    return "; choose from: " + ", ".join(c or "''" for c in choices[:limit]) + more
