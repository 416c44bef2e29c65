"""The views that a person opens the ledger for: decimals, ISO 8601, names instead of ids. Their columns are public.

Strategy: `requests` puts the two rows of a request together, and the others stand on it. An amount is written as exact
decimal text with nine places, made from the integer. `spend_*` and `margin_by_model` stand on the daily roll-ups, so
that they never scan the requests.
"""

import re
from typing import Final

_SQL: Final = """
CREATE VIEW requests AS
SELECT h.seq, h.request_id, h.run_id, h.account_id, h.key_id, h.model, h.provider, h.upstream_model, h.streamed,
    h.price_id, h.hold_nano, h.input_bound, h.output_bound, h.opened_ms, coalesce(s.state, 'open') AS state,
    iif(s.seq IS NULL, h.prompt_tokens, s.prompt_tokens) AS prompt_tokens,
    iif(s.seq IS NULL, h.cached_tokens, s.cached_tokens) AS cached_tokens,
    iif(s.seq IS NULL, h.cache_write_tokens, s.cache_write_tokens) AS cache_write_tokens,
    iif(s.seq IS NULL, h.completion_tokens, s.completion_tokens) AS completion_tokens,
    iif(s.seq IS NULL, h.reasoning_tokens, s.reasoning_tokens) AS reasoning_tokens,
    s.closed_ms, s.status, s.end_state, s.usage_source, s.charge_nano, s.overrun_nano, s.cost_nano, s.first_byte_ms,
    s.duration_ms, coalesce(s.flags, '') AS flags, s.estimator
FROM holds h LEFT JOIN settlements s USING (seq);

CREATE VIEW "usage" AS
SELECT r.request_id, time(r.opened_ms) AS opened_at, time(r.closed_ms) AS closed_at, a.name AS account,
    k.name AS key_name, k.hint AS key_hint, r.model, r.provider, r.upstream_model, r.streamed, r.status, r.state,
    r.end_state, r.usage_source, r.prompt_tokens, r.cached_tokens, r.completion_tokens, r.reasoning_tokens,
    amount(r.hold_nano) AS hold, amount(r.charge_nano) AS charge, amount(r.cost_nano) AS cost,
    p.cost_currency, r.price_id, r.first_byte_ms, r.duration_ms, r.cache_write_tokens,
    amount(r.overrun_nano) AS overrun, r.flags, r.estimator
FROM requests r JOIN accounts a USING (account_id) JOIN keys k USING (key_id) JOIN price_versions p USING (price_id);

CREATE VIEW spend_by_day AS
SELECT date(day * 86400, 'unixepoch') AS day, sum(requests) AS requests, sum(prompt_tokens) AS prompt_tokens,
    sum(cached_tokens) AS cached_tokens, sum(completion_tokens) AS completion_tokens,
    sum(reasoning_tokens) AS reasoning_tokens, amount(sum(charge_nano)) AS charge
FROM daily d GROUP BY d.day;

CREATE VIEW spend_by_key AS
SELECT date(day * 86400, 'unixepoch') AS day, a.name AS account, k.name AS key_name, k.hint AS key_hint,
    sum(requests) AS requests, sum(prompt_tokens) AS prompt_tokens, sum(cached_tokens) AS cached_tokens,
    sum(completion_tokens) AS completion_tokens, sum(reasoning_tokens) AS reasoning_tokens,
    amount(sum(charge_nano)) AS charge
FROM daily d JOIN accounts a ON a.account_id = d.account_id JOIN keys k ON k.key_id = d.key_id
GROUP BY d.day, d.account_id, d.key_id;

CREATE VIEW spend_by_model AS
SELECT date(day * 86400, 'unixepoch') AS day, model, sum(requests) AS requests, sum(prompt_tokens) AS prompt_tokens,
    sum(cached_tokens) AS cached_tokens, sum(completion_tokens) AS completion_tokens,
    sum(reasoning_tokens) AS reasoning_tokens, amount(sum(charge_nano)) AS charge
FROM daily d GROUP BY d.day, d.model;

CREATE VIEW margin_by_model AS
SELECT date(day * 86400, 'unixepoch') AS day, model, provider, sum(requests) AS requests,
    amount(sum(charge_nano)) AS charge, amount(sum(cost_nano)) AS cost, cost_currency
FROM daily d GROUP BY d.day, d.model, d.provider, d.cost_currency;

CREATE VIEW balances AS
SELECT a.name AS account,
    coalesce(
        (SELECT p.name FROM plans p WHERE p.name = a.plan),
        (SELECT p.name FROM plans p
         WHERE p.rung AND a.paid_nano >= p.min_paid_nano AND a.spent_nano >= p.min_spent_nano
         ORDER BY p.min_spent_nano DESC, p.min_paid_nano DESC, p.position LIMIT 1)) AS plan,
    amount(a.balance_nano) AS balance, amount(a.held_nano) AS held,
    amount((a.balance_nano + a.overdraft_nano - a.held_nano)) AS available,
    amount(a.paid_nano) AS total_paid, amount(a.spent_nano) AS total_spent,
    time(coalesce(a.last_entry_ms, a.created_ms)) AS last_updated
FROM accounts a WHERE NOT a.internal;

CREATE VIEW open_holds AS
SELECT r.request_id, a.name AS account, r.model, amount(r.hold_nano) AS hold, time(r.opened_ms) AS opened_at,
    CAST(strftime('%s', 'now') AS INTEGER) - r.opened_ms / 1000 AS age_s
FROM requests r JOIN accounts a USING (account_id)
WHERE r.state = 'open' AND r.seq > (SELECT max(settled_seq) FROM runs);
"""

# What the words `amount(…) AS` and `time(…) AS` stand for in the text above.
_WORDS: Final = {
    "amount": "iif(X IS NULL, NULL, iif(X < 0, '-', '') || "
    "printf('%d.%09d', abs(X) / 1000000000, abs(X) % 1000000000))",
    "time": "strftime('%Y-%m-%dT%H:%M:%fZ', X / 1000.0, 'unixepoch')",
}


def _expand(sql: str) -> str:
    def spell(match: re.Match[str]) -> str:
        return _WORDS[match[1]].replace("X", match[2]) + " AS"

    return re.sub(r"\b(amount|time)\(((?:[^()]|\([^()]*\))*)\) AS", spell, sql)


VIEWS: Final = _expand(_SQL)
