"""Programs of other projects, each in a virtual environment of its own below the cache folder."""

import asyncio
import sys
from pathlib import Path

from launcher.settings.folders import cache_dir

INSTALL_S = 600
# What to install, and the program that comes with it. This torch has a CPU-only build.
REQUIREMENTS = {
    "litellm": (("litellm[proxy]",), "litellm"),
    "infinity": (("torch==2.13.0", "infinity-emb[server,torch]"), "infinity_emb"),
}


async def virtual_environment(name: str) -> Path:
    """The program, installed on first use."""
    requirements, program = REQUIREMENTS[name]
    folder = cache_dir() / "bench" / name
    if not (folder / "installed").exists():
        for argv in (
            (sys.executable, "-m", "venv", "--clear", str(folder)),
            (str(folder / "bin" / "pip"), "install", "--quiet", *requirements),
        ):
            process = await asyncio.create_subprocess_exec(*argv)
            async with asyncio.timeout(INSTALL_S):
                assert await process.wait() == 0, f"{name} cannot be installed"
        (folder / "installed").touch()
    return folder / "bin" / program
