"""Everything that can go wrong with a request; the middleware renders each as the error body of the client's API.

ProxyError                       500 INTERNAL_ERROR
├── BadRequest                   400 INVALID_REQUEST
│   ├── NotJson                  400 INVALID_JSON
│   ├── ModelNotFound            400 INPUT_MODEL_NOT_FOUND
│   └── InputTooLong             400 INPUT_TOKEN_LIMIT_EXCEEDED
├── Unauthorized                 401 AUTH_INVALID_API_KEY
│   ├── MissingKey               401 AUTH_MISSING_API_KEY
│   └── MalformedKey             401 AUTH_INVALID_FORMAT
├── ForeignHost                  403 HOST_NOT_ALLOWED
├── ForeignOrigin                403 ORIGIN_NOT_ALLOWED
├── NotAdmin                     403 ADMIN_KEY_REQUIRED
├── NotFound                     404 NOT_FOUND
│   ├── ModelNotServed           404 INPUT_MODEL_NOT_FOUND
│   └── BatchesOff               404 BATCHES_OFF
├── MethodNotAllowed             405 METHOD_NOT_ALLOWED
├── TooSlow                      408 REQUEST_TIMEOUT
├── BodyTooLarge                 413 BODY_TOO_LARGE
│   └── StorageFull              413 STORAGE_FULL
├── UnsupportedEncoding          415 UNSUPPORTED_ENCODING
├── ExpectationFailed            417 EXPECTATION_FAILED
├── Invalid                      422 VALIDATION_ERROR: in `proxy.faults`
│   └── PoisonedInput            422 INPUT_POISONED
├── Overloaded                   429 QUEUE_FULL
│   └── Crowded                  429 SERVER_BUSY
├── HeadTooLarge                 431 HEADERS_TOO_LARGE
├── BackendError                 502 BACKEND_ERROR
│   ├── BadVector                502 BACKEND_INVALID_VECTOR
│   └── BackendUnavailable       503 BACKEND_UNAVAILABLE
│       ├── BackendLost          503 BACKEND_UNAVAILABLE
│       └── BackendLoading       503 BACKEND_LOADING
├── Draining                     503 DRAINING
└── DeadlineExceeded             504 DEADLINE_EXCEEDED
"""

from proxy.quoting import quoted, shown

MAX_MESSAGE = 4000  # characters of an error's sentence; what clients sent is quoted in far less


class ProxyError(Exception):
    """Base class. `args[0]` is one sentence for the client, of MAX_MESSAGE at most; `param` the request field at fault.

    `queue_tokens`, where it matters: how many tokens are waiting. `closes`: the connection is closed, too.
    """

    status = 500
    code = "INTERNAL_ERROR"
    type = "server_error"
    closes = False

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: int | None = None) -> None:
        self.message = message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"
        super().__init__(self.message)
        self.param = param
        self.retry_after_s = retry_after_s
        self.queue_tokens: int | None = None


class BadRequest(ProxyError):
    status = 400
    code = "INVALID_REQUEST"
    type = "invalid_request_error"


class NotJson(BadRequest):
    code = "INVALID_JSON"


class ModelNotFound(BadRequest):
    """`model` is the name as the client wrote it; `served` lists the names there are."""

    code = "INPUT_MODEL_NOT_FOUND"

    def __init__(self, model: str, served: str) -> None:
        super().__init__(f"model {quoted(model)} is not served here; served are: {served}", param="model")
        self.model = shown(model)


class InputTooLong(BadRequest):
    code = "INPUT_TOKEN_LIMIT_EXCEEDED"


class Unauthorized(ProxyError):
    status = 401
    code = "AUTH_INVALID_API_KEY"
    type = "authentication_error"


class MissingKey(Unauthorized):
    code = "AUTH_MISSING_API_KEY"


class MalformedKey(Unauthorized):
    code = "AUTH_INVALID_FORMAT"


class ForeignHost(BadRequest):
    """The `Host` is a name that an attacker's DNS could resolve to this address."""

    status = 403
    code = "HOST_NOT_ALLOWED"


class ForeignOrigin(BadRequest):
    """The request was sent by a page of another site."""

    status = 403
    code = "ORIGIN_NOT_ALLOWED"


class NotAdmin(BadRequest):
    """Only an operator may do this."""

    status = 403
    code = "ADMIN_KEY_REQUIRED"


class NotFound(BadRequest):
    status = 404
    code = "NOT_FOUND"


class ModelNotServed(NotFound):
    code = "INPUT_MODEL_NOT_FOUND"


class BatchesOff(NotFound):
    """The server has no folder for batch jobs."""

    code = "BATCHES_OFF"


class MethodNotAllowed(BadRequest):
    status = 405
    code = "METHOD_NOT_ALLOWED"


class TooSlow(BadRequest):
    """The request did not arrive in time."""

    status = 408
    code = "REQUEST_TIMEOUT"
    closes = True


class BodyTooLarge(BadRequest):
    status = 413
    code = "BODY_TOO_LARGE"


class StorageFull(BodyTooLarge):
    """The disk space for batch jobs is used up. Not a 5xx, which clients try again at once, with the whole file."""

    code = "STORAGE_FULL"


class UnsupportedEncoding(BadRequest):
    status = 415
    code = "UNSUPPORTED_ENCODING"


class ExpectationFailed(BadRequest):
    status = 417
    code = "EXPECTATION_FAILED"


class Overloaded(ProxyError):
    status = 429
    code = "QUEUE_FULL"
    type = "rate_limit_error"


class Crowded(Overloaded):
    """Too many connections, or too many bytes of requests, at a time."""

    code = "SERVER_BUSY"
    closes = True


class HeadTooLarge(BadRequest):
    status = 431
    code = "HEADERS_TOO_LARGE"


class BackendError(ProxyError):
    """llama-server answered with an error, or with something unexpected."""

    status = 502
    code = "BACKEND_ERROR"


class BadVector(BackendError):
    """A vector with NaN or infinity in it (trap T8): never passed on to a client."""

    code = "BACKEND_INVALID_VECTOR"


class BackendUnavailable(BackendError):
    """The backend does not listen, or the connection broke."""

    status = 503
    code = "BACKEND_UNAVAILABLE"


class BackendLost(BackendUnavailable):
    """The backend took a batch, then the connection broke or no answer came: the batch may have crashed it."""


class BackendLoading(BackendUnavailable):
    code = "BACKEND_LOADING"


class Draining(ProxyError):
    status = 503
    code = "DRAINING"


class DeadlineExceeded(ProxyError):
    status = 504
    code = "DEADLINE_EXCEEDED"
