"""The dashboard *Money*: what accounts pay, what providers bill, who runs low, and what somebody should look at.

Strategy: what happens over time comes from Prometheus; what is exact comes from the ledger's public views. Amounts in
the views are decimal text, so they are cast. A day is a UTC day, as in the ledger, and counts whole.
"""

from typing import Final

from grafana.dashboard import CHOICES, Dashboard, ledger_choice, source
from grafana.panels import COUNT, EVENTS, MONEY, NEVER, SHARE, above, below, lines, rows, tile
from grafana.queries import MODEL, SQLITE, over_range, promql, rate, rise, share, sql

FORWARDED = 'provider!="none"'

CHARGED = "nexus_charge_total"
TOKENS = "nexus_tokens_total"
PROMPT, CACHED, CACHE_WRITE, COMPLETION, REASONING = (
    f'kind="{kind}"' for kind in ("prompt", "cached", "cache_write", "completion", "reasoning")
)

# The picker's range, in which $__from and $__to are milliseconds. Request ids begin with the instant and sort by it:
# they have an index, where times have none.
DAYS = "day BETWEEN date($__from / 1000, 'unixepoch') AND date($__to / 1000, 'unixepoch')"
RANGE = "request_id BETWEEN printf('req_%012x', $__from) AND printf('req_%012x', $__to)"
# The week before the picker's end, from which is told how long a balance lasts.
WEEK = "day BETWEEN date($__to / 1000 - 6 * 86400, 'unixepoch') AND date($__to / 1000, 'unixepoch')"
KEY = "iif(key_name = '', '…' || key_hint, key_name)"
MINE = "account IN (${account:sqlstring})"
EVERY_ACCOUNT = "SELECT account FROM balances"

LATEST: Final = f"""
SELECT opened_at, account, {KEY} AS key, model, provider, status, end_state, usage_source,
    prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens,
    CAST(charge AS REAL) AS charge, CAST(cost AS REAL) AS cost, cost_currency,
    first_byte_ms, duration_ms, CAST(overrun AS REAL) AS overrun, flags, request_id
FROM usage
"""
LATEST_UNITS: Final = {
    "first_byte_ms": "ms",
    "duration_ms": "ms",
    "status": "none",
} | {f"{kind}_tokens": COUNT for kind in ("prompt", "cached", "completion", "reasoning")}

NOW = (
    tile(
        "Charged, $currency",
        MONEY,
        "What accounts were charged in the chosen range, as Prometheus counted it; the ledger below is exact. Nothing "
        "charged while requests come means that all fail: see *Front door*.",
        over_range(f"sum({rise(CHARGED, MODEL)})"),
        decimals=4,
    ),
    tile(
        "Cost, by currency",
        MONEY,
        "What providers bill for it, in their own currency, by the prices that the door knows. Hold it against their "
        "invoices: if these say more, a price has changed (`nexus-proxy models --prices`).",
        over_range(f"sum by (currency) ({rise('nexus_cost_total', MODEL)})", "{{currency}}"),
        decimals=4,
    ),
    tile(
        "Cached",
        SHARE,
        "The share of the input that providers had in their cache, often at a tenth of the price. A fall means that "
        "prompts no longer begin alike: somebody put a time or an id at the top.",
        over_range(share(f"sum({rise(TOKENS, MODEL, CACHED)})", f"sum({rise(TOKENS, MODEL, PROMPT)})")),
    ),
    tile(
        "Estimated",
        SHARE,
        "The share of requests to providers whose usage never came, charged by an estimate. Above 1 %: see *Usage "
        "missing* for whose, and the requests to look at below.",
        over_range(
            share(f"sum({rise('nexus_usage_missing_total')})", f"sum({rise('nexus_requests_total', FORWARDED)})")
        ),
        steps=above(0.001, 0.01),
        decimals=2,
    ),
    tile(
        "Overrun",
        COUNT,
        "Requests in the chosen range that cost more than was held and than their account had. Must be 0: a model's "
        "bound or price in the configuration is wrong; the log names the request.",
        over_range(f"sum({rise('nexus_overrun_total')})"),
        steps=NEVER,
        decimals=0,
    ),
    tile(
        "Held, $currency",
        MONEY,
        "Money set aside for requests that are open now. It follows the open exchanges; if it stays while nothing is "
        "asked, see *Open holds* for how old they are.",
        sql("SELECT coalesce(sum(CAST(hold AS REAL)), 0.0) AS held FROM open_holds"),
        decimals=4,
    ),
    tile(
        "Accounts without money",
        COUNT,
        "Accounts that have used the door and have less than a cent left: most of their requests are refused (402). "
        "See *Balances that run low*.",
        sql(
            "SELECT count(*) AS accounts FROM balances "
            "WHERE CAST(available AS REAL) < 0.01 AND CAST(total_spent AS REAL) > 0"
        ),
        steps=above(1),
    ),
    tile(
        "Balances, $currency",
        MONEY,
        "What all accounts have paid in and not spent yet, debts apart. It is owed to them: keep as much with the "
        "providers, or be able to pay it in.",
        sql("SELECT coalesce(sum(max(CAST(balance AS REAL), 0.0)), 0.0) AS balance FROM balances"),
        decimals=4,
    ),
)

OVER_TIME = (
    lines(
        "Charged in an hour, by model, $currency",
        MONEY,
        "At which rate accounts are charged. A peak that nobody expected: see *Spend by key* below for whose it is.",
        promql(f"sum by (model) ({rate(CHARGED, MODEL)}) * 3600", "{{model}}"),
        stacked=True,
        rare=True,
    ),
    lines(
        "Cost in an hour, by model",
        MONEY,
        "At which rate providers bill us, each in its currency. If it nears what is charged, the mark-up or a price "
        "is wrong: see *Margin*.",
        promql(f"sum by (model, currency) ({rate('nexus_cost_total', MODEL)}) * 3600", "{{model}} {{currency}}"),
        rare=True,
    ),
    lines(
        "Tokens in a second, by kind",
        COUNT,
        "What is read and written. `reasoning` is output that nobody sees and everybody pays; much of it: let clients "
        "set reasoning_effort or a thinking_budget.",
        promql(
            f"sum({rate(TOKENS, MODEL, PROMPT)}) - sum({rate(TOKENS, MODEL, CACHED)}) "
            f"- sum({rate(TOKENS, MODEL, CACHE_WRITE)})",
            "fresh input",
        ),
        promql(f"sum({rate(TOKENS, MODEL, CACHED)})", "cached input"),
        promql(f"sum({rate(TOKENS, MODEL, CACHE_WRITE)})", "input written to the cache"),
        promql(f"sum({rate(TOKENS, MODEL, COMPLETION)}) - sum({rate(TOKENS, MODEL, REASONING)})", "output"),
        promql(f"sum({rate(TOKENS, MODEL, REASONING)})", "reasoning"),
        stacked=True,
    ),
    lines(
        "Cached share of the input, by model",
        SHARE,
        "Whose prompts repeat. A model that fell to 0 after a release of a client: its prompts no longer begin alike.",
        promql(
            f"sum by (model) ({rate(TOKENS, MODEL, CACHED)}) / (sum by (model) ({rate(TOKENS, MODEL, PROMPT)}) > 0)",
            "{{model}}",
        ),
    ),
    lines(
        "Usage missing, by provider",
        EVENTS,
        "Answers that were charged by an estimate. One provider, steadily: it no longer reports usage as its dialect "
        "says; check `ask_usage`. All, now and then: clients that leave.",
        promql(f"sum by (provider) ({rate('nexus_usage_missing_total')})", "{{provider}}"),
        stacked=True,
        rare=True,
    ),
    lines(
        "Usage flagged, by provider",
        EVENTS,
        "Reports that contradicted themselves and were put right. Steadily: the provider changed what it sends; the "
        "requests to look at below have the counts.",
        promql(f"sum by (provider) ({rate('nexus_usage_flagged_total')})", "{{provider}}"),
        stacked=True,
        rare=True,
    ),
)

DEPLOYMENT = (
    lines(
        "Spend by day, by model, $currency",
        MONEY,
        "What was charged on each UTC day that the range touches, each as a whole; the last one is not over. A day "
        "unlike the others: *Spend by account* and *Spend by key* say whose it was.",
        sql(
            f"""
SELECT max(CAST(strftime('%s', day) AS INTEGER), $__from / 1000) AS time, model, CAST(charge AS REAL) AS charge
FROM spend_by_model WHERE {DAYS} ORDER BY time
""",
            "time",
        ),
        bars=True,
        width=12,
    ),
    rows(
        "Margin, by model",
        MONEY,
        "What accounts paid beside what providers bill, on the days of the range. Where both are in one currency, "
        "margin is what remains; negative: the sale price is below cost.",
        sql(f"""
SELECT model, provider, sum(requests) AS requests, sum(CAST(charge AS REAL)) AS charge,
    sum(CAST(cost AS REAL)) AS cost, cost_currency,
    iif(cost_currency = '$currency', sum(CAST(charge AS REAL)) - sum(CAST(cost AS REAL)), NULL) AS margin
FROM margin_by_model WHERE {DAYS}
GROUP BY model, provider, cost_currency ORDER BY charge DESC LIMIT 100
"""),
        units={"requests": COUNT},
        steps={"margin": below(0)},
    ),
)

ACCOUNTS = (
    rows(
        "Spend by account, $currency",
        MONEY,
        "Who spends, on the days of the range. One that doubled: ask it, or look at its keys beside.",
        sql(f"""
SELECT account, sum(requests) AS requests, sum(prompt_tokens) AS prompt_tokens, sum(cached_tokens) AS cached_tokens,
    sum(completion_tokens) AS completion_tokens, sum(CAST(charge AS REAL)) AS charge
FROM spend_by_key WHERE {DAYS} AND {MINE}
GROUP BY account ORDER BY charge DESC LIMIT 100
"""),
        units=dict.fromkeys(("requests", "prompt_tokens", "cached_tokens", "completion_tokens"), COUNT),
    ),
    rows(
        "Spend by key, $currency",
        MONEY,
        "Which key it is. One that should not spend: `nexus-proxy key list ACCOUNT` has its id for `key revoke ID`.",
        sql(f"""
SELECT account, {KEY} AS key, sum(requests) AS requests, sum(CAST(charge AS REAL)) AS charge
FROM spend_by_key WHERE {DAYS} AND {MINE}
GROUP BY account, key_name, key_hint ORDER BY charge DESC LIMIT 100
"""),
        units={"requests": COUNT},
    ),
    rows(
        "Balances that run low, $currency",
        MONEY,
        "Accounts by how many days what they have, overdraft included, lasts at the pace of the last seven days of the "
        "range. Yellow: write to them. Red: less than a day. Those that did not spend come last.",
        sql(
            f"""
SELECT account, plan, CAST(available AS REAL) AS available, CAST(held AS REAL) AS held, a_day,
    max(CAST(available AS REAL), 0.0) / a_day AS days_left, last_updated
FROM balances LEFT JOIN (
    SELECT account, nullif(sum(CAST(charge AS REAL)), 0.0) / 7 AS a_day
    FROM spend_by_key WHERE {WEEK} AND {MINE} GROUP BY account
) USING (account)
WHERE {MINE} ORDER BY days_left IS NULL, days_left, available LIMIT 100
""",
            "last_updated",
        ),
        units={"days_left": "d"},
        steps={"days_left": below(1, 7)},
    ),
    rows(
        "Open holds, $currency",
        MONEY,
        "Requests that are open now, the oldest first. Older than an hour: no exchange may last so long; look for its "
        "request_id in the log.",
        sql(
            f"""
SELECT request_id, account, model, CAST(hold AS REAL) AS hold, opened_at, age_s
FROM open_holds WHERE {MINE} ORDER BY age_s DESC LIMIT 100
""",
            "opened_at",
        ),
        units={"age_s": "s"},
        steps={"age_s": above(600, 3600)},
    ),
)

REQUESTS = (
    rows(
        "Latest requests, $currency",
        MONEY,
        "The newest of the range. A client that asks about one gives its x-request-id, the last column. Nothing new "
        "here while requests are counted above: the ledger that is shown is not the door's, or an old copy.",
        sql(f"{LATEST}WHERE {RANGE} AND {MINE} ORDER BY request_id DESC LIMIT 100", "opened_at"),
        units=LATEST_UNITS,
        width=24,
    ),
    rows(
        "Requests to look at, $currency",
        MONEY,
        "The newest of the range that were estimated, recovered, cut, overrun or flagged; README explains each word. "
        "Empty is best; one provider again and again: something changed there.",
        sql(
            f"""{LATEST}
WHERE {RANGE} AND {MINE}
    AND (flags <> '' OR usage_source IN ('estimated', 'recovered', 'cumulative')
        OR end_state IN ('upstream_cut', 'timeout') OR CAST(overrun AS REAL) > 0)
ORDER BY request_id DESC LIMIT 100
""",
            "opened_at",
        ),
        units=LATEST_UNITS,
        width=24,
    ),
)

DASHBOARD = Dashboard(
    title="Money",
    uid="nexus-money",
    text="What accounts pay, what providers bill, who runs low, and what somebody should look at. Days are UTC days.",
    beside=(("Front door", "nexus-front-door"),),
    variables=(
        *CHOICES,
        source("ledger", "Ledger", SQLITE, "nexus-proxy ledger", "nexus-ledger"),
        ledger_choice(
            "account", "Account", "SELECT account FROM balances ORDER BY account",
            "Accounts in the tables of accounts and requests.", every=EVERY_ACCOUNT,
        ),
        ledger_choice(
            "currency", "Currency", "SELECT currency FROM deployment",
            "Of all amounts that name none; it is the ledger's.", every=None,
        ),
    ),
    rows=(
        ("Now", NOW),
        ("Over time", OVER_TIME),
        ("The whole deployment, from the ledger", DEPLOYMENT),
        ("Accounts, from the ledger", ACCOUNTS),
        ("Requests, from the ledger", REQUESTS),
    ),
    since="now-7d",
    refresh="5m",
    timezone="utc",
)  # fmt: skip
