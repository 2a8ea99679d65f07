"""Where the WMS finds its database and its queue: addresses from the environment, passwords from files.

A password is read each time a connection is made and kept nowhere, so a rotated secret is used by the next connection
without a restart. It is never an environment variable.
"""

import os
from pathlib import Path


class SecretMissing(RuntimeError):
    """A secret's file can't be read; the message says which and what to do."""


def secret(name: str) -> str:
    """Returns the secret of that name, without newlines at its end."""
    path = Path(os.environ.get("WMS_SECRETS_DIR", "/run/secrets"), name)
    try:
        value = path.read_text(encoding="utf-8").rstrip("\n")
    except OSError as error:
        raise SecretMissing(f"secret {path}: {error.strerror}: check the service's secrets, their uid and mode") from error
    if not value:
        raise SecretMissing(f"secret {path} is empty: check where it comes from")
    return value


DB_HOST = os.environ.get("WMS_DB_HOST", "postgres")
DB_PORT = int(os.environ.get("WMS_DB_PORT", "5432"))
DB_NAME = "wms"
DB_USER = "wms"
# libpq's names: prefer on one machine; require or verify-full where the database is elsewhere.
DB_SSLMODE = os.environ.get("WMS_DB_SSLMODE", "prefer")

CACHE_HOST = os.environ.get("WMS_CACHE_HOST", "valkey")
CACHE_PORT = int(os.environ.get("WMS_CACHE_PORT", "6379"))
CACHE_TLS = os.environ.get("WMS_CACHE_TLS", "off") == "on"

# Connections of one API process to PostgreSQL. Ten serve some hundred requests a second of this size and leave room
# for several nodes below a small database's limit of about 100.
DB_POOL_SIZE = 10
