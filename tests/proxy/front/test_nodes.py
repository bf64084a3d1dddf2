"""Which nodes a Front uses: of its list those that are up, serve the backend, and have the others' vector space."""

import asyncio

import pytest

from proxy.errors import BackendUnavailable
from proxy.types import EmbedRequest, ImageSource
from tests.proxy.front.test_front import TEXTS, check, sent
from tests.support.nodes.scripted_node import fronted, scripted_nodes, until


async def test_a_node_of_another_space_is_not_used_and_says_why() -> None:
    async with scripted_nodes("a", "b") as nodes, fronted({"a": nodes["a"]}) as service:
        nodes["b"].stub.quantization = "Q4_K_M"
        service.nodes.replace({name: node.url for name, node in nodes.items()})
        await until(lambda: "other" in service.nodes.states()["b"])
        a, b = (nodes[name].stub.space("retrieval") for name in "ab")
        wanted = f"other vector space: retrieval {b} (Q4_K_M), the cluster serves {a} (Q8_0)"
        assert service.nodes.states()["b"] == wanted
        check(await service.embed(EmbedRequest(inputs=TEXTS)), TEXTS)
        assert not nodes["b"].pieces


async def test_a_node_whose_space_changes_while_it_serves_gives_no_row() -> None:
    async with scripted_nodes("a", "b") as nodes, fronted(nodes) as service:
        check(await service.embed(EmbedRequest(inputs=TEXTS)), TEXTS)
        nodes["b"].stub.quantization = "Q4_K_M"  # before any probe has seen it
        result = await service.embed(EmbedRequest(inputs=TEXTS))
        assert result.provenance.quantization == "Q8_0"
        await until(lambda: "other" in service.nodes.states()["b"])


async def test_without_a_node_requests_wait_and_then_learn_why() -> None:
    async with scripted_nodes("a") as nodes, fronted({}, recovery_s=0.1) as service:
        waiting = asyncio.create_task(service.embed(EmbedRequest(inputs=["hello"])))
        await until(lambda: service.nodes.load().waiting_requests == 1)
        service.nodes.replace({"a": nodes["a"].url})
        check(await waiting, ["hello"])
        service.nodes.replace({})
        with pytest.raises(BackendUnavailable, match="no node serves text-matching: there are none"):
            await service.embed(EmbedRequest(inputs=["hello"]))


async def test_a_node_with_one_backend_down_serves_the_others() -> None:
    async with scripted_nodes("a") as nodes:
        nodes["a"].backends = {"retrieval": "ready", "code": "it crashed", "text-matching": "ready"}
        async with fronted(nodes, start_wait_s=0.1, recovery_s=0.1) as service:
            check(await service.embed(EmbedRequest(inputs=["hello"])), ["hello"])
            with pytest.raises(BackendUnavailable, match="no node serves code: node a: it crashed"):
                await service.embed(EmbedRequest(inputs=["hello"], task="code"))


async def test_a_node_that_leaves_the_list_completes_its_pieces() -> None:
    async with scripted_nodes("a", "b", gpu_ms=200) as nodes, fronted({"a": nodes["a"]}) as service:
        slow = asyncio.create_task(service.embed(EmbedRequest(inputs=["hello"])))
        await until(lambda: sent(nodes["a"]) == 1)
        service.nodes.replace({"b": nodes["b"].url})
        assert service.nodes.reports()["a, leaving"].in_flight == 1
        check(await slow, ["hello"])
        assert not nodes["b"].pieces
        await until(lambda: set(service.nodes.reports()) == {"b"})


async def test_images_go_only_to_nodes_that_take_them() -> None:
    async with scripted_nodes("a", "b") as nodes:
        nodes["b"].stub.images = True
        async with fronted(nodes) as service:
            images = [ImageSource(f"image {number}") for number in range(20)]
            await service.embed(EmbedRequest(inputs=[*TEXTS, *images]))
        with_images = [name for name, node in nodes.items() if "image" in str(node.pieces)]
        assert with_images == ["b"]
        assert sent(nodes["a"])
