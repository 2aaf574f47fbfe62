"""Hosting: what SageMaker's environment asks of a container's server, and what it makes of a container's faults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from fmtune.errors import UsageError
from fmtune.sagemaker.connection import Limits, Response

# Faults of the container's own; that nobody has time (503) or that a request was none is not the model's fault.
_MODELS = (400, 406, 415, 500)


def port_of(environment: Mapping[str, str]) -> int:
    """Return the port to listen at: SAGEMAKER_BIND_TO_PORT, else SAGEMAKER_HTTP_PORT, else 8080."""
    name = next((name for name in ("SAGEMAKER_BIND_TO_PORT", "SAGEMAKER_HTTP_PORT") if environment.get(name)), None)
    return 8080 if name is None else _whole(environment, name, 65535)


def workers_of(environment: Mapping[str, str]) -> int:
    """Return how many processes answer: SAGEMAKER_MODEL_SERVER_WORKERS, else as many as a transform asks at once."""
    for name in ("SAGEMAKER_MODEL_SERVER_WORKERS", "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS"):
        if environment.get(name):
            return _whole(environment, name, 1024)
    return 1


def limits_of(environment: Mapping[str, str]) -> Limits:
    """Return the limits that the environment asks for: SAGEMAKER_MAX_PAYLOAD_IN_MB, 1 to 100."""
    if not environment.get("SAGEMAKER_MAX_PAYLOAD_IN_MB"):
        return Limits()
    payload = _whole(environment, "SAGEMAKER_MAX_PAYLOAD_IN_MB", 100) << 20
    return replace(Limits(), body=payload, held=max(Limits().held, 4 * payload))


def _whole(environment: Mapping[str, str], name: str, most: int) -> int:
    text = environment[name]
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= most):
        raise UsageError(f"{name} is {text!r}", hint=f"a whole number from 1 to {most}")
    return int(text)


def as_endpoint(response: Response) -> Response:
    """Return what a client of InvokeEndpoint gets where the container has answered so: a fault is a ModelError, 424."""
    if response.status not in _MODELS:
        return response
    said = response.content.decode().strip()
    kind = "client" if response.status < 500 else "server"
    content = {
        "Message": f'Received {kind} error ({response.status}) from primary with message "{said}".',
        "OriginalStatusCode": response.status, "OriginalMessage": said,
    }  # fmt: skip
    headers = response.headers + b"x-amzn-ErrorType: ModelError\r\n"
    return Response(424, json.dumps(content).encode() + b"\n", headers=headers)
