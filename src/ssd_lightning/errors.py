"""Errors that a user can mend: the commands print their message alone, without a stack trace."""

from collections.abc import Iterator


class UserError(ValueError):
    """Base of all errors caused by the user's input; the message names file, object and value."""


class ConfigurationError(UserError):
    """A setting, or a combination of settings, that cannot work."""


class DataError(UserError):
    """A data set, image or annotation that cannot be used; told in one line, whatever the files are called."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class WeightsError(UserError):
    """A weights file or checkpoint that is missing, unsafe or does not fit."""


def with_causes(error: BaseException) -> Iterator[BaseException]:
    """Give an error, its cause, the cause's cause and so on, each once: `raise error from error` makes a circle."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        yield following
        seen.add(id(following))
        following = following.__cause__ or following.__context__


def one_line(text: str) -> str:
    r"""Write line feeds, escape sequences and what else is not printable as `\n`, `\x1b`, ...

    Names come from files and archives of others: in a log, none may pass for a line of its own.
    """
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
