"""Each check on real servers that are set up wrong; on a well one nothing but known limits is reported."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis as redis_py

from hybridq import AsyncQueue, AsyncWatch, Queue
from hybridq.connect import Connector
from hybridq.doctor import Finding, Level, Report, examine
from hybridq.doctor._access import commands_of_scripts, grant
from hybridq.errors import RedisUnavailable
from hybridq.keys import queue_root
from hybridq.testing import fake_connector
from tests.proxy import Proxy
from tests.servers import Cluster, SentinelSet, ServerProcess, free_port, wait_until

Examine = Callable[..., Report]
APPEARS_S = 10.0


@pytest.fixture
def config(redis: redis_py.Redis) -> Iterator[Callable[..., None]]:
    """Set configuration by keyword, `_` for `-`; what was there comes back after the test."""
    before: dict[str, str] = {}

    def change(**values: str) -> None:
        for name, value in values.items():
            parameter = name.replace("_", "-")
            before.setdefault(parameter, redis.config_get(parameter)[parameter])
            redis.config_set(parameter, value)

    yield change
    for parameter, value in before.items():
        redis.config_set(parameter, value)


def judge(url: str, **options: object) -> Report:
    return examine(Connector.parse(url), **options)  # type: ignore[arg-type]


def only(report: Report, check: str) -> Finding:
    [finding] = [finding for finding in report.findings if finding.check == check]
    return finding


def levels(report: Report) -> dict[str, Level]:
    return {finding.check: finding.level for finding in report.findings}


def test_a_well_server_is_fit(engine_name: str) -> None:
    with ServerProcess(engine_name, aof=True) as well:
        report = judge(well.url)
    assert report.fit
    known = {"security"} if engine_name == "redis" else set()
    assert {check for check, level in levels(report).items() if level is not Level.OK} <= known
    assert set(levels(report)) >= {
        "version", "security", "eviction", "persistence", "fsync", "writes", "memory",
        "replication", "clock", "latency", "access", "queues",
    }  # fmt: skip


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_policy_that_evicts_is_refused(redis_url: str, config: Callable[..., None], policy: str) -> None:
    config(maxmemory_policy=policy)
    report = judge(redis_url)
    finding = only(report, "eviction")
    assert finding.level is Level.REFUSE
    assert policy in finding.message
    assert "noeviction" in finding.advice
    assert not report.fit


def test_a_server_that_writes_nothing_to_disk_is_warned_of_and_in_production_refused(redis_url: str) -> None:
    assert only(judge(redis_url), "persistence").level is Level.WARN
    assert only(judge(redis_url, production=True), "persistence").level is Level.REFUSE


def test_snapshots_alone_are_warned_of_in_production_too(redis_url: str, config: Callable[..., None]) -> None:
    config(save="900 1")
    finding = only(judge(redis_url, production=True), "persistence")
    assert finding.level is Level.WARN
    assert "save 900 1" in finding.message


def test_an_append_only_file_that_is_never_synced_is_warned_of(redis_url: str, config: Callable[..., None]) -> None:
    config(appendonly="yes", appendfsync="no")
    assert only(judge(redis_url), "fsync").level is Level.WARN
    config(appendfsync="everysec")
    assert only(judge(redis_url), "fsync").level is Level.OK


def test_more_than_nine_tenths_of_maxmemory_in_use_is_warned_of(
    redis_url: str, redis: redis_py.Redis, config: Callable[..., None]
) -> None:
    used = redis.info("memory")["used_memory"]
    config(maxmemory=str(used + used // 20))
    assert only(judge(redis_url), "memory").level is Level.WARN
    config(maxmemory=str(10 * used))
    assert only(judge(redis_url), "memory").level is Level.OK


def test_replicas_that_writes_need_and_are_not_there_are_refused(redis_url: str, config: Callable[..., None]) -> None:
    config(min_replicas_to_write="1")
    assert only(judge(redis_url), "replication").level is Level.REFUSE


def test_a_replica_is_refused_and_a_primary_that_waits_for_none_warned_of(engine_name: str) -> None:
    with ServerProcess(engine_name, port=free_port()) as primary:
        arguments = ["--replicaof", "127.0.0.1", str(primary.port)]
        with ServerProcess(engine_name, port=free_port(), extra_args=arguments) as replica:
            with primary.client() as client:
                wait_until(lambda: client.info("replication")["connected_slaves"] == 1, APPEARS_S)
            of_replica, of_primary = judge(replica.url), judge(primary.url)
    assert only(of_replica, "replication").level is Level.REFUSE
    assert str(primary.port) in only(of_replica, "replication").advice
    assert only(of_primary, "replication").level is Level.WARN


def test_a_failed_snapshot_is_refused_where_it_stops_writes(engine_name: str, tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    with ServerProcess(engine_name, extra_args=["--dir", str(folder), "--save", "900 1"]) as server:
        shutil.rmtree(folder)
        with server.client() as client:
            client.bgsave()
            wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", APPEARS_S)
            assert only(judge(server.url), "writes").level is Level.REFUSE
            client.config_set("stop-writes-on-bgsave-error", "no")
            assert only(judge(server.url), "writes").level is Level.WARN


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_failed_write_to_the_append_only_file_is_refused(engine_name: str, tmp_path: Path) -> None:
    folder = tmp_path / "appendonlydir"
    folder.mkdir()
    (folder / "appendonly.aof.manifest").write_text("file appendonly.aof.1.incr.aof seq 1 type i\n")
    (folder / "appendonly.aof.1.incr.aof").symlink_to("/dev/full")
    arguments = ["--dir", str(tmp_path), "--appendfsync", "everysec"]
    with ServerProcess(engine_name, aof=True, extra_args=arguments) as server, server.client() as client:
        client.set("a", 1)
        wait_until(lambda: client.info("persistence")["aof_last_write_status"] == "err", APPEARS_S)
        finding = only(judge(server.url), "writes")
    assert finding.level is Level.REFUSE
    assert "full disk" in finding.advice


def test_a_cluster_with_a_slot_nobody_owns_is_refused(engine_name: str) -> None:
    with Cluster(engine_name) as cluster:
        well = judge(cluster.url)
        assert {finding.node for finding in well.findings} == {f"127.0.0.1:{server.port}" for server in cluster.servers}
        assert {finding.level for finding in well.findings if finding.check == "cluster"} == {Level.OK}
        with cluster.servers[2].client() as last:
            last.execute_command("CLUSTER", "DELSLOTS", 16383)
            wait_until(lambda: last.execute_command("CLUSTER INFO")["cluster_state"] == "fail", APPEARS_S)
        torn = judge(f"redis://127.0.0.1:{cluster.servers[2].port}")
    assert only(torn, "cluster").level is Level.REFUSE


def test_sentinels_lead_to_the_primary_they_name(engine_name: str) -> None:
    with SentinelSet(engine_name) as watched:
        report = judge(watched.url)
    assert report.fit
    assert only(report, "replication").message.startswith("1 replica(s), and writes wait for none")


@pytest.mark.parametrize(
    ("off_s", "words"), [(10.0, "10.0 s behind"), (-10.0, "10.0 s ahead"), (300.0, "plainly wrong")]
)
def test_clocks_apart_are_warned_of(redis_url: str, off_s: float, words: str) -> None:
    finding = only(judge(redis_url, now_s=lambda: time.time() + off_s), "clock")
    assert finding.level is Level.WARN
    assert words in finding.message


def test_a_slow_network_is_warned_of(redis_url: str) -> None:
    with Proxy(redis_url) as network:
        network.delay(0.02)
        assert only(judge(network.url), "latency").level is Level.WARN


def test_a_server_that_is_gone_is_an_error_without_credentials() -> None:
    with pytest.raises(RedisUnavailable) as raised:
        judge(f"redis://user:hunter2@127.0.0.1:{free_port()}")
    assert "hunter2" not in str(raised.value)


class TestAccess:
    """Users who may do less than a queue needs."""

    @pytest.fixture
    def user(self, redis: redis_py.Redis, redis_url: str) -> Iterator[Callable[[str], str]]:
        def make(rules: str) -> str:
            redis.execute_command("ACL", "SETUSER", "hq", "reset", "on", ">pw", *rules.split())
            return redis_url.replace("unix://", "unix://hq:pw@")

        yield make
        redis.execute_command("ACL", "DELUSER", "hq")

    def test_the_advised_rules_are_enough(self, user: Callable[[str], str]) -> None:
        assert only(judge(user(grant() + " +info +config|get +scan")), "access").level is Level.OK

    def test_a_queue_lives_on_the_advised_rules(self, user: Callable[[str], str], namespace: str) -> None:
        with Queue(redis=user(grant()), namespace=namespace) as queue:
            queue.enqueue("build", job_id="b1", max_attempts=1, unique="main", delay_s=0)
            [lease] = queue.claim(wait_s=1.0)
            queue.heartbeat([queue.start(lease)])
            queue.fail(lease)
            queue.dead.replay(["b1"])
            [lease] = queue.claim(start=True)
            queue.complete(lease)
            assert queue.claim(wait_s=0.05) == [], "the bell may be listened to"
            queue.upkeep()
            assert queue.stats().completed_total == 1
            assert [job.job_id for job in queue.jobs().items] == ["b1"]

    async def test_events_are_followed_on_the_advised_rules(self, user: Callable[[str], str], namespace: str) -> None:
        url = user(grant())
        async with AsyncQueue(redis=url, namespace=namespace) as queue, AsyncWatch(url) as watch:
            async with watch.follow(["default"], namespace=namespace, fleet=True) as events:
                await queue.enqueue("build")
                [event] = await events.take(wait_s=10)
                await queue.enqueue("build")
            async with watch.follow(["default"], namespace=namespace, after=event.id) as events:
                assert 1 == len(await events.take(wait_s=10))

    @pytest.mark.parametrize("command", commands_of_scripts())
    def test_one_command_less_is_refused(self, user: Callable[[str], str], command: str) -> None:
        finding = only(judge(user(f"{grant()} +info -{command.lower()}")), "access")
        assert finding.level is Level.REFUSE
        assert command in finding.message

    @pytest.mark.parametrize(
        ("rules", "denied"),
        [
            ("resetchannels", "PUBLISH to hq:{default/q/default}:bell"),
            ("resetkeys ~hq:{default/q/default}:job:*", "writing hq:{default/q/default}:meta"),
            ("resetkeys %R~hq:*", "writing hq:{default/q/default}:all"),
            ("-subscribe", "SUBSCRIBE"),
            ("-xread", "XREAD"),
            ("-xinfo|stream", "XINFO STREAM"),
        ],
    )
    def test_keys_channels_and_plain_commands_are_looked_at_too(
        self, user: Callable[[str], str], rules: str, denied: str
    ) -> None:
        finding = only(judge(user(f"{grant()} +info {rules}")), "access")
        assert finding.level is Level.REFUSE
        assert denied in finding.message

    @pytest.mark.parametrize("rule", ["-evalsha", "-script|load"])
    def test_a_user_who_may_not_run_scripts_is_refused(self, user: Callable[[str], str], rule: str) -> None:
        finding = only(judge(user(f"{grant()} +info {rule}")), "access")
        assert finding.level is Level.REFUSE
        assert "scripts cannot be run" in finding.message

    def test_facts_that_are_not_told_are_one_warning(self, user: Callable[[str], str]) -> None:
        report = judge(user(grant()))
        assert only(report, "facts").level is Level.WARN
        assert not {"version", "eviction", "memory"} & set(levels(report))
        half = judge(user(f"{grant()} +info"))
        assert "CONFIG GET" in only(half, "facts").message
        assert only(half, "eviction").level is Level.OK


@pytest.mark.breaks_keys
class TestQueues:
    """Records of other versions, and of the future."""

    def meta(self, redis: redis_py.Redis, namespace: str, **fields: object) -> None:
        now_ms = int(time.time() * 1000)
        redis.hset(f"{queue_root(namespace, 'q')}:meta", mapping={"schema": "1", "activity_ms": now_ms} | fields)

    def test_queues_of_this_version_are_well(self, redis: redis_py.Redis, redis_url: str, namespace: str) -> None:
        self.meta(redis, namespace)
        finding = only(judge(redis_url), "queues")
        assert finding.level is Level.OK
        assert finding.message.startswith("1 of 1 queue(s)")

    def test_a_foreign_schema_is_refused(self, redis: redis_py.Redis, redis_url: str, namespace: str) -> None:
        self.meta(redis, namespace, schema="2")
        bad, rest = (finding for finding in judge(redis_url).findings if finding.check == "queues")
        assert bad.level is Level.REFUSE
        assert f"{namespace}/q: schema 2" in bad.message
        assert rest.message.startswith("0 of 1")
        assert judge(redis_url, namespace="other").fit, "another namespace's queue is none of its business"

    def test_activity_in_the_future_is_refused(self, redis: redis_py.Redis, redis_url: str, namespace: str) -> None:
        self.meta(redis, namespace, activity_ms=int((time.time() + 3600) * 1000))
        bad = next(finding for finding in judge(redis_url).findings if finding.check == "queues")
        assert bad.level is Level.REFUSE
        assert "clock was set back" in bad.message

    def test_a_meta_of_another_type_is_refused(self, redis: redis_py.Redis, redis_url: str, namespace: str) -> None:
        redis.set(f"{queue_root(namespace, 'q')}:meta", "x")
        assert not judge(redis_url).fit

    def test_many_keys_are_scanned_to_the_end(self, redis: redis_py.Redis, redis_url: str, namespace: str) -> None:
        redis.mset({f"filler:{n}": n for n in range(10_000)})
        self.meta(redis, namespace, schema="9")
        assert not judge(redis_url).fit


def test_a_stand_in_that_tells_nothing_is_one_warning_and_not_refused() -> None:
    report = examine(fake_connector())
    assert report.fit
    assert [finding.check for finding in report.findings if finding.level is Level.WARN] == ["facts"]
    assert set(levels(report)) == {"facts", "clock", "latency", "queues"}


def test_the_doctor_writes_no_key(redis: redis_py.Redis, redis_url: str) -> None:
    judge(redis_url)
    assert redis.dbsize() == 0
