"""Connections to PostgreSQL, each made with the password that the secret holds at that moment."""

from psycopg import Connection
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from wms import settings

# Seconds. A database on the same network answers in milliseconds; three allow for one lost packet and its retry.
CONNECT_TIMEOUT = 3
# Seconds that a request waits for a free connection before it is told to come back later.
POOL_TIMEOUT = 5


class DatabaseConnection(Connection):
    """A psycopg connection that reads its password when it is opened. Rows are dictionaries."""

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs) -> "DatabaseConnection":
        kwargs.setdefault("row_factory", dict_row)
        return super().connect(conninfo, password=settings.secret("db_password"), **kwargs)


def _parameters(application: str, statement_timeout: str) -> dict:
    return {
        "host": settings.DB_HOST,
        "port": settings.DB_PORT,
        "dbname": settings.DB_NAME,
        "user": settings.DB_USER,
        "sslmode": settings.DB_SSLMODE,
        "application_name": application,
        "connect_timeout": CONNECT_TIMEOUT,
        # Milliseconds without an acknowledgement after which a vanished server counts as gone; Linux alone would
        # wait for about a quarter of an hour.
        "tcp_user_timeout": 10_000,
        "options": f"-c statement_timeout={statement_timeout}",
    }


def connect(application: str, statement_timeout: str) -> DatabaseConnection:
    """Opens one connection; the caller closes it, best with a with statement, which also commits.

    statement_timeout is PostgreSQL's, such as "10s"; "0" for none.
    """
    return DatabaseConnection.connect(**_parameters(application, statement_timeout))


def pool() -> ConnectionPool:
    """Makes the API's pool, closed until the caller opens it.

    A connection is checked when it is handed out, so a restarted database costs nobody an error. reconnect_timeout is
    short because the pool doubles its pauses: with the default of five minutes it may sleep on while the database is
    back; after giving up it tries at once when the next request comes.
    """
    return ConnectionPool(
        connection_class=DatabaseConnection,
        kwargs=_parameters("wms-api", "10s"),
        min_size=2,
        max_size=settings.DB_POOL_SIZE,
        timeout=POOL_TIMEOUT,
        # With those being served, fewer than the 40 threads FastAPI has: in an outage /health still gets one.
        max_waiting=20,
        reconnect_timeout=POOL_TIMEOUT,
        check=ConnectionPool.check_connection,
        name="wms-api",
        open=False,
    )
