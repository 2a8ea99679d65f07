"""The WMS over HTTP. Answers are JSON; errors are {"error": {"code", "message"}}."""

import asyncio
import logging
import time
from contextlib import asynccontextmanager
from datetime import date
from decimal import Decimal
from typing import Annotated, Literal
from uuid import UUID

from fastapi import FastAPI, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from psycopg import OperationalError
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.exceptions import HTTPException

from wms import broker, database, jobs, lots, trace
from wms.errors import QueueUnavailable, WmsError

log = logging.getLogger("wms")

pool = database.pool()

# Seconds. A request may wait so long for its job: less than the requests in flight get when the API stops
# (wms/serve.py), and than load balancers wait for an answer, which is a minute as a rule.
LONGEST_WAIT = 15
# Seconds between two looks at a job that somebody waits for.
LOOK_EVERY = 0.25


@asynccontextmanager
async def _lifespan(_: FastAPI):
    # Not waiting for the database: a node that starts during an outage answers 503 and recovers by itself.
    pool.open(wait=False)
    yield
    pool.close()


# No /docs page: it loads its scripts from the internet, which a factory's server room may not have.
app = FastAPI(title="FlowViz WMS", version="1.0", lifespan=_lifespan, docs_url=None, redoc_url=None)

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
LotCode = Annotated[str, StringConstraints(max_length=24, pattern=r"^(RM|PL)-[0-9]{6,}$")]
LotPath = Annotated[LotCode, Path(examples=["RM-000001"])]
ShipmentPath = Annotated[str, Path(max_length=24, pattern=r"^SH-[0-9]{6,}$", examples=["SH-000001"])]
# What numeric(12, 3) holds.
Quantity = Annotated[Decimal, Field(gt=0, max_digits=12, decimal_places=3)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Receipt(_Body):
    product: Text
    quantity: Quantity
    unit: Text = "kg"
    supplier: Text
    supplier_lot: Text
    expires_on: date | None = None


class Input(_Body):
    lot: LotCode
    quantity: Quantity


class Production(_Body):
    product: Text
    quantity: Quantity
    unit: Text = "kg"
    inputs: Annotated[list[Input], Field(min_length=1, max_length=100)]
    expires_on: date | None = None


class Decision(_Body):
    decision: Literal["pass", "hold", "reject"]
    decided_by: Text
    reason: Text


class Shipment(_Body):
    customer: Text
    quantity: Quantity


@app.post("/lots/raw", status_code=201)
def receive_raw_material(body: Receipt):
    """Receives raw material from a supplier."""
    with pool.connection() as db:
        return lots.receive(db, **body.model_dump())


@app.post("/lots/production", status_code=201)
def make_production_lot(body: Production):
    """Makes a production lot out of quantities of other lots."""
    inputs: dict[str, Decimal] = {}
    for item in body.inputs:
        inputs[item.lot] = inputs.get(item.lot, Decimal(0)) + item.quantity
    with pool.connection() as db:
        return lots.produce(db, body.product, body.quantity, body.unit, inputs, body.expires_on)


@app.get("/lots/{code}")
def show_lot(code: LotPath):
    """Shows a lot, the decision that counts and what is left of it."""
    with pool.connection() as db:
        return lots.get(db, code)


@app.post("/lots/{code}/decisions", status_code=201)
def record_decision(code: LotPath, body: Decision):
    """Records a decision of quality control: who decided what, and why."""
    with pool.connection() as db:
        return lots.decide(db, code, **body.model_dump())


@app.post("/lots/{code}/shipments", status_code=201)
def ship_lot(code: LotPath, body: Shipment):
    """Ships a quantity of a lot that quality control passed."""
    with pool.connection() as db:
        return lots.ship(db, code, **body.model_dump())


@app.get("/lots/{code}/trace/forward")
def trace_forward(code: LotPath):
    """Follows a lot to everything made from it and to the customers it reached."""
    with pool.connection() as db:
        return trace.forward(db, code)


@app.get("/lots/{code}/trace/back")
def trace_back(code: LotPath):
    """Follows a lot back to the raw materials it was made of."""
    with pool.connection() as db:
        return trace.back(db, code)


@app.get("/shipments/{code}/trace/back")
def trace_shipment_back(code: ShipmentPath):
    """Follows a shipment back to the raw materials in it."""
    with pool.connection() as db:
        return trace.shipment_back(db, code)


@app.post("/lots/{code}/reports", status_code=202)
def request_report(code: LotPath):
    """Has the worker make a trace report; ask for it under /jobs/{id}."""
    # Committed before it is queued: the worker may be faster than this transaction.
    with pool.connection() as db:
        job = jobs.create(db, code)
    try:
        broker.enqueue(str(job["id"]))
    except QueueUnavailable as error:
        with pool.connection() as db:
            jobs.fail(db, job["id"], error.message)
        raise
    return job


@app.get("/jobs/{job_id}")
async def show_job(job_id: UUID, wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT)] = 0):
    """Shows a job's state, and its result once it is done; waits up to so many seconds for that."""
    end = time.monotonic() + wait
    while True:
        job = await run_in_threadpool(_job, job_id)
        if job["state"] in ("done", "failed") or time.monotonic() >= end:
            return job
        # A thread and a connection are held for each look only, however many wait.
        await asyncio.sleep(LOOK_EVERY)


def _job(job_id: UUID) -> dict:
    with pool.connection() as db:
        return jobs.get(db, job_id)


@app.get("/livez")
async def live():
    """Answers while the process serves requests, whatever its database does."""
    return {"status": "ok"}


@app.get("/health")
def health():
    """Asks the database and the queue; 503 when one of them doesn't answer."""
    checks = {"database": _outcome(_ping_database), "queue": _outcome(broker.ping)}
    healthy = all(outcome == "ok" for outcome in checks.values())
    return JSONResponse({"status": "ok" if healthy else "fail", "checks": checks}, 200 if healthy else 503)


def _ping_database() -> None:
    # Seconds; shorter than the three that probes usually wait.
    with pool.connection(timeout=2) as db:
        db.execute("SELECT 1")


def _outcome(check) -> str:
    try:
        check()
    except Exception as error:  # whatever went wrong, this check failed
        log.warning("health check %s: %s: %s", check.__name__, type(error).__name__, error)
        return f"failed: {type(error).__name__}"
    return "ok"


def _answer(status: int, code: str, message: str) -> JSONResponse:
    headers = {"Retry-After": "5"} if status == 503 else None
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)


@app.exception_handler(WmsError)
async def _on_wms_error(_: Request, error: WmsError):
    return _answer(error.status, error.code, error.message)


@app.exception_handler(RequestValidationError)
async def _on_invalid_request(_: Request, error: RequestValidationError):
    problems = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()]
    return _answer(422, "invalid_request", "; ".join(problems))


@app.exception_handler(HTTPException)
async def _on_http_error(_: Request, error: HTTPException):
    return _answer(error.status_code, "http_error", str(error.detail))


@app.exception_handler(OperationalError)
async def _on_database_outage(_: Request, error: OperationalError):
    log.warning("database: %s: %s", type(error).__name__, error)
    return _answer(503, "database_unavailable", "the database can't be reached: try again later")


@app.exception_handler(Exception)
async def _on_defect(_: Request, error: Exception):
    return _answer(500, "internal_error", "something is wrong in the WMS: its log says what")
