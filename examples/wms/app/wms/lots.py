"""What happens to lots: receipt, production, quality control, shipment.

Every function takes an open transaction and leaves committing to its caller. Rows that a decision depends on are
locked first, in the order of their ids, so that two shipments can't take the same kilogram and a hold that comes in
between is seen.
"""

from collections.abc import Sequence
from decimal import Decimal

from psycopg import Connection

from wms.errors import LotBlocked, NotEnough, NotFound

_BLOCKING = ("hold", "reject")


def get(db: Connection, code: str) -> dict:
    """Returns a lot with the decision that counts and what is left of it."""
    lot = db.execute("SELECT * FROM lot_overview WHERE code = %s", [code]).fetchone()
    if lot is None:
        raise NotFound(f"there is no lot {code}")
    return lot


def receive(db: Connection, product: str, quantity: Decimal, unit: str, supplier: str, supplier_lot: str,
            expires_on=None) -> dict:
    """Makes a lot of the raw material that a supplier delivered."""
    row = db.execute(
        """
        INSERT INTO lots (kind, product, quantity, unit, supplier, supplier_lot, expires_on)
        VALUES ('raw', %s, %s, %s, %s, %s, %s) RETURNING code
        """,
        [product, quantity, unit, supplier, supplier_lot, expires_on],
    ).fetchone()
    return get(db, row["code"])


def produce(db: Connection, product: str, quantity: Decimal, unit: str, inputs: dict[str, Decimal],
            expires_on=None) -> dict:
    """Makes a production lot out of quantities of other lots, given by their codes."""
    available = _lock(db, list(inputs))
    for code, wanted in inputs.items():
        _require_unblocked([available[code]], f"lot {code} can't be used")
        _require_enough(available[code], wanted)
    row = db.execute(
        """
        INSERT INTO lots (kind, product, quantity, unit, expires_on)
        VALUES ('production', %s, %s, %s, %s) RETURNING id, code
        """,
        [product, quantity, unit, expires_on],
    ).fetchone()
    with db.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO lot_inputs (output_id, input_id, quantity) VALUES (%s, %s, %s)",
            [(row["id"], available[code]["id"], wanted) for code, wanted in inputs.items()],
        )
    return get(db, row["code"])


def decide(db: Connection, code: str, decision: str, decided_by: str, reason: str) -> dict:
    """Records what quality control decided about a lot, by whom and why."""
    lot = _lock(db, [code])[code]
    db.execute(
        "INSERT INTO qc_decisions (lot_id, decision, decided_by, reason) VALUES (%s, %s, %s, %s)",
        [lot["id"], decision, decided_by, reason],
    )
    return get(db, code)


def ship(db: Connection, code: str, customer: str, quantity: Decimal) -> dict:
    """Ships a quantity of a lot, if the lot passed quality control and nothing it was made of is blocked."""
    ingredients = db.execute(
        """
        WITH RECURSIVE ancestors (id) AS (
            SELECT id FROM lots WHERE code = %s
            UNION
            SELECT input_id FROM lot_inputs JOIN ancestors ON output_id = ancestors.id
        )
        SELECT code FROM lots JOIN ancestors USING (id)
        """,
        [code],
    ).fetchall()
    if not ingredients:
        raise NotFound(f"there is no lot {code}")
    involved = _lock(db, [row["code"] for row in ingredients])
    lot = involved[code]
    _require_unblocked(involved.values(), f"lot {code} can't be shipped")
    if lot["decision"] != "pass":
        raise LotBlocked(f"lot {code} can't be shipped: quality control has not passed it yet")
    _require_enough(lot, quantity)
    return db.execute(
        """
        INSERT INTO shipments (lot_id, customer, quantity) VALUES (%s, %s, %s)
        RETURNING code, %s AS lot, customer, quantity, shipped_at
        """,
        [lot["id"], customer, quantity, code],
    ).fetchone()


def _lock(db: Connection, codes: Sequence[str]) -> dict[str, dict]:
    """Locks the lots until the transaction ends and returns them by code.

    Reading follows in a statement of its own, whose snapshot is taken after the wait for the locks.
    """
    db.execute("SELECT FROM lots WHERE code = ANY(%s) ORDER BY id FOR NO KEY UPDATE", [codes])
    rows = db.execute("SELECT * FROM lot_overview WHERE code = ANY(%s) ORDER BY id", [codes]).fetchall()
    found = {row["code"]: row for row in rows}
    missing = [code for code in codes if code not in found]
    if missing:
        raise NotFound(f"there is no lot {missing[0]}")
    return found


def _require_unblocked(lots, what: str) -> None:
    for lot in lots:
        if lot["decision"] in _BLOCKING:
            raise LotBlocked(f"{what}: {lot['code']} is on {lot['decision']} by {lot['decided_by']}: {lot['reason']}")


def _require_enough(lot: dict, wanted: Decimal) -> None:
    if wanted > lot["remaining"]:
        raise NotEnough(f"lot {lot['code']} has {lot['remaining']} {lot['unit']} left, {wanted} were asked for")
