"""The benchmark as a whole: it runs, it counts right, and it reports nothing that is not so. Never how fast."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import pytest

from tests.bench import __main__ as bench
from tests.bench import scenarios
from tests.bench.__main__ import SYSTEMS, Options, main, run
from tests.bench.door import Door
from tests.bench.load import Measured
from tests.bench.loaded import Size
from tests.bench.proxies import NGINX_BINARY
from tests.bench.rounds import Sample, measure
from tests.bench.scenarios import SCENARIOS, Figures, Scenario, Setting
from tests.bench.streams import Moment, Streamed
from tests.bench.systems import Direct, Place, System, Worthless
from tests.bench.test_load import hang_up

THERE = tuple(name for name in SYSTEMS if name != "nginx" or NGINX_BINARY is not None)
SHORT = Options(
    scenarios=("json-1", "json-half", "stream-burst", "stream-50", "memory", "prompt-beside"),
    systems=THERE,
    rounds=1,
    setting=Setting(seconds=0.1, open_streams=20, paced_streams=5),
    size=Size(accounts=20, keys=50, rows=300, asking=3),
)


async def test_every_system_is_measured_and_the_doors_are_proved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []
    prove = Door.prove

    async def prove_thrice(door: Door) -> str:
        for streamed in (False, True):
            door.served[streamed] += 1
            with pytest.raises(Worthless, match="the ledger has"):
                await prove(door)
            door.served[streamed] -= 1
            refused.append(door.name)
        return await prove(door)

    monkeypatch.setattr(Door, "prove", prove_thrice)
    samples, proofs = await run(SHORT, tmp_path, lambda _: None)
    assert refused == ["door", "door", "door-loaded", "door-loaded"]
    expected = [
        (scenario, system) for scenario in SHORT.scenarios for system in THERE if system in SCENARIOS[scenario].systems
    ]
    assert sorted((sample.scenario, sample.system) for sample in samples) == sorted(expected)
    assert [proof.partition(":")[0] for proof in proofs] == list(THERE)
    assert sum("ledger verify found nothing" in proof for proof in proofs) == 2
    for door, before in (("door", 0), ("door-loaded", SHORT.size.rows)):
        with closing(connect(tmp_path / door / "nexus.db")) as db:
            [asked] = db.execute("SELECT count(DISTINCT key_id) FROM requests WHERE seq > ?", [before]).fetchone()
        assert asked == SHORT.size.asking, door
    for sample in samples:
        assert all(value > 0 for name, value in sample.figures.items() if name.endswith("/s")), sample
        compared = "direct" in SCENARIOS[sample.scenario].systems or sample.scenario == "json-half"
        assert ("added p50 ms" in sample.figures) == (sample.system != "direct" and compared)


@pytest.mark.parametrize("scenario", ["json-1", "stream-burst", "stream-50", "prompt-beside"])
@pytest.mark.parametrize("answer", [b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", b""])
async def test_a_request_that_fails_makes_the_run_worthless(scenario: str, answer: bytes, tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        await hang_up(writer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        system = Direct(Place(tmp_path, server.sockets[0].getsockname()[1], 0))
        await system.start()
        with pytest.raises(Worthless, match=r"direct: (requests|streams) failed"):
            await SCENARIOS[scenario].run(system, Setting(seconds=0.1, paced_streams=2))
    assert not system.served


@pytest.mark.parametrize("measured", [True, False])
async def test_what_streams_cost_while_they_run_is_told_from_opening_and_ending_them(
    measured: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used_ns = 500_000
    wanted: list[int] = []

    async def streams(_port: int, _requests: object, events: int, *, meter: Callable[[], int], **_: object) -> Streamed:
        nonlocal used_ns
        wanted.append(events)
        came = Streamed(seconds=2.0, streams=2, first_byte_ns=[3_000_000, 5_000_000])
        came.came_ns, came.delays_ns = [1, 2, 3, 4, 5, 6], [9_000_000] * 2 + [1_000_000, 2_000_000] + [9_000_000] * 2
        used_ns += 50_000
        came.all_open = Moment(2, meter())
        used_ns += 40_000
        came.first_over = Moment(4, meter())
        used_ns += 70_000
        return came

    monkeypatch.setattr(scenarios, "open_streams", streams)
    monkeypatch.setattr(scenarios, "cpu_ns", lambda _: used_ns)
    system = Direct(Place(tmp_path, 9, 0))
    await system.start()
    system.pid = 1 if measured else None
    figures = await SCENARIOS["stream-50"].run(system, Setting(seconds=3.0))
    assert wanted == [200]  # one second in which they begin, three in which all of them run
    spent = {"running CPU µs/event": 20.0, "CPU µs/stream": 20.0, "CPU µs/event": 160 / 6, "core %": 160 / 2e4}
    times = {"running p50 ms": 1.0, "running p99 ms": 1.0, "first byte p50 ms": 3.0, "first byte p99 ms": 3.0}
    assert figures == times | {"p50 ms": 9.0, "p99 ms": 9.0} | (spent if measured else {})


async def test_a_time_that_was_not_found_of_both_is_not_compared(tmp_path: Path) -> None:
    class Other(Direct):
        name = "other"

    async def found(system: System, _: Setting) -> Figures:
        times = {"p50 ms": 1.0, "p99 ms": 5.0} if system.name == "direct" else {"p99 ms": 7.0, "running p50 ms": 3.0}
        return times

    place = Place(tmp_path, 9, 0)
    scenario = Scenario("made up", "", found, frozenset({"direct", "other"}))
    samples, _ = await measure([Direct(place), Other(place)], [scenario], Setting(), 1)
    assert {sample.system: sample.figures for sample in samples} == {
        "direct": {"p50 ms": 1.0, "p99 ms": 5.0},
        "other": {"p99 ms": 7.0, "running p50 ms": 3.0, "added p99 ms": 2.0},
    }


async def test_half_load_is_half_of_what_the_system_managed_and_told_beside_as_much_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used_ns = 500_000
    asked: list[tuple[int, float]] = []

    async def load(port: int, *_: object, connections: int, seconds: float, rate: float = 200.0) -> Measured:
        nonlocal used_ns
        used_ns += 1_000_000
        asked.append((port, rate))
        requests = round(rate * seconds)
        slow_ns = 9_000_000 if port == 10 else 2_000_000
        return Measured(seconds, [1_000_000] * (requests - 4) + [slow_ns] * 4)

    monkeypatch.setattr(scenarios, "closed_load", load)
    monkeypatch.setattr(scenarios, "open_load", load)
    monkeypatch.setattr(scenarios, "cpu_ns", lambda _: used_ns)
    system = Direct(Place(tmp_path, 9, 0))
    system.port, system.pid = 10, 1
    figures = await SCENARIOS["json-half"].run(system, Setting(seconds=2.0))
    assert asked == [(10, 200.0), (10, 100.0), (9, 100.0)]
    times = {"p50 ms": 1.0, "p99 ms": 9.0, "p99.9 ms": 9.0}
    added = {"added p50 ms": 0.0, "added p99 ms": 7.0, "added p99.9 ms": 7.0}
    assert figures == times | added | {"requests/s": 100.0, "CPU µs/request": 5.0, "core %": 0.05}
    assert system.served[False] == 400


async def test_a_log_that_lost_lines_makes_the_run_worthless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door(Place(tmp_path, 9, 0))

    async def metric(name: str) -> float:
        return float(name == "nexus_log_lines_dropped_total")

    monkeypatch.setattr(door.door, "metric", metric)
    with pytest.raises(Worthless, match="1 lines of the log"):
        await door._look()


Result = Callable[..., Awaitable[tuple[list[Sample], list[str]]]]


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Callable[[Result], None]:
    """Let the command run something else."""
    monkeypatch.setattr(bench, "raise_open_files", lambda: 20_000)
    return lambda result: monkeypatch.setattr(bench, "run", result)


def test_the_command_leaves_a_report(tmp_path: Path, running: Callable[[Result], None]) -> None:
    asked: list[Options] = []
    directories: list[Path] = []

    async def result(options: Options, directory: Path, _: object) -> tuple[list[Sample], list[str]]:
        asked.append(options)
        directories.append(directory)
        return [Sample("json-1", "door", 1, {"requests/s": 1234.0})], ["door: fine"]

    running(result)
    arguments = ["--scenario", "json-*", "start", "--system", "door", "--peer", "portkey", "--rounds", "2"]
    assert main([*arguments, "--rows", "7", "--out", str(tmp_path / "out")]) == 0
    assert asked[0].scenarios == ["json-1", "json-32", "json-256", "json-half", "start"]
    assert (asked[0].systems, asked[0].rounds, asked[0].size.rows) == (["door", "portkey"], 2, 7)
    text = (tmp_path / "out" / "report.txt").read_text("utf-8")
    assert not directories[0].exists()  # a temporary one
    assert "1,234" in text
    assert "door: fine" in text
    assert "1234" in (tmp_path / "out" / "rounds.csv").read_text("utf-8")


def test_the_command_reports_nothing_of_a_worthless_run(
    tmp_path: Path, running: Callable[[Result], None], capsys: pytest.CaptureFixture[str]
) -> None:
    async def result(*_: object) -> tuple[list[Sample], list[str]]:
        raise Worthless("door: requests failed")

    running(result)
    assert main(["--system", "door", "--out", str(tmp_path / "out")]) == 1
    assert "Nothing is reported: door: requests failed" in capsys.readouterr().out
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--scenario", "json-3"], "there is no scenario 'json-3'"),
        (["--system", "apache"], "invalid choice"),
        (["--rounds", "0"], "--rounds: at least 1, not 0"),
        (["--streams", "0"], "--streams: at least 1, not 0"),
        (["--rows", "-1"], "--rows: at least 0, not -1"),
        (["--seconds", "0"], "--seconds: above 0, not 0.0"),
        (["--seconds", "nan"], "--seconds: above 0"),
        (["--asking", "0"], "1 to 100,000 keys can ask, not 0"),
        (["--asking", "100001"], "1 to 100,000 keys can ask"),
        (["--streams", "10000"], "20000 open files are not enough for 10000 streams"),
    ],
)
def test_wrong_usage(
    arguments: Sequence[str], said: str, running: Callable[[Result], None], capsys: pytest.CaptureFixture[str]
) -> None:
    running(lambda *_: pytest.fail("it ran"))
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_nginx_is_not_pretended(
    tmp_path: Path,
    running: Callable[[Result], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(bench, "NGINX_BINARY", None)
    asked: list[Options] = []

    async def result(options: Options, *_: object) -> tuple[list[Sample], list[str]]:
        asked.append(options)
        return [Sample("json-1", "door", 1, {"requests/s": 1.0})], []

    running(result)
    assert main(["--out", str(tmp_path)]) == 0
    assert "nginx" not in asked[0].systems
    assert "nginx is not installed" in (tmp_path / "report.txt").read_text("utf-8")
    with pytest.raises(SystemExit):
        main(["--system", "nginx", "--out", str(tmp_path)])
    assert "nginx is not installed" in capsys.readouterr().err
