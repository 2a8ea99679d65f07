"""Runs the API. SIGTERM ends it gracefully: it takes no more connections and finishes the requests it has."""

import logging
import signal

import uvicorn

# Seconds for requests in flight, more than statement_timeout allows one of them to take. compose.yaml's
# stop_grace_period is longer, so the engine doesn't cut this short.
GRACEFUL_SHUTDOWN = 20

# Seconds that a connection is kept on which nobody asks. A load balancer keeps its own for a minute (nginx, ALB) and
# sends the next request on one of them: were the API the first to close it, that request would be lost now and then.
KEEP_ALIVE = 75


class _WithoutProbes(logging.Filter):
    """Keeps health probes, one every second or two, out of the access log."""

    def filter(self, record: logging.LogRecord) -> bool:
        path = record.args[2] if isinstance(record.args, tuple) and len(record.args) > 2 else ""
        return path not in ("/livez", "/health")


def main() -> None:
    # It says that a secret changed, and the next connection reads it anyway.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(name)s: %(message)s")
    logging.getLogger("uvicorn.access").addFilter(_WithoutProbes())
    uvicorn.run(
        "wms.api:app",
        host="0.0.0.0",
        port=8000,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN,
    )


if __name__ == "__main__":
    main()
