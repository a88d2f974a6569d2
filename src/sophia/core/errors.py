"""Errors that a caller sees, by what the caller can do about them.

    SophiaError
    ├── BadRequest             400  change the request
    │   ├── UnknownModel       404  use one of the names that are offered
    │   ├── IncapableModel     400  drop the feature or take a model that has it
    │   └── BodyTooLarge       413  send less
    ├── Unauthenticated        401  send one valid key
    ├── Forbidden              403  use a key with that right
    ├── NotFound               404  use a route or id that exists
    ├── MethodNotAllowed       405  use a method that the route has
    ├── BudgetExceeded         402  raise the budget, or wait for its window
    ├── NoCandidate            400  loosen the constraint that is named
    ├── AllAttemptsFailed      502, 503, 504, 429: wait or allow other models
    ├── Unavailable            503  try again after Retry-After
    └── InternalError          500  report it with the request id
"""

from typing import ClassVar, Literal

Fault = Literal["caller", "policy", "upstream", "sophia"]


class SophiaError(Exception):
    """Something went wrong."""

    status: int = 500
    error_type: str = "server"
    fault: ClassVar[Fault] = "sophia"

    def __init__(
        self,
        message: str = "",
        *,
        param: str | None = None,
        retry_after: float | None = None,
        details: dict[str, object] | None = None,
    ) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        self.param = param
        self.retry_after = retry_after
        self.details = details or {}
        super().__init__(self.message)


class BadRequest(SophiaError):
    """The request is not one that Sophia can read."""

    status = 400
    error_type = "invalid_request"
    fault = "caller"


class UnknownModel(BadRequest):
    """No model of that name is in the catalogue."""

    status = 404
    error_type = "model_not_found"


class IncapableModel(BadRequest):
    """The model cannot do what the request asks."""

    error_type = "unsupported"


class ContextLengthExceeded(IncapableModel):
    """The request is longer than the model's context window."""

    error_type = "context_length_exceeded"


class BodyTooLarge(BadRequest):
    """The request body is over the limit."""

    status = 413
    error_type = "payload_too_large"


class Unauthenticated(SophiaError):
    """Send one Sophia key as `Authorization: Bearer sk-sph-…` or as `x-api-key`."""

    status = 401
    error_type = "authentication"
    fault = "caller"


class Forbidden(SophiaError):
    """This key may not do that."""

    status = 403
    error_type = "permission_denied"
    fault = "policy"


class NotFound(SophiaError):
    """There is nothing here."""

    status = 404
    error_type = "not_found"
    fault = "caller"


class MethodNotAllowed(SophiaError):
    """The route exists, but not with this method."""

    status = 405
    error_type = "method_not_allowed"
    fault = "caller"


class BudgetExceeded(SophiaError):
    """The budget does not pay for this request."""

    status = 402
    error_type = "payment_required"
    fault = "policy"


class NoCandidate(SophiaError):
    """No model satisfies every constraint of the request."""

    status = 400
    error_type = "constraint_filtered"
    fault = "policy"


class AllAttemptsFailed(SophiaError):
    """Every model that was tried failed."""

    status = 502
    error_type = "provider_unavailable"
    fault = "upstream"


class Unavailable(SophiaError):
    """Sophia cannot take the request now; try again shortly."""

    status = 503
    error_type = "overloaded"


class InternalError(SophiaError):
    """Sophia made a mistake; report it with the request id."""
