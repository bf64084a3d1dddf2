"""TILES works around a bug in gcc before 12.4 and 13.3: its `_tile_loadconfig` says it reads 8 of 64 bytes.

So the stores of the tile sizes are dropped, and on a processor with AMX llama-server dies of SIGILL at its first
matrix, or computes with whatever sizes are in memory (upstream's pull request 26954).
"""

from launcher.build.patches.patch import Edit, Patch

TILES = Patch(
    mark='"m"(tc)',
    edits=(
        Edit(
            path="ggml/src/ggml-cpu/amx/mmq.cpp",
            text="    _tile_loadconfig(&tc);\n",
            before='    __asm__ volatile("" : : "m"(tc)); // else gcc 12.2 drops the stores to tc\n',
        ),
    ),
)
