"""`/metrics`: what is counted, under which names, for whom."""

from __future__ import annotations

import http.client
import re
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from hybridq import Queue
from tests.api.client import Api, problem
from tests.servers import ServerProcess, wait_until

from .serving import Serving

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def series_of(text: str) -> Series:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(api: Api, token: str = "admin") -> Series:
    answer = api.get("/metrics", token=token)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return series_of(answer.text)


def one(series: Series, name: str, **labels: str) -> float:
    return series[name, frozenset(labels.items())]


def names_in(series: Series, name: str, label: str) -> set[str]:
    return {dict(labels)[label] for found, labels in series if found == name}


def test_queues_and_agents_are_told_as_they_are_now(api: Api, redis_url: str, namespace: str) -> None:
    with Queue("builds", redis=redis_url, namespace=namespace) as queue:
        for n in range(5):
            queue.enqueue("build", job_id=f"b{n}", max_attempts=1)
        good, bad, _held = queue.claim(3, start=True)
        queue.complete(good)
        queue.fail(bad, "broke")
        queue.cancel("b4")
        api.agent("agent-1", pool="builds")
        series = scrape(api)

        assert one(series, "hybridq_queue_depth", pool="builds", status="QUEUED") == 1
        assert one(series, "hybridq_queue_depth", pool="builds", status="RUNNING") == 1
        assert one(series, "hybridq_queue_depth", pool="builds", status="DEAD_LETTERED") == 1
        assert one(series, "hybridq_queue_failure_rate", pool="builds") == 0.5
        assert one(series, "hybridq_queue_wait_seconds", pool="builds", stat="p95") >= 0
        assert one(series, "hybridq_queue_wait_seconds", pool="builds", stat="avg") >= 0
        assert one(series, "hybridq_agents", status="HEALTHY") == 1
        for outcome, count in (("completed", 1), ("dead_lettered", 1), ("cancelled", 1), ("failed", 0)):
            assert one(series, "hybridq_jobs_total", pool="builds", outcome=outcome) == count
        assert one(series, "hybridq_claims_parked") == 0
        assert one(series, "hybridq_redis_up") == 1


def test_deployments_are_declared_and_not_invented(api: Api) -> None:
    text = api.get("/metrics").text

    assert "# TYPE hybridq_deployments gauge" in text
    assert "hybridq_deployments{" not in text


def test_a_key_sees_its_namespace_and_its_pools(api: Api, redis_url: str, namespace: str) -> None:
    for pool in ("a", "b"):
        with Queue(pool, redis=redis_url, namespace=namespace) as queue:
            queue.enqueue("x")
    with Queue("c", redis=redis_url, namespace="elsewhere") as queue:
        queue.enqueue("x")
    api.agent("agent-1", pool="b")

    assert names_in(scrape(api), "hybridq_queue_depth", "pool") == {"a", "b"}
    narrow = scrape(api, api.key("metrics:read", pools=["a"]))
    assert names_in(narrow, "hybridq_queue_depth", "pool") == {"a"}
    assert names_in(narrow, "hybridq_agents", "status") == set()
    other = scrape(api, api.key("metrics:read", namespace="elsewhere"))
    assert names_in(other, "hybridq_queue_depth", "pool") == {"c"}


def test_the_scope_is_asked_for(api: Api) -> None:
    problem(api.get("/metrics", token=None), 401, "unauthenticated")
    assert problem(api.get("/metrics", token=api.key("queue:read")), 403, "missing_scope")["scope"] == "metrics:read"


def test_requests_are_counted_by_template_so_that_no_id_makes_a_series(api: Api) -> None:
    for n in range(20):
        assert api.get(f"/api/queue/jobs/builds~job-{n}").status_code == 404
        assert api.get(f"/nowhere/{n}", token=None).status_code == 404
    connection = http.client.HTTPConnection(urlsplit(api.url).netloc, timeout=20)
    for n in range(5):
        connection.request(f"VERB{n}", "/health")
        connection.getresponse().read()
    connection.close()
    series = scrape(api)

    assert one(series, "hybridq_http_requests_total", method="GET", route="/api/queue/jobs/{id}", status="404") == 20
    assert one(series, "hybridq_http_requests_total", method="GET", route="-", status="404") == 20
    routes = names_in(series, "hybridq_http_requests_total", "route")
    assert not any(re.search(r"\d", route) for route in routes)
    assert {method for method in names_in(series, "hybridq_http_requests_total", "method")} <= {"GET", "POST", "-"}
    count = one(series, "hybridq_http_request_duration_seconds_count", method="GET", route="/api/queue/jobs/{id}")
    assert count == 20


def test_a_scrape_goes_on_while_redis_is_away(redis_url: str, server: ServerProcess) -> None:
    """On its own port, where nobody has to be looked up."""
    environ = {"HYBRIDQ_REDIS_URL": redis_url, "HYBRIDQ_METRICS_PORT": "0"}
    with Queue(redis=redis_url) as queue:
        queue.enqueue("x")
    with Serving(environ=environ) as serving:
        url = serving.said["metrics_url"]
        up = series_of(serving.ask("/metrics", url=url).body.decode())
        assert (one(up, "hybridq_redis_up"), names_in(up, "hybridq_queue_depth", "pool")) == (1, {"default"})
        assert serving.ask("/health", url=url).status == 404
        server.kill()

        def away() -> bool:
            found = series_of(serving.ask("/metrics", url=url).body.decode())
            return one(found, "hybridq_redis_up") == 0 and names_in(found, "hybridq_queue_depth", "pool") == set()

        wait_until(away, 15, what="the scrape says that Redis is away")


def test_many_scrapes_at_once_read_once(api: Api, server: ServerProcess, redis_url: str, namespace: str) -> None:
    for n in range(30):
        with Queue(f"pool-{n}", redis=redis_url, namespace=namespace) as queue:
            queue.enqueue("x")
    token = api.key("metrics:read")

    def scripts_run() -> int:
        with server.client() as client:
            return int(client.info("commandstats")["cmdstat_evalsha"]["calls"])

    assert len(names_in(scrape(api, token), "hybridq_queue_depth", "pool")) == 30
    before = scripts_run()
    with ThreadPoolExecutor(20) as many:
        found = list(many.map(lambda _: scrape(api, token), range(20)))

    assert all(len(names_in(series, "hybridq_queue_depth", "pool")) == 30 for series in found)
    # Each by itself would be 20 * 30 and more; who asks is looked up each time.
    assert scripts_run() - before < 200


def test_openmetrics_is_spoken_to_those_who_ask(api: Api) -> None:
    answer = api.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})

    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
    assert "# TYPE hybridq_jobs counter" in answer.text
