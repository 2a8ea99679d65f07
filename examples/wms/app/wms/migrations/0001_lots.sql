-- A lot is a quantity of one product that is handled as one: received raw material or made from other lots.
CREATE TABLE lots (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind         text NOT NULL CHECK (kind IN ('raw', 'production')),
    -- RM-000001, PL-000002: what is printed on labels.
    code         text NOT NULL UNIQUE GENERATED ALWAYS AS (
                     CASE kind WHEN 'raw' THEN 'RM-' ELSE 'PL-' END
                     || lpad(id::text, greatest(6, length(id::text)), '0')) STORED,
    product      text NOT NULL,
    quantity     numeric(12, 3) NOT NULL CHECK (quantity > 0),
    unit         text NOT NULL,
    supplier     text,
    supplier_lot text,
    expires_on   date,
    created_at   timestamptz NOT NULL DEFAULT now(),
    CHECK ((kind = 'raw') = (supplier IS NOT NULL AND supplier_lot IS NOT NULL))
);

-- What went into which lot. Inputs are written together with their output and never change, so the graph has no cycle.
CREATE TABLE lot_inputs (
    output_id bigint NOT NULL REFERENCES lots,
    input_id  bigint NOT NULL REFERENCES lots,
    quantity  numeric(12, 3) NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (output_id, input_id),
    CHECK (input_id < output_id)
);
CREATE INDEX lot_inputs_by_input ON lot_inputs (input_id);

-- Decisions are only ever added; the latest one counts.
CREATE TABLE qc_decisions (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lot_id     bigint NOT NULL REFERENCES lots,
    decision   text NOT NULL CHECK (decision IN ('pass', 'hold', 'reject')),
    decided_by text NOT NULL,
    reason     text NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX qc_decisions_by_lot ON qc_decisions (lot_id, id DESC);

CREATE TABLE shipments (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code       text NOT NULL UNIQUE GENERATED ALWAYS AS (
                   'SH-' || lpad(id::text, greatest(6, length(id::text)), '0')) STORED,
    lot_id     bigint NOT NULL REFERENCES lots,
    customer   text NOT NULL,
    quantity   numeric(12, 3) NOT NULL CHECK (quantity > 0),
    shipped_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX shipments_by_lot ON shipments (lot_id);

-- A lot with the decision that counts and what is left of it.
CREATE VIEW lot_overview AS
SELECT lots.id, lots.code, lots.kind, lots.product, lots.quantity, lots.unit, lots.supplier, lots.supplier_lot,
       lots.expires_on, lots.created_at,
       latest.decision, latest.decided_by, latest.reason, latest.decided_at,
       lots.quantity - coalesce(used.quantity, 0) - coalesce(shipped.quantity, 0) AS remaining
FROM lots
LEFT JOIN LATERAL (
    SELECT decision, decided_by, reason, decided_at
    FROM qc_decisions WHERE lot_id = lots.id ORDER BY id DESC LIMIT 1
) AS latest ON true
LEFT JOIN LATERAL (SELECT sum(quantity) AS quantity FROM lot_inputs WHERE input_id = lots.id) AS used ON true
LEFT JOIN LATERAL (SELECT sum(quantity) AS quantity FROM shipments WHERE lot_id = lots.id) AS shipped ON true;
