"""Images are refused by name, with what to do, where they could not be served."""

from pathlib import Path

import pytest

from launcher.engine.argv import REQUIRED_FLAGS
from launcher.engine.discovery import Engine, Origin
from launcher.errors import ConfigError, EngineError
from launcher.images.requirements import FLAGS, check_images, engine_obstacle
from launcher.settings.config import Settings, load
from tests.support.engines.engine import found_engine


def engine(*flags: str) -> Engine:
    known = REQUIRED_FLAGS | set(flags)
    return Engine(argv=("llama-server",), version="1", flags=known, origin=Origin.PATH, env={})


def settings(**host: object) -> Settings:
    return load(None, {"models": {"images": True}, **host})


def test_an_engine_with_the_patch_takes_images() -> None:
    check_images(settings(), engine(*FLAGS))
    check_images(settings(max_input_tokens=779), engine(*FLAGS))
    check_images(load(None), engine())  # images are off


def test_a_stock_engine_is_refused_with_the_command_that_builds_one() -> None:
    with pytest.raises(EngineError, match=r"llama-server has no --pool-media, .*: run `trillama engine build`, or"):
        check_images(settings(), engine("--mmproj", "--image-min-tokens", "--image-max-tokens"))


async def test_the_embedded_engine_is_refused() -> None:
    assert "the embedded llama.cpp has no --pool-media" in str(engine_obstacle(await found_engine("embedded")))


def test_batches_that_are_too_small_for_an_image_are_refused() -> None:
    with pytest.raises(ConfigError, match="up to 779 tokens, and max_input_tokens = 778 bounds a batch"):
        check_images(settings(max_input_tokens=778), engine(*FLAGS))


def test_models_that_take_texts_only_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the made-up models take texts only"):
        check_images(settings(demo=True), engine(*FLAGS))
    with pytest.raises(ConfigError, match="bge-m3 takes texts only"):
        check_images(settings(family="bge-m3"), engine(*FLAGS))
