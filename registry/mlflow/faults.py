"""What MLflow and its carriers raise, told as our own errors in one line. Knows what failed and not what was meant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy
from mlflow.exceptions import MlflowException

from components.errors import NotFound, RegistryError, StoreUnavailable
from components.redaction import public
from components.sources import object_store
from registry.mlflow import address, local_disk

# What MLflow's errors mean to a caller: not there, or not so; every other one is not now.
ABSENT = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"}
_WRONG = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "PERMISSION_DENIED", "INVALID_STATE"}
_CARRIERS = {"botocore", "boto3", "s3transfer", "urllib3", "requests", "google"}  # google's protobuf reads answers


@contextmanager
def answering(uri: str, what: str) -> Iterator[None]:
    """Ask the tracking store at ``uri`` for ``what``.

    Raises:
        NotFound: it has no such thing.
        RegistryError: it refuses.
        StoreUnavailable: it, its database or its artifact store does not answer, or a folder of this machine is full or
            takes no writes.
    """
    try:
        yield
    except MlflowException as error:
        said = address.one_line(error)
        _tell_of_artifacts(error)
        _tell_of_disk(uri, error)
        if error.error_code in ABSENT:
            raise NotFound(f"the registry has no {what}: {said}") from error
        if error.get_http_status_code() == 401:  # type: ignore[no-untyped-call]
            raise RegistryError(
                f"the tracking store {public(uri)} wants to know who asks: {said}; set MLFLOW_TRACKING_USERNAME"
                " and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            ) from error
        if error.error_code in _WRONG:
            raise RegistryError(f"the tracking store {public(uri)} refuses: {said}") from error
        raise StoreUnavailable(address.down(uri, said)) from error
    except (OSError, sqlalchemy.exc.SQLAlchemyError) as error:
        _tell_of_disk(uri, error)
        raise StoreUnavailable(address.down(uri, address.one_line(error))) from error
    except Exception as error:
        # botocore's errors have no base class that could be named without importing it.
        if not any(cls.__module__.partition(".")[0] in _CARRIERS for cls in type(error).__mro__):
            raise
        _tell_of_artifacts(error)
        raise StoreUnavailable(address.down(uri, address.one_line(error))) from error


def _tell_of_artifacts(error: Exception) -> None:
    """Raise what an object store has said behind an error. Of other errors nothing is told here."""
    said, words = address.one_line(error), object_store.words(error)
    remedy = object_store.refusal(words)
    if remedy:
        raise RegistryError(f"the artifact store refuses: {said}; {remedy}") from error
    if object_store.is_down(words):
        raise StoreUnavailable(
            f"the artifact store does not answer ({said}); check AWS_ENDPOINT_URL, then run the command again"
        ) from error


def _tell_of_disk(uri: str, error: Exception) -> None:
    """Raise what this machine's own disk has said. Of other errors nothing is told here."""
    said = local_disk.fault(uri, error)
    if said:
        raise StoreUnavailable(said) from error
