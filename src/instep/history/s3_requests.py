"""How a store on S3 is asked: how often, how long, and what its failures are called.

A request is tried a bounded number of times within a bounded time, with growing and random pauses:
a store that is silent holds nobody up for more than some 90 seconds. A request that goes on, byte
by byte, may take longer. What fails becomes an OSError of a path, or one of the seven families.
Not here: what is asked (`s3`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from instep.errors import InstepError, NotFoundError, RefusedError, UnavailableError

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

ATTEMPTS = 5
"""How often a request is made before it has failed: pauses grow to some 8 s, 15 s together."""

CONNECT_WAIT_S = 10
"""How long a connection may take to open."""

READ_WAIT_S = 30
"""How long the store may be silent, before its answer or in the middle of it."""

ANSWER_WAIT_S = 75
"""How long a request may go without an answer: no attempt begins that would be silent beyond."""

STREAM_ATTEMPTS = 3
"""How often the bytes of an object are read where they stop coming in the middle."""

CONNECTIONS = 16
"""Requests at the same time; more wait for one of these."""

_PAUSE_S = 0.1
"""The longest pause before a stream is read a second time; the last is twice as long."""

_THROTTLED = frozenset({"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded",
                        "TooManyRequests", "ServiceUnavailable", "503", "429"})  # fmt: skip
_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})
_TAKEN = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "409"})
_DENIED = frozenset({"AccessDenied", "403", "Forbidden", "InvalidAccessKeyId", "401",
                     "SignatureDoesNotMatch", "ExpiredToken", "AllAccessDisabled"})  # fmt: skip

_BEGUN = "instep-begun"

Client = Any  # boto3 makes its clients at run time: they have no types
T = TypeVar("T")


def connect(bucket: str, endpoint: str | None, region: str | None) -> Client:
    """Returns a client for a bucket, which threads may share.

    Raises:
        NotFoundError (kind "no-s3-client"): boto3 is not installed.
    """
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise NotFoundError(
            "The lake's files are on S3, but the package boto3 is not installed: expected it. "
            'Run: pip install "instep[s3]".',
            kind="no-s3-client",
        ) from None
    with translated(f"s3://{bucket}", bucket):
        client = boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint,
            region_name=region,
            config=Config(
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                connect_timeout=CONNECT_WAIT_S,
                read_timeout=READ_WAIT_S,
                max_pool_connections=CONNECTIONS,
            ),
        )
        client.meta.events.register("request-created.s3", _hold_time)
        return client


def downloads() -> Any:  # boto3's, without types
    """Returns how a client brings whole files."""
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(num_download_attempts=STREAM_ATTEMPTS)


def _hold_time(request: Any, **_: object) -> None:  # botocore's, one for each attempt
    """Holds, before each attempt, that there is time for it; all of a request share a context."""
    now = time.monotonic()
    if now - request.context.setdefault(_BEGUN, now) > ANSWER_WAIT_S - READ_WAIT_S:
        raise UnavailableError(
            f"The store gave no answer about {request.url.partition('?')[0]} within "
            f"{ANSWER_WAIT_S} seconds: expected one. Nothing was published. Look at the network "
            "and at lake.endpoint, then try again.",
            kind="bucket-unreachable",
        )


def again(what: str, bucket: str, read: Callable[[], T]) -> T:
    """Reads a stream that may break off, again after a growing and random pause.

    The request itself is tried again by its client.
    """
    from botocore.exceptions import HTTPClientError, IncompleteReadError, ResponseStreamingError

    broken = (HTTPClientError, IncompleteReadError, ResponseStreamingError)
    for number in range(STREAM_ATTEMPTS - 1):
        try:
            return read()
        except broken:
            time.sleep(random.uniform(0, _PAUSE_S * 2**number))
    with translated(what, bucket):
        return read()


@contextmanager
def translated(what: str, bucket: str) -> Iterator[None]:
    """Turns what the client raises into what a path raises, or into the seven families."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        PartialCredentialsError,
    )

    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise _denied(what, str(error)) from error
    except ClientError as error:
        raise of_answer(what, bucket, error) from error
    except (BotoCoreError, Boto3Error) as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, ClientError):
            raise of_answer(what, bucket, cause) from error
        raise UnavailableError(
            f"The store of {what} could not be reached in several attempts ({error}): expected "
            "an answer. Nothing was published. Look at the network and at lake.endpoint, then "
            "try again.",
            kind="bucket-unreachable",
        ) from error


def of_answer(what: str, bucket: str, error: ClientError) -> InstepError | OSError:
    """Returns what is raised where a store answers a request about `what` with an error."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        return no_bucket(bucket)
    if code in _MISSING:
        return FileNotFoundError(2, "No such object", what)
    if code in _TAKEN:
        return FileExistsError(17, "Object exists", what)
    if code in _DENIED:
        return _denied(what, str(error))
    if code in _THROTTLED or status in (429, 503):
        return UnavailableError(
            f"The store of {what} asked for fewer requests ({code}) in {ATTEMPTS} attempts: "
            "expected it to answer. Nothing was published. Wait, then try again.",
            kind="bucket-throttled",
        )
    return UnavailableError(
        f"The store of {what} failed in {ATTEMPTS} attempts ({error}): expected an answer. "
        "Nothing was published. Wait, then try again.",
        kind="bucket-failed",
    )


def _denied(what: str, reason: str) -> RefusedError:
    return RefusedError(
        f"The store refused access to {what} ({reason}): expected credentials that may get, put, "
        "delete and list there. Set them as for any AWS tool, or ask whoever owns the bucket.",
        kind="bucket-access-denied",
    )


def no_bucket(name: str) -> NotFoundError:
    return NotFoundError(
        f"There is no bucket {name}: expected one that is there, since Instep makes none. "
        "Make it, or correct lake.files and lake.endpoint in instep.yaml.",
        kind="no-such-bucket",
        bucket=name,
    )
