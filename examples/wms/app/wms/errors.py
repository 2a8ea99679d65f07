"""Errors that callers of the API can act on."""


class WmsError(Exception):
    """A request that can't be carried out, with the HTTP status, a stable code and a sentence for a person."""

    status = 409
    code = "conflict"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NotFound(WmsError):
    status = 404
    code = "not_found"


class LotBlocked(WmsError):
    """Quality control stands in the way."""

    code = "lot_blocked"


class NotEnough(WmsError):
    """A lot has less left than was asked for."""

    code = "not_enough"


class QueueUnavailable(WmsError):
    """The job queue can't be reached; trying again later may work."""

    status = 503
    code = "queue_unavailable"
