"""Every error that Preface raises on purpose, in one tree. Knows nothing of where they are raised.

A message names what was wrong, both values and the remedy, in one line: the command line prints it as it is.

    PrefaceError                 exit 1
    |-- ParamsError              params.yaml: every fault at once, each with its key path
    |-- SourceError              an address that cannot be read, or whose bytes are not the pinned ones
    |   `-- SourceUnavailable    the network or the server behind it: worth another try
    |-- DataError                rows that cannot become examples
    |-- BaseError                a base model that is absent or cannot be used
    |   |-- BaseMismatch         its content is not what is pinned
    |   `-- UnsupportedBase      its architecture has no uniform key/value cache
    |-- TrainingError            settings that cannot be trained, a checkpoint that does not fit
    |   `-- Diverged             the loss left the finite or the plausible
    |-- Stopped                  somebody cancelled the run
    |-- ArtifactError            an adapter folder that is not exactly what its manifest says
    |-- RegistryError            a request that the registry's rules refuse
    |   |-- NotFound             no such task, version, stage or alias
    |   |-- PromotionRefused     the version may not go where it was sent
    |   |-- PromotionConflict    somebody else's promotion came first
    |   |-- NothingToRollBackTo  no earlier good version
    |   `-- StoreUnavailable     the tracking server or its artifact store: worth another try
    |-- SetupError               the installation lacks something; `preface doctor` says more
    `-- Unforeseen               what nobody foresaw, exit 70; stands for the error itself
"""

from __future__ import annotations

from components.redaction import redact

_TOLD = 400


class PrefaceError(Exception):
    """Base of all; catch this one at the edge. Its message has lost every password before anybody can write it down."""

    def __init__(self, message: str = "") -> None:
        super().__init__(redact(message))


class ParamsError(PrefaceError):
    """params.yaml is not valid."""


class SourceError(PrefaceError):
    """An address cannot be read, or its bytes are not the pinned ones."""


class SourceUnavailable(SourceError):
    """The network, or the server behind an address, did not answer. Worth another try."""


class DataError(PrefaceError):
    """Rows cannot become examples."""


class BaseError(PrefaceError):
    """A base model is absent or cannot be used."""


class BaseMismatch(BaseError):
    """A base model's content is not what is pinned."""


class UnsupportedBase(BaseError):
    """A base model's architecture has no uniform key/value cache."""


class TrainingError(PrefaceError):
    """Settings that cannot be trained, or a checkpoint that does not fit them."""


class Diverged(TrainingError):
    """The loss left the finite or the plausible."""


class Stopped(PrefaceError):
    """Somebody cancelled the run."""


class ArtifactError(PrefaceError):
    """An adapter folder is not exactly what its manifest says."""


class RegistryError(PrefaceError):
    """The registry's rules refuse a request."""


class NotFound(RegistryError):
    """No such task, version, stage or alias."""


class PromotionRefused(RegistryError):
    """The version may not go where it was sent."""


class PromotionConflict(RegistryError):
    """Somebody else's promotion came first."""


class NothingToRollBackTo(RegistryError):
    """There is no earlier good version."""


class StoreUnavailable(RegistryError):
    """The tracking server, or its artifact store, did not answer. Worth another try."""


class SetupError(PrefaceError):
    """The installation lacks something."""


class Unforeseen(PrefaceError):
    """Stands for an error that nobody foresaw and that cannot be raised as it is.

    Its words would tell a secret, and it is the cause of this one; or it happened in another process.
    """


def without_secrets(error: Exception) -> Exception:
    """The error itself, or if its words tell a secret, one to raise in its place."""
    said = str(error)
    return error if redact(said) == said else Unforeseen(f"{type(error).__name__}: {said}")


def line_of(error: BaseException) -> str:
    """What an error of a library says as part of a message: on one line, as ``sanitized`` shows it."""
    return sanitized(" ".join(str(error).split()))


def sanitized(text: str) -> str:
    """A text from outside as part of a message: on one line, printable, and cut where it is long."""
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text[:_TOLD])
    return shown if len(text) <= _TOLD else f"{shown} ..."
