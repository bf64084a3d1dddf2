"""What trillama does on a GPU, measured by one command: `bench/gpu/run.sh PHASE…`. README.md says how to run it.

`phases` has a module per phase: its `run_…(machine, found)` measures, and writes each figure into `found` at once, so
that what was measured before a failure or the time limit is kept. No phase judges: `results.goals` has what the
figures must reach, and `python -m bench.gpu.results` writes the table. `scale` has the sizes, for a GPU and for the
rehearsal on a CPU (`--cpu`), which runs the same code on small models. `torch_side` is all that needs PyTorch, each
time as a process of its own; `twin` asks it.
"""
