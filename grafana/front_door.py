"""The dashboard *Front door*: is it up, what does it answer, how fast, and what holds it back?"""

from grafana.dashboard import CHOICES, Dashboard
from grafana.panels import BYTES, COUNT, EVENTS, NEVER, REQUESTS, SECONDS, SHARE, above, below, heat, lines, tile
from grafana.queries import MODEL, metric, over_range, promql, quantile, rate, rise, share
from nexus_proxy.observe.metrics import UPSTREAM

# A request failed, was refused, or its client left: by its code, for a stream that fails late has status 200.
FAILURES = f"{UPSTREAM}.*|internal_error|overloaded|shutting_down|ledger_unavailable"
FAILED = (MODEL, f'code=~"{FAILURES}"')
REFUSED = (MODEL, f'code!~"ok|client_gone|{FAILURES}"')
TAKEN = (MODEL, f'code=~"ok|{FAILURES}"')  # neither refused nor left

COUNTED = "nexus_requests_total"
FIRST_BYTE = "nexus_first_byte_seconds_bucket"
DURATION = "nexus_request_duration_seconds_bucket"
COMMIT = "nexus_ledger_commit_seconds_bucket"
BATCH = "nexus_ledger_batch_size_bucket"

ANSWERED = f"sum({rate(COUNTED, MODEL)})"

NOW = (
    tile(
        "Door",
        COUNT,
        "The worst of the chosen doors. DOWN: Prometheus cannot scrape it. Look whether the process lives "
        "(/healthz on the operators' listener), then at the last lines of its log.",
        promql(f"min({metric('up')})"),
        words={"1": ("UP", "green"), "0": ("DOWN", "red")},
        steps=below(1),
    ),
    tile(
        "Requests",
        REQUESTS,
        "Requests answered in a second, whatever the answer. A fall to 0 in busy hours means that clients do not "
        "reach the door: look at what stands in front of it.",
        promql(ANSWERED),
    ),
    tile(
        "Failed",
        SHARE,
        "The share of requests that were taken and then failed, through us or a provider, streams that broke off "
        "included. Above 1 %: see *Failures, "
        "by code* for what, and *Provider failures* for whose.",
        promql(share(f"sum({rate(COUNTED, *FAILED)})", f"sum({rate(COUNTED, *TAKEN)})")),
        steps=above(0.01, 0.05),
    ),
    tile(
        "Refused",
        SHARE,
        "The share that we refused: no key, no money, too fast, wrong parameters. High: see *Refusals, by code*; "
        "one client in a loop is the usual cause.",
        promql(share(f"sum({rate(COUNTED, *REFUSED)})", ANSWERED)),
        steps=above(0.1, 0.5),
    ),
    tile(
        "First byte, p95",
        SECONDS,
        "Nineteen of twenty answers began within this time. It is nearly all the provider's; if one model is slow, "
        "it is that provider, if all are, look at *Event loop* and *Ledger commit*.",
        promql(f"{quantile(0.95, FIRST_BYTE, MODEL)} >= 0"),  # without requests it is NaN
        steps=above(10, 60),
    ),
    tile(
        "Open exchanges",
        COUNT,
        "Calls to providers that are under way, each with money held. Rising while requests do not: a provider "
        "hangs; see the time to the first byte by model.",
        promql(f"sum({metric('nexus_holds_open')})"),
    ),
    tile(
        "Settled late",
        COUNT,
        "Answers in the chosen range that ended before their charge was on the disk. Not 0: the ledger's disk was "
        "slower than a second; see *Ledger commit*. No money is lost as long as the process lives.",
        over_range(f"sum({rise('nexus_settle_late_total')})"),
        steps=NEVER,
        decimals=0,
    ),
    tile(
        "Rate limited",
        COUNT,
        "Requests in the chosen range that our own limits refused (429). Many: a client does not wait as "
        "`retry-after` says, or its plan is too small for it.",
        over_range(f"sum({rise('nexus_rate_limited_total')})"),
        decimals=0,
    ),
)

ANSWERS = (
    lines(
        "Requests, by model",
        REQUESTS,
        "What is asked for. A model that vanishes was refused or is no longer served (`nexus-proxy models`); "
        "`other` is of requests that ended before a model was found.",
        promql(f"sum by (model) ({rate(COUNTED, MODEL)})", "{{model}}"),
        stacked=True,
    ),
    lines(
        "Failures, by code",
        REQUESTS,
        "What went wrong behind the door. `upstream_…` is the provider's; `ledger_unavailable` means that the file "
        "cannot be written (disk full, locked), `internal_error` is a fault of the door: its log has it.",
        promql(f"sum by (code) ({rate(COUNTED, *FAILED)})", "{{code}}"),
        stacked=True,
        rare=True,
    ),
    lines(
        "Refusals, by code",
        REQUESTS,
        "What clients did wrong. `invalid_api_key` in numbers: somebody tries keys, or one was revoked in use; "
        "`insufficient_balance`: see the accounts that run low on *Money*.",
        promql(f"sum by (code) ({rate(COUNTED, *REFUSED)})", "{{code}}"),
        stacked=True,
        rare=True,
    ),
    lines(
        "Provider failures",
        REQUESTS,
        "Whose failures they are. `upstream_no_funds`: pay in at that provider; `upstream_auth`: its secret is wrong "
        "or revoked; `upstream_rate_limited`: ask for more there; `upstream_model`: the model's `upstream` is wrong; "
        "`upstream_unreachable`: its `base_url`, or the network; the rest is theirs to mend.",
        promql(
            f"sum by (provider, code) ({rate('nexus_upstream_errors_total')})",
            "{{provider}} {{code}}",
        ),
        stacked=True,
        rare=True,
    ),
    lines(
        "Clients that left, by where the usage came from",
        REQUESTS,
        "Answers whose client hung up. `drained` was read to its usage and is exact; `estimated` was not: raise "
        "drain_s and drain_bytes of [server.limits] if that is often.",
        promql(f"sum by (result) ({rate('nexus_drains_total')})", "{{result}}"),
        stacked=True,
        rare=True,
    ),
    lines(
        "Exchanges and drains that are open",
        COUNT,
        "Calls to providers, and those of them whose client has left. Drains near `drains` of [server.limits] (256): "
        "whoever leaves then is charged an estimate.",
        promql(f"sum({metric('nexus_holds_open')})", "exchanges"),
        promql(f"sum({metric('nexus_drains_open')})", "drains"),
    ),
)

LATENCY = (
    lines(
        "Time to first byte",
        SECONDS,
        "How long clients wait until an answer begins. If p50 and p99 part, some providers or some prompts are "
        "slow: see the next panel and the heat map.",
        *(promql(quantile(q, FIRST_BYTE, MODEL), f"p{q * 100:.0f}") for q in (0.5, 0.95, 0.99)),
    ),
    lines(
        "Time to first byte, p95 by model",
        SECONDS,
        "Which model keeps clients waiting. One above the rest: that provider is slow; its own status page knows.",
        promql(quantile(0.95, FIRST_BYTE, MODEL, by="model"), "{{model}}"),
    ),
    lines(
        "Duration",
        SECONDS,
        "From when a request could be read to its settlement, the whole answer included: long answers are long. "
        "A p99 near the top means calls that hang until `first_byte_s`, `silence_s` or `exchange_s` of "
        "[server.timeouts] ends them.",
        *(promql(quantile(q, DURATION, MODEL), f"p{q * 100:.0f}") for q in (0.5, 0.95, 0.99)),
    ),
    heat(
        "Time to first byte, spread",
        SECONDS,
        "Each column is an interval, each row a span of waiting; dark is many. Two bands are two kinds of request or "
        "provider; a band that climbs is a provider that is filling up.",
        FIRST_BYTE,
        MODEL,
    ),
    heat(
        "Duration, spread",
        SECONDS,
        "The same for the whole answer. A dark row at the top are calls that only a time-out ends: see which model "
        "it is in the time to first byte, and lower `first_byte_s` or `silence_s` if they hold up clients.",
        DURATION,
        MODEL,
    ),
)

INSIDE = (
    lines(
        "Ledger commit",
        SECONDS,
        "Time of one durable transaction; every request waits for two. Above 50 ms the disk is slow or shared; "
        "above 1 s answers are settled late.",
        *(promql(quantile(q, COMMIT), f"p{q * 100:.0f}") for q in (0.5, 0.99)),
        steps=above(0.05, 1),
    ),
    lines(
        "Ledger batch",
        COUNT,
        "Operations in one transaction. It grows with the load, which is how the ledger keeps up; near 512, "
        "the most there is, it no longer does.",
        promql(quantile(0.5, BATCH), "p50"),
        promql(quantile(0.99, BATCH), "p99"),
        promql(
            f"sum({rate('nexus_ledger_batch_size_sum')}) / sum({rate('nexus_ledger_batch_size_count')})",
            "mean",
        ),
    ),
    lines(
        "Ledger trouble",
        EVENTS,
        "All 0 in a healthy door. `tried again`: another program locks the file, such as a shell that was left in a "
        "transaction; `given up`: the client had left, or had its 503, when its hold was committed after all, and the "
        "hold was voided; `settled late`: see above.",
        promql(f"sum({rate('nexus_ledger_busy_total')})", "tried again"),
        promql(f"sum({rate('nexus_holds_withdrawn_total')})", "given up"),
        promql(f"sum({rate('nexus_settle_late_total')})", "settled late"),
    ),
    lines(
        "Event loop",
        SECONDS,
        "How late the loop last was; everybody waits that long. Above 0.1 s the core is busy or the machine stalls: "
        "see *CPU*; the compiled form takes half.",
        promql(f"max by (instance) ({metric('nexus_event_loop_lag_seconds')})", "{{instance}}"),
        steps=above(0.1, 0.5),
        width=6,
    ),
    lines(
        "CPU",
        SHARE,
        "Of one core; the door is one process on one core. Near 100 %: it is full; see *What it costs* in the README.",
        promql(f"sum by (instance) ({rate('process_cpu_seconds_total')})", "{{instance}}"),
        steps=above(0.7, 0.9),
        width=6,
    ),
    lines(
        "Memory",
        BYTES,
        "Resident memory. It follows open streams and bodies and comes to rest; a slope without an end is a fault "
        "to report.",
        promql(f"sum by (instance) ({metric('process_resident_memory_bytes')})", "{{instance}}"),
        width=6,
    ),
    lines(
        "Open files",
        SHARE,
        "Open connections and files as a share of what the system allows. Near 100 % clients are turned away: raise "
        "the limit (`ulimit -n`, LimitNOFILE=).",
        promql(
            f"max by (instance) ({metric('process_open_fds')} / {metric('process_max_fds')})",
            "{{instance}}",
        ),
        steps=above(0.7, 0.9),
        width=6,
    ),
    tile(
        "Starts",
        COUNT,
        "How often a door was started in the chosen range, the first scrape not counted. More than you did: it "
        "ended by itself; exit code and log say why.",
        over_range(f"sum(changes({metric('process_start_time_seconds')}[$__range]))"),
        decimals=0,
        width=6,
    ),
    tile(
        "Holds recovered",
        COUNT,
        "Requests that were open when the door last died, and were ended at its start by what was journaled of them "
        "(`usage_source = 'recovered'`). Not 0: it was killed, or lost its power.",
        promql(f"sum({metric('nexus_recovered_holds_total')})"),
        steps=NEVER,
        decimals=0,
        width=6,
    ),
    tile(
        "Log lines dropped",
        COUNT,
        "Lines in the chosen range that could not be written in time. Not 0: whoever reads standard output is too "
        "slow or has stopped.",
        over_range(f"sum({rise('nexus_log_lines_dropped_total')})"),
        steps=NEVER,
        decimals=0,
        width=6,
    ),
    tile(
        "Commits",
        EVENTS,
        "Transactions of the ledger in a second. None while requests come: it cannot write, and /readyz says so.",
        promql(f"sum({rate('nexus_ledger_commit_seconds_count')})"),
        width=6,
    ),
)

DASHBOARD = Dashboard(
    title="Front door",
    uid="nexus-front-door",
    text="Is the door up, what does it answer, how fast, and what holds it back?",
    beside=(("Money", "nexus-money"),),
    variables=CHOICES,
    rows=(
        ("Now", NOW),
        ("Answers", ANSWERS),
        ("Latency", LATENCY),
        ("Ledger and process", INSIDE),
    ),
)
