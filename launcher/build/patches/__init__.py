"""Our patches of llama.cpp's source: `patch` applies one; every other module is one."""
