"""Named errors. Each message says what is wrong, where, and what to do about it."""

from __future__ import annotations


class NsdbenchError(Exception):
    """Base of every error that nsdbench raises on purpose.

    Parameters
    ----------
    message : str
        What is wrong and where (file, field, row).
    remedy : str
        What the user can do about it; shown on a line of its own.
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    @property
    def kind(self) -> str:
        """Class name, the stable identifier that ``--json`` prints."""
        return type(self).__name__

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class DataError(NsdbenchError):
    """A data file is missing, damaged, or contradicts the documented layout."""


class IntegrityError(DataError):
    """A numbered integrity check of a dataset failed.

    Parameters
    ----------
    check : str
        Stable name of the check, for example ``"run_order"``; ``kind`` becomes ``IntegrityError:run_order``.
    """

    def __init__(self, check: str, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.check = check

    @property
    def kind(self) -> str:
        return f"{type(self).__name__}:{self.check}"


class ExecutionError(NsdbenchError):
    """A job cannot be handed over, or what has become of it cannot be found out."""


class WeightsError(NsdbenchError):
    """Weights are missing, have the wrong hash, or cannot be loaded without executing code."""


class FetchError(NsdbenchError):
    """A file could not be brought here."""


class MissingObject(FetchError):
    """The server has no such file."""


class RefusedByServer(FetchError):
    """The server does not let us have the file."""


class CorruptedObject(FetchError):
    """What arrived is not the file that was asked for, twice."""


class NoRoom(FetchError):
    """The disk is too small or cannot be written to."""


class Unreachable(FetchError):
    """The server cannot be reached, or connections keep breaking."""


class TrainingError(NsdbenchError):
    """The training of a decoder has diverged, or a stored state belongs to another training."""


class ReconstructionError(NsdbenchError):
    """Reconstructions are unreadable, of the wrong shape or type, or do not match their targets."""


class LeaderboardError(NsdbenchError):
    """A score table or leaderboard breaks its schema."""


class ProtocolError(NsdbenchError):
    """A request that the benchmark protocol forbids, such as fitting on test images."""


class UsageError(NsdbenchError):
    """The command line or API was called with arguments that make no sense."""
