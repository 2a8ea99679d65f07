"""The state of background jobs, in PostgreSQL."""

import json
from datetime import date
from decimal import Decimal

from psycopg import Connection
from psycopg.types.json import Jsonb

from wms import lots
from wms.errors import NotFound


def create(db: Connection, lot_code: str) -> dict:
    """Records a job that makes the trace report of a lot."""
    lot = lots.get(db, lot_code)
    return db.execute(
        "INSERT INTO jobs (kind, lot_id) VALUES ('trace_report', %s) RETURNING id, kind, %s AS lot, state, created_at",
        [lot["id"], lot_code],
    ).fetchone()


def get(db: Connection, job_id: str) -> dict:
    """Returns a job, with its result once it is done."""
    job = db.execute(
        """
        SELECT jobs.id, jobs.kind, lots.code AS lot, state, attempts, result, error,
               jobs.created_at, started_at, finished_at
        FROM jobs JOIN lots ON lots.id = lot_id
        WHERE jobs.id = %s
        """,
        [job_id],
    ).fetchone()
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    return job


def start(db: Connection, job_id: str) -> str | None:
    """Marks a job as running and returns its lot's code, or None when it is finished already.

    A job that is running may be started again: the queue hands it out twice when a worker was lost.
    """
    row = db.execute(
        """
        UPDATE jobs SET state = 'running', attempts = attempts + 1, started_at = now()
        FROM lots
        WHERE jobs.id = %s AND lots.id = lot_id AND state IN ('queued', 'running')
        RETURNING lots.code
        """,
        [job_id],
    ).fetchone()
    return row and row["code"]


def finish(db: Connection, job_id: str, result: dict) -> None:
    """Stores the result of a running job."""
    db.execute(
        "UPDATE jobs SET state = 'done', result = %s, finished_at = now() WHERE id = %s AND state = 'running'",
        [Jsonb(result, dumps=lambda value: json.dumps(value, default=_plain)), job_id],
    )


def fail(db: Connection, job_id: str, error: str) -> None:
    """Stores why a job can't be done."""
    db.execute(
        """
        UPDATE jobs SET state = 'failed', error = %s, finished_at = now()
        WHERE id = %s AND state IN ('queued', 'running')
        """,
        [error, job_id],
    )


def _plain(value) -> float | str:
    """Writes what JSON has no type for as the API's other answers do."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, date):  # and datetime, which is one
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no place in a report")
