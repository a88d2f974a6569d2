"""Errors that a caller sees, by the caller's remedy.

SophiaError
├── BadRequest             400  change the request
│   ├── UnknownModel       404  use one of the suggested names
│   ├── IncapableModel     400  drop the feature, or use a model that has it
│   │   └── ContextLengthExceeded  400  shorten the prompt, or use a model with a longer window
│   ├── BodyTooLarge       413  send less
│   ├── HeadersTooLarge    431  send fewer or shorter headers
│   ├── RequestTimeout     408  send it faster
│   └── UnsupportedEncoding  415  send the body as it is
├── Unauthenticated        401  send one valid key
├── Forbidden              403  use a key with that permission
├── NotFound               404  use an existing route or id
├── MethodNotAllowed       405  use one of the route's methods
├── TooManyConnections     429  reuse connections
├── BudgetExceeded         402  raise the budget, or wait for Retry-After
├── NoCandidate            400  loosen the constraint that is named
├── AllAttemptsFailed      502, 503, 504, 429: wait or allow other models
├── Unavailable            503  try again after Retry-After
└── InternalError          500  report it with the request id
"""

from typing import Literal

Fault = Literal["caller", "policy", "upstream", "sophia"]


class SophiaError(Exception):
    """Something went wrong."""

    status: int = 500
    error_type: str = "server"
    fault: Fault = "sophia"

    def __init_subclass__(
        cls, status: int | None = None, error_type: str | None = None, fault: Fault | None = None
    ) -> None:
        cls.status = status or cls.status
        cls.error_type = error_type or cls.error_type
        cls.fault = fault or cls.fault

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


class BadRequest(SophiaError, status=400, error_type="invalid_request", fault="caller"):
    """The request is malformed."""


class UnknownModel(BadRequest, status=404, error_type="model_not_found"):
    """No model of that name is in the catalogue."""


class IncapableModel(BadRequest, error_type="unsupported"):
    """The model lacks a feature that the request needs."""


class ContextLengthExceeded(IncapableModel, error_type="context_length_exceeded"):
    """The request is longer than the model's context window."""


class BodyTooLarge(BadRequest, status=413, error_type="payload_too_large"):
    """The request body is over the limit."""


class HeadersTooLarge(BadRequest, status=431, error_type="headers_too_large"):
    """The head of the request is over the limits."""


class RequestTimeout(BadRequest, status=408, error_type="request_timeout"):
    """The request did not arrive in time."""


class UnsupportedEncoding(BadRequest, status=415, error_type="unsupported_encoding"):
    """The request body is compressed; send it as it is."""


class Unauthenticated(SophiaError, status=401, error_type="authentication", fault="caller"):
    """Send one Sophia key as `Authorization: Bearer sk-sph-…` or as `x-api-key`."""


class Forbidden(SophiaError, status=403, error_type="permission_denied", fault="policy"):
    """This key has no permission for that."""


class NotFound(SophiaError, status=404, error_type="not_found", fault="caller"):
    """There is no such route or id."""


class MethodNotAllowed(SophiaError, status=405, error_type="method_not_allowed", fault="caller"):
    """The route exists, but not with this method."""

    def __init__(self, message: str, allowed: tuple[str, ...]) -> None:
        super().__init__(message)
        self.allowed = allowed


class TooManyConnections(
    SophiaError, status=429, error_type="too_many_connections", fault="caller"
):
    """This address has too many connections open; close some, or reuse them."""


class BudgetExceeded(SophiaError, status=402, error_type="payment_required", fault="policy"):
    """The budget does not cover this request."""


class NoCandidate(SophiaError, status=400, error_type="constraint_filtered", fault="policy"):
    """No model satisfies every constraint of the request."""


class AllAttemptsFailed(
    SophiaError, status=502, error_type="provider_unavailable", fault="upstream"
):
    """All attempts failed."""


class Unavailable(SophiaError, status=503, error_type="overloaded"):
    """Sophia cannot take the request now; try again shortly."""


class CommitUnknown(Unavailable):
    """The store went away while it made a change durable: it may have been made or not."""


class InternalError(SophiaError):
    """Internal error; report it with the request id."""


class ConfigError(Exception):
    """The settings cannot be used; the message names the setting, the problem and what is expected.

    Raised at start and by commands, never for a request.
    """
