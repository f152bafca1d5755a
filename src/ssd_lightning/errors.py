"""Errors that a user can mend: the commands print their message alone, without a stack trace."""


class UserError(ValueError):
    """Base of all errors caused by the user's input; the message names file, object and value."""


class ConfigurationError(UserError):
    """A setting, or a combination of settings, that cannot work."""


class DataError(UserError):
    """A data set, picture or annotation that cannot be used."""


class WeightsError(UserError):
    """A weights file or checkpoint that is missing, unsafe or does not fit."""
