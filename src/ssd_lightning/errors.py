"""Errors that the user can fix. Commands print only their message, without a stack trace."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches


class UserError(ValueError):
    """Base of all errors caused by the user's input; the message contains file, object and value."""


class ConfigurationError(UserError):
    """A setting, or a combination of settings, is invalid."""


class DataError(UserError):
    """A data set, image or annotation is not usable. The message is always one line, even with unusual file names."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class WeightsError(UserError):
    """A weights file or checkpoint is missing, unsafe or does not fit."""


def with_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its chain of causes, each once. `raise error from error` makes a cycle."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        yield following
        seen.add(id(following))
        following = following.__cause__ or following.__context__


def find_user_error(error: BaseException) -> UserError | None:
    """Find the user error among the causes of an error, even if libraries wrapped it."""
    return next((_unwrapped(cause) for cause in with_causes(error) if isinstance(cause, UserError)), None)


def _unwrapped(error: UserError) -> UserError:
    # A DataLoader worker re-raises an error with the whole stack trace as its message.
    # This reads `args`, since str() of a DataError is one line.
    _, marker, message = str(error.args[0] if error.args else error).rpartition(f"{type(error).__name__}: ")
    return UserError(message.strip()) if marker else error


def one_line(text: str) -> str:
    r"""Escape line feeds, escape sequences and other non-printable characters as `\n`, `\x1b`, ...

    Names may come from untrusted files and archives. In a log they must not look like a separate line.
    """
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def listed(texts: Iterable[str], at_most: int = 20, *, separator: str = ", ") -> str:
    """Join the first texts, and say how many more there are."""
    texts = list(texts)
    shown, more = separator.join(texts[:at_most]), len(texts) - at_most
    return shown if more <= 0 else f"{shown}{' ' if separator == ', ' else separator}and {more} more"


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.5) -> str:
    """Suggest the nearest known name, as the end of a sentence; empty if none is near.

    `cutoff` is the least similarity, 0 to 1, see `difflib.get_close_matches`.
    """
    near = get_close_matches(name, sorted(known), n=1, cutoff=cutoff)
    return f"; did you mean '{near[0]}'?" if near else ""
