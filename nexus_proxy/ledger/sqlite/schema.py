"""The tables of a ledger file.

Strategy: what must never happen is refused by the database itself: by types (STRICT), by CHECK, by unique indexes and
by triggers. A request is two rows that are written once each, its hold and its settlement: a row at the end of a table
costs a third of one that is changed. Amounts are integers of nano-units, times are milliseconds since 1970-01-01 UTC,
days are days since then.
"""

# The operator's own accounts. Money enters from `funding` and ends in `revenue`; `overrun` pays what a charge exceeds
# its hold by and the account does not have; `adjustments` is the other side of corrections.
FUNDING, REVENUE, OVERRUN, ADJUSTMENTS = 1, 2, 3, 4
INTERNAL = {FUNDING: "funding", REVENUE: "revenue", OVERRUN: "overrun", ADJUSTMENTS: "adjustments"}

_KIND = """    -- not IN: SQLite makes a table of a list of more than two, for every row that it checks
    kind TEXT NOT NULL CHECK (kind = 'charge' OR kind = 'topup' OR kind = 'overrun' OR kind = 'correction'),"""
# How a file may say it that was begun before; it refuses the same.
_KIND_BEFORE = "    kind TEXT NOT NULL CHECK (kind IN ('topup', 'charge', 'overrun', 'correction')),"

TABLES = """
CREATE TABLE runs (
    run_id INTEGER PRIMARY KEY,
    pid INTEGER NOT NULL,
    started_ms INTEGER NOT NULL,
    alive_ms INTEGER NOT NULL,           -- when it last proved that it can commit
    settled_seq INTEGER NOT NULL DEFAULT 0   -- no hold up to this one is open; noted now and then
) STRICT;

CREATE TABLE deployment (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    currency TEXT NOT NULL               -- of every amount that names none
) STRICT;

CREATE TABLE plans (
    name TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    rpm INTEGER NOT NULL,
    rung INTEGER NOT NULL CHECK (rung IN (0, 1)),
    min_paid_nano INTEGER NOT NULL,
    min_spent_nano INTEGER NOT NULL
) STRICT;

CREATE TABLE accounts (
    account_id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    internal INTEGER NOT NULL DEFAULT 0 CHECK (internal IN (0, 1)),
    plan TEXT,                           -- assigned by hand; NULL: the ladder decides
    suspended INTEGER NOT NULL DEFAULT 0 CHECK (suspended IN (0, 1)),
    overdraft_nano INTEGER NOT NULL DEFAULT 0 CHECK (overdraft_nano >= 0),
    balance_nano INTEGER NOT NULL DEFAULT 0,
    held_nano INTEGER NOT NULL DEFAULT 0 CHECK (held_nano >= 0),
    paid_nano INTEGER NOT NULL DEFAULT 0,
    spent_nano INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL,
    last_entry_ms INTEGER,
    CHECK (internal OR balance_nano - held_nano >= -overdraft_nano)
) STRICT;

INSERT INTO accounts (account_id, name, internal, created_ms) VALUES
    (1, 'funding', 1, 0), (2, 'revenue', 1, 0), (3, 'overrun', 1, 0), (4, 'adjustments', 1, 0);

CREATE TABLE keys (
    key_id INTEGER PRIMARY KEY,
    account_id INTEGER NOT NULL REFERENCES accounts,
    name TEXT NOT NULL,
    key_hash BLOB NOT NULL UNIQUE CHECK (length(key_hash) = 32),
    hint TEXT NOT NULL,
    models TEXT,                         -- JSON array; NULL allows all
    rpm INTEGER CHECK (rpm > 0),
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    revoked_ms INTEGER
) STRICT;

CREATE TABLE price_versions (
    price_id TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    provider TEXT NOT NULL,
    cost_currency TEXT NOT NULL,
    tiers TEXT NOT NULL,                 -- JSON; pico-units per token, what the account pays
    cost_tiers TEXT NOT NULL,            -- JSON; pico-units of cost_currency per token, what the provider bills
    source TEXT NOT NULL,                -- JSON; the price as published, currency, fx, mark-up
    declared_ms INTEGER NOT NULL
) STRICT;

-- What opens a request. The token counts are its last progress while it is open, and mean nothing afterwards.
CREATE TABLE holds (
    seq INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL UNIQUE,
    run_id INTEGER NOT NULL REFERENCES runs,
    account_id INTEGER NOT NULL REFERENCES accounts,
    key_id INTEGER NOT NULL REFERENCES keys,
    model TEXT NOT NULL,
    provider TEXT NOT NULL,
    upstream_model TEXT NOT NULL,
    streamed INTEGER NOT NULL CHECK (streamed IN (0, 1)),
    price_id TEXT NOT NULL REFERENCES price_versions,
    hold_nano INTEGER NOT NULL CHECK (hold_nano >= 0),
    input_bound INTEGER NOT NULL,
    output_bound INTEGER NOT NULL,
    opened_ms INTEGER NOT NULL,
    prompt_tokens INTEGER,
    cached_tokens INTEGER,
    cache_write_tokens INTEGER,
    completion_tokens INTEGER,
    reasoning_tokens INTEGER
) STRICT;

-- What closes a request, once.
CREATE TABLE settlements (
    seq INTEGER PRIMARY KEY REFERENCES holds,
    state TEXT NOT NULL CHECK (state IN ('posted', 'voided')),
    prompt_tokens INTEGER,
    cached_tokens INTEGER,
    cache_write_tokens INTEGER,
    completion_tokens INTEGER,
    reasoning_tokens INTEGER,
    closed_ms INTEGER NOT NULL,
    status INTEGER,                      -- the HTTP status that the client got; NULL: nobody knows
    end_state TEXT NOT NULL,
    usage_source TEXT NOT NULL,
    charge_nano INTEGER NOT NULL CHECK (charge_nano >= 0),     -- what the account paid
    overrun_nano INTEGER NOT NULL CHECK (overrun_nano >= 0),   -- what it could not
    cost_nano INTEGER NOT NULL CHECK (cost_nano >= 0),         -- of the price's cost currency
    first_byte_ms INTEGER,
    duration_ms INTEGER,
    flags TEXT NOT NULL DEFAULT '',
    estimator INTEGER
) STRICT;

-- Money moving from the payer to the payee. `hash` is the SHA-256 of the previous entry's hash and this one's content:
-- a JSON array of the columns before it, with the request's id in the place of its seq.
CREATE TABLE entries (
    entry_id INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
KIND
    payer_id INTEGER NOT NULL REFERENCES accounts,
    payee_id INTEGER NOT NULL REFERENCES accounts CHECK (payee_id <> payer_id),
    amount_nano INTEGER NOT NULL CHECK (amount_nano > 0),
    seq INTEGER REFERENCES settlements,  -- of the request that is paid for
    external_id TEXT,
    corrects INTEGER REFERENCES entries,
    note TEXT NOT NULL DEFAULT '',
    hash TEXT NOT NULL CHECK (length(hash) = 64),
    CHECK ((kind IN ('charge', 'overrun')) = (seq IS NOT NULL)),
    CHECK ((kind = 'correction') = (corrects IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX entries_charge ON entries (seq) WHERE kind = 'charge';
CREATE UNIQUE INDEX entries_overrun ON entries (seq) WHERE kind = 'overrun';
CREATE UNIQUE INDEX entries_external ON entries (external_id) WHERE external_id IS NOT NULL;

-- Closed requests summed up by the UTC day on which they closed, kept by the transaction that closes them.
CREATE TABLE daily (
    day INTEGER NOT NULL,
    account_id INTEGER NOT NULL,
    key_id INTEGER NOT NULL,
    model TEXT NOT NULL,
    provider TEXT NOT NULL,
    cost_currency TEXT NOT NULL,
    requests INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    charge_nano INTEGER NOT NULL,
    cost_nano INTEGER NOT NULL,
    PRIMARY KEY (day, account_id, key_id, model, provider, cost_currency)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER entries_no_update BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END;
CREATE TRIGGER entries_no_delete BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END;
CREATE TRIGGER prices_no_update BEFORE UPDATE ON price_versions
    BEGIN SELECT RAISE(ABORT, 'price versions are never edited'); END;
CREATE TRIGGER prices_no_delete BEFORE DELETE ON price_versions
    BEGIN SELECT RAISE(ABORT, 'price versions are never edited'); END;
CREATE TRIGGER holds_no_update BEFORE UPDATE OF seq, request_id, run_id, account_id, key_id, model, provider,
    upstream_model, streamed, price_id, hold_nano, input_bound, output_bound, opened_ms ON holds
    BEGIN SELECT RAISE(ABORT, 'a hold is never edited'); END;
CREATE TRIGGER holds_no_progress BEFORE UPDATE ON holds WHEN EXISTS (SELECT 1 FROM settlements WHERE seq = OLD.seq)
    BEGIN SELECT RAISE(ABORT, 'a closed request makes no progress'); END;
CREATE TRIGGER holds_no_delete BEFORE DELETE ON holds
    BEGIN SELECT RAISE(ABORT, 'requests are never deleted'); END;
CREATE TRIGGER settlements_no_update BEFORE UPDATE ON settlements
    BEGIN SELECT RAISE(ABORT, 'a closed request is never edited'); END;
CREATE TRIGGER settlements_no_delete BEFORE DELETE ON settlements
    BEGIN SELECT RAISE(ABORT, 'requests are never deleted'); END;
""".replace("KIND", _KIND)


def as_made_before(sql: str) -> str:
    """Return what a file that an earlier program began has in place of a statement; mostly the same."""
    return sql.replace(_KIND, _KIND_BEFORE)
