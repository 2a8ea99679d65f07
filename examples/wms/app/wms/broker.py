"""The job queue: Celery over Valkey, logging in with the password that the secret holds at that moment."""

import os

from celery import Celery
from kombu.exceptions import OperationalError
from kombu.transport import redis as kombu_redis
from redis.credentials import CredentialProvider

from wms import settings
from wms.errors import QueueUnavailable

# Seconds. The longest that a job may take; the worker ends it then.
TASK_TIME_LIMIT = 60


class _SecretFile(CredentialProvider):
    """Hands redis-py the password each time it opens a connection."""

    def get_credentials(self) -> tuple[str]:
        return (settings.secret("cache_password"),)


class Channel(kombu_redis.Channel):
    """Kombu's channel, which would read a password once, from the URL."""

    def _connparams(self, asynchronous=False) -> dict:
        params = super()._connparams(asynchronous=asynchronous)
        params.pop("username", None)
        params.pop("password", None)
        return {**params, "credential_provider": _SecretFile()}


class Transport(kombu_redis.Transport):
    Channel = Channel


app = Celery("wms", include=["wms.worker"])
app.conf.update(
    broker_url=f"redis://{settings.CACHE_HOST}:{settings.CACHE_PORT}/0",
    broker_transport="wms.broker:Transport",
    broker_use_ssl={"ssl_cert_reqs": "required"} if settings.CACHE_TLS else None,
    broker_transport_options={
        # A job that a lost worker held is handed out again after this many seconds: twice what a job may take, so
        # none is handed out while somebody still works on it.
        "visibility_timeout": 2 * TASK_TIME_LIMIT,
        "socket_connect_timeout": 3,
        "socket_keepalive": True,
        # Seconds between pings of an idle connection, so a silent loss is noticed.
        "health_check_interval": 10,
    },
    broker_connection_retry_on_startup=True,
    # Never give up: an outage of the queue must end without anyone's help.
    broker_connection_max_retries=None,
    task_default_queue="wms",
    # The state of a job lives in PostgreSQL; Celery keeps no results.
    task_ignore_result=True,
    # Acknowledged when done: a worker that dies leaves its job to another. Jobs can be done twice without harm.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    # One job at a time for each process, so a draining worker holds nothing it hasn't begun.
    worker_prefetch_multiplier=1,
    worker_concurrency=int(os.environ.get("WMS_WORKER_CONCURRENCY", "2")),
    task_soft_time_limit=TASK_TIME_LIMIT - 5,
    task_time_limit=TASK_TIME_LIMIT,
    # Publishing from the API: a stale connection is replaced at once, an outage is reported within seconds.
    task_publish_retry_policy={"max_retries": 2, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5},
    timezone="UTC",
)


def enqueue(job_id: str) -> None:
    """Hands a job to the workers by its id."""
    try:
        app.send_task("wms.trace_report", args=[job_id])
    except (OperationalError, settings.SecretMissing) as error:
        raise QueueUnavailable("the job queue can't be reached: try again later") from error


def ping() -> None:
    """Fails unless the queue answers and takes the password."""
    with app.connection_for_write(connect_timeout=2) as connection:
        connection.default_channel.client.ping()
