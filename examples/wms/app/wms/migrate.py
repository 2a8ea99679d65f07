"""Brings the database to the newest schema: python3 -m wms.migrate. Run once before each release, on any node.

In:  the files migrations/NNNN_name.sql, in the order of their numbers.
Out: each file that the database doesn't have yet, applied in a transaction of its own and recorded with its checksum.
     Exit status 0 when the schema is the newest, 1 otherwise.
Any number of nodes may run it at once: a PostgreSQL advisory lock lets one work and the others find nothing to do.
"""

import hashlib
import signal
import sys
import threading
import time
from pathlib import Path

from psycopg import Connection, Error, OperationalError

from wms import database
from wms.settings import SecretMissing

MIGRATIONS = Path(__file__).parent / "migrations"

# Any number that no other program locks in this database: the first eight bytes of SHA-256 of "wms migrations".
LOCK = int.from_bytes(hashlib.sha256(b"wms migrations").digest()[:8], "big", signed=True)

# Seconds to wait for a database that is still starting, or that hasn't taken over a rotated password yet.
CONNECT_DEADLINE = 60


class MigrationError(RuntimeError):
    """The schema can't be brought forward; the message says why."""


def apply(db: Connection) -> list[str]:
    """Applies what is missing and returns the names of the files it applied."""
    db.autocommit = True
    # A session that waits longer than this for another node's migration reports it instead of hanging.
    db.execute("SET lock_timeout = '10min'")
    db.execute("SELECT pg_advisory_lock(%s)", [LOCK])
    # Locks inside a migration are another matter: one that can't be had soon would hold up the whole application.
    db.execute("SET lock_timeout = '10s'")
    db.execute(
        """
        CREATE TABLE IF NOT EXISTS schema_migrations (
            name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()
        )
        """
    )
    applied = {row["name"]: row["sha256"] for row in db.execute("SELECT name, sha256 FROM schema_migrations")}
    done = []
    for path in sorted(MIGRATIONS.glob("*.sql")):
        script = path.read_bytes()
        digest = hashlib.sha256(script).hexdigest()
        if path.name in applied:
            if applied[path.name] != digest:
                raise MigrationError(f"{path.name} changed after it was applied: undo the change and add a new file")
            continue
        with db.transaction():
            db.execute(script)
            db.execute("INSERT INTO schema_migrations (name, sha256) VALUES (%s, %s)", [path.name, digest])
        print(f"migrate: applied {path.name}")
        done.append(path.name)
    return done


def connect(stop: threading.Event) -> Connection:
    """Connects, trying again until the deadline, because the database may still be starting."""
    deadline = time.monotonic() + CONNECT_DEADLINE
    while True:
        try:
            return database.connect("wms-migrate", statement_timeout="0")
        except OperationalError as error:
            if time.monotonic() >= deadline:
                raise MigrationError(f"no connection within {CONNECT_DEADLINE} s: {error}") from error
        if stop.wait(0.5):
            raise MigrationError("stopped while waiting for the database")


def main() -> int:
    stop = threading.Event()

    def on_terminate(*_) -> None:
        stop.set()

    # The first process of a container has no default action for signals. A file that is being applied is finished; if
    # the engine won't wait that long, its transaction is rolled back.
    signal.signal(signal.SIGTERM, on_terminate)
    try:
        with connect(stop) as db:
            if not apply(db):
                print("migrate: nothing to do")
    except (MigrationError, SecretMissing, Error) as error:
        print(f"migrate: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
