"""Traceability: where a lot went, and what it was made of.

Regulation (EC) 178/2002, article 18, asks a food business for one step either way; these queries go all the way
inside the house, however many production steps lie between.
"""

from psycopg import Connection

from wms import lots
from wms.errors import NotFound

# UNION, not UNION ALL: a lot that is reached on several ways counts once for each depth.
_FORWARD = """
    WITH RECURSIVE reached (id, depth) AS (
        SELECT id, 0 FROM lots WHERE code = %s
        UNION
        SELECT output_id, depth + 1 FROM lot_inputs JOIN reached ON input_id = reached.id
    )
    SELECT id, min(depth) AS depth FROM reached GROUP BY id
"""
_BACK = """
    WITH RECURSIVE reached (id, depth) AS (
        SELECT id, 0 FROM lots WHERE code = %s
        UNION
        SELECT input_id, depth + 1 FROM lot_inputs JOIN reached ON output_id = reached.id
    )
    SELECT id, min(depth) AS depth FROM reached GROUP BY id
"""


def forward(db: Connection, code: str) -> dict:
    """Returns every lot made from this one and every shipment they left in."""
    steps = _steps(db, _FORWARD, code)
    shipments = db.execute(
        """
        SELECT shipments.code, lots.code AS lot, customer, shipments.quantity, lots.unit, shipped_at
        FROM shipments JOIN lots ON lots.id = lot_id
        WHERE lot_id = ANY(%s) ORDER BY shipments.id
        """,
        [list(steps)],
    ).fetchall()
    return {"lot": code, "lots": _lots(db, steps), "links": _links(db, steps), "shipments": shipments}


def back(db: Connection, code: str) -> dict:
    """Returns every lot that this one was made of, and among them the raw materials with their suppliers."""
    steps = _steps(db, _BACK, code)
    found = _lots(db, steps)
    raw = [lot["code"] for lot in found if lot["kind"] == "raw"]
    return {"lot": code, "lots": found, "links": _links(db, steps), "raw_materials": raw}


def shipment_back(db: Connection, code: str) -> dict:
    """Returns a shipment and everything that its lot was made of."""
    shipment = db.execute(
        """
        SELECT shipments.code, lots.code AS lot, customer, shipments.quantity, lots.unit, shipped_at
        FROM shipments JOIN lots ON lots.id = lot_id
        WHERE shipments.code = %s
        """,
        [code],
    ).fetchone()
    if shipment is None:
        raise NotFound(f"there is no shipment {code}")
    return {"shipment": shipment, **back(db, shipment["lot"])}


def report(db: Connection, code: str) -> dict:
    """Returns what a recall needs for one lot: its label, both directions and who has to be called."""
    lot = lots.get(db, code)
    ahead = forward(db, code)
    return {
        "label": [lot["code"], lot["product"], f"{lot['quantity']} {lot['unit']}", f"QC: {lot['decision'] or 'open'}"],
        "remaining": lot["remaining"],
        "customers": sorted({shipment["customer"] for shipment in ahead["shipments"]}),
        "forward": ahead,
        "back": back(db, code),
    }


def _steps(db: Connection, query: str, code: str) -> dict[int, int]:
    steps = {row["id"]: row["depth"] for row in db.execute(query, [code])}
    if not steps:
        raise NotFound(f"there is no lot {code}")
    return steps


def _lots(db: Connection, steps: dict[int, int]) -> list[dict]:
    rows = db.execute(
        """
        SELECT id, code, kind, product, quantity, unit, supplier, supplier_lot, decision
        FROM lot_overview WHERE id = ANY(%s)
        """,
        [list(steps)],
    ).fetchall()
    for row in rows:
        row["depth"] = steps[row["id"]]
    rows.sort(key=lambda row: (row["depth"], row.pop("id")))
    return rows


def _links(db: Connection, steps: dict[int, int]) -> list[dict]:
    return db.execute(
        """
        SELECT source.code AS "from", target.code AS "to", lot_inputs.quantity, source.unit
        FROM lot_inputs
        JOIN lots AS source ON source.id = input_id
        JOIN lots AS target ON target.id = output_id
        WHERE input_id = ANY(%(ids)s) AND output_id = ANY(%(ids)s)
        ORDER BY output_id, input_id
        """,
        {"ids": list(steps)},
    ).fetchall()
