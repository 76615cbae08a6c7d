"""Engines that a recipe can serve with, by the names of `serve.engine`.

A module has `open_engine(folder, serve)`, which returns an `Engine` that lives in the replica's process. An engine that
has a deployment of its own has `bind_engine(serve, folder, facts, options)` instead. `AUTO_PRECISION`, if there is one,
says what `serve.precision=auto` means to it; without it that is bf16 on a GPU and fp32 on a CPU.
"""
