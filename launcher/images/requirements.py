"""What images require of engine and settings; refused by name before anything is downloaded or started."""

from launcher.engine.discovery import Engine
from launcher.errors import ConfigError, EngineError
from launcher.models.mmproj import mmproj_file
from launcher.settings.config import Settings
from proxy.contract.images import AROUND_IMAGE, IMAGE_TOKENS

LEAST_BATCH_TOKENS = IMAGE_TOKENS + AROUND_IMAGE  # the largest image must fit into one batch
FLAGS = ("--mmproj", "--image-min-tokens", "--image-max-tokens", "--pool-media")
BUILD_COMMAND = "trillama engine build"


def check_images(settings: Settings, engine: Engine) -> None:
    """Raises ConfigError or EngineError if images are on and cannot be served."""
    if not settings.host.models.images:
        return
    if settings.host.demo:
        raise ConfigError("images: the made-up models take texts only")
    mmproj_file(settings.family, settings.host.models)  # the family has one
    if obstacle := engine_obstacle(engine):
        raise EngineError(f"images: {obstacle}: run `{BUILD_COMMAND}`, or leave images out")
    check_length(settings)


def engine_obstacle(engine: Engine) -> str | None:
    """Why this engine cannot serve images; None if it can."""
    if lacking := [flag for flag in FLAGS if flag not in engine.flags]:
        return f"{engine.name} has no {lacking[-1]}, without which an image's vector is that of the text behind it"
    return None


def check_length(settings: Settings) -> None:
    """Raises ConfigError if images are on and the longest text is so short that an image does not fit a batch."""
    if settings.host.models.images and settings.max_input_tokens < LEAST_BATCH_TOKENS:
        raise ConfigError(
            f"images: an image has up to {LEAST_BATCH_TOKENS} tokens, and max_input_tokens = "
            f"{settings.max_input_tokens} bounds a batch: set at least {LEAST_BATCH_TOKENS}, or leave images out"
        )
