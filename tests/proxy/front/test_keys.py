"""A Front with keys of its own, as a process before a node that is scripted."""

from tests.support.nodes.front import front
from tests.support.nodes.scripted_node import body, fronted, hangs, scripted_nodes
from tests.support.servers.stack import FAMILY_FILE, Stack, family_of

COUNT = "/v1/embeddings/count_tokens"


async def test_tokens_are_counted_with_the_clients_key_and_within_its_time() -> None:
    async with scripted_nodes("a") as nodes:
        node = nodes["a"]
        node.stub.family = family_of(FAMILY_FILE)
        node.always = body(b'{"input_tokens": 7}')
        async with front({"a": node.url}, api_keys=["first", "second"]) as running:
            server, key = Stack(url=running.url, models={}, engines={}), {"Authorization": "Bearer second"}
            counted = await server.post({"input": "hello"}, COUNT, **key)
            assert (counted.status, counted.json) == (200, {"input_tokens": 7})
            assert node.headers[-1]["Authorization"] == "Bearer second"
            node.always = hangs
            late = await server.post({"input": "hello"}, COUNT, **key, **{"X-Request-Timeout": "0.2"})
            assert late.status == 504


async def test_with_keys_readiness_names_no_node() -> None:
    async with scripted_nodes("secret") as nodes:
        nodes["secret"].backends = {"retrieval": "down"}
        async with fronted(nodes, api_keys=["key"]) as service:
            report = await service.readiness()
            assert (report.ready, report.nodes) == (False, {"ready": "0", "not ready": "1"})
            assert set(report.backends.values()) == {"no node serves it"}
        async with fronted(nodes) as service:
            assert set((await service.readiness()).nodes) == {"secret"}
