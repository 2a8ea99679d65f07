"""The worker's side of the queue: what it does with a job, and how it shows that it is at work.

Run as: celery --app wms.worker worker. SIGTERM ends it warm: it takes no more jobs and finishes those in hand.
"""

import signal
from pathlib import Path

from celery import bootsteps
from celery.signals import worker_ready
from psycopg import OperationalError
from psycopg.errors import QueryCanceled

from wms import database, jobs, trace
from wms.broker import app
from wms.settings import SecretMissing

# Touched every second while jobs are taken from the queue; the container's health check looks at its age.
AT_WORK = Path("/tmp/at-work")


# A database that is away is waited for without end, at most half a minute between two tries: the job is not lost.
@app.task(
    name="wms.trace_report",
    autoretry_for=(OperationalError, SecretMissing),
    dont_autoretry_for=(QueryCanceled,),
    max_retries=None,
    retry_backoff=True,
    retry_backoff_max=30,
)
def trace_report(job_id: str) -> None:
    """Makes the trace report of a job's lot and stores it with the job."""
    with database.connect("wms-worker", statement_timeout="50s") as db:
        lot = jobs.start(db, job_id)
        if lot is None:
            return
        # Seen from outside while the work goes on.
        db.commit()
        try:
            # One snapshot for all of the report's queries.
            db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            report = trace.report(db, lot)
        except Exception as error:
            # A query that took too long would do so again; any other of these is an outage.
            if isinstance(error, OperationalError) and not isinstance(error, QueryCanceled):
                raise
            db.rollback()
            jobs.fail(db, job_id, f"{type(error).__name__}: {error}")
            db.commit()
            raise
        jobs.finish(db, job_id, report)


class _AtWork(bootsteps.StartStopStep):
    """Shows that the worker's main loop turns and that it takes jobs from the queue."""

    requires = {"celery.worker.consumer.tasks:Tasks"}

    def __init__(self, parent, **options) -> None:
        super().__init__(parent, **options)
        self._timer = None

    def start(self, parent) -> None:
        AT_WORK.touch()
        self._timer = parent.timer.call_repeatedly(1.0, AT_WORK.touch)

    def stop(self, parent) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        AT_WORK.unlink(missing_ok=True)


app.steps["consumer"].add(_AtWork)


@worker_ready.connect
def _keep_running_on_hangup(**_) -> None:
    # Celery would restart itself. SIGHUP says that a secret changed, and the next connection reads it anyway.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
