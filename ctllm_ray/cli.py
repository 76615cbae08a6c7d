"""`ctllm`: one verb per job, a recipe first, then `key=value` overrides.

Errors that a user can cause end in one message (what, where, remedy) and an exit code of their own; so do
Ctrl-C and SIGTERM, after which the same command goes on. Anything else is a fault of this program and keeps
its traceback.
"""

from __future__ import annotations

import os
import signal
import sys
from io import TextIOWrapper
from pathlib import Path

import typer

from ctllm_ray.base.errors import CtllmError
from ctllm_ray.verbs import cluster, corpus, evaluation, lineage, reports, serving, training

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM  # exit codes as a shell gives them

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Chinese-centric language models on Ray: from raw crawl to served model.",
    epilog="Exit codes: 2 recipe or command line, 3 input, 4 too many unreadable records, 5 storage, "
    "6 version conflict, 7 not found, 8 worker lost, 9 no cluster, 10 the loss diverged, 11 overloaded, "
    "12 the engine failed, 130 interrupted, 143 terminated.",
)

#: In the order of `ctllm --help`.
VERBS = (
    corpus.prepare,
    corpus.tokenizer,
    training.plan,
    training.train,
    training.sweep,
    training.export,
    evaluation.evaluate,
    evaluation.compare,
    evaluation.items,
    serving.serve,
    serving.demo,
    cluster.submit,
    training.batch,
    reports.report,
    lineage.lineage,
    corpus.why,
    corpus.replay,
)
for verb in VERBS:
    app.command()(verb)
app.add_typer(serving.keys, name="keys")


def run(arguments: list[str] | None = None) -> int:
    """Runs a command line; returns the exit code."""
    try:
        app(arguments, prog_name="ctllm")
        code = 0
    except CtllmError as error:
        sys.stderr.write(f"ctllm: {error}\n")
        code = error.exit_code
    except SystemExit as stop:
        code = int(stop.code or 0)
        code = TERMINATED if code == signal.SIGTERM else code  # what Ray makes of the signal while it starts
    if code in (INTERRUPTED, TERMINATED):
        sys.stderr.write(
            "\nctllm: stopped before the end\n  remedy: run the same command again: it goes on\n"
        )
    return code


def main(arguments: list[str] | None = None) -> None:
    """The console script: ends the process with the exit code."""
    sys.path.insert(0, str(Path.cwd()))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without Chinese must not end a command
    code = run(arguments)
    if code in (
        INTERRUPTED,
        TERMINATED,
    ):  # what libraries do at exit may wait for a thread that starts Ray: 30 s seen
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
