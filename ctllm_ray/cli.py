"""The command line `ctllm`: one verb per job. A verb takes a recipe, then `key=value` overrides.

An error that a user can cause prints one message (what, where, remedy) and has its own exit code.
So do Ctrl-C and SIGTERM; the same command then resumes. Any other exception is a bug of this
program and keeps its traceback.
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

# exit codes as a shell gives them
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM

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
    """Runs a command line and returns its exit code."""
    try:
        app(arguments, prog_name="ctllm")
        code = 0
    except CtllmError as error:
        sys.stderr.write(f"ctllm: {error}\n")
        code = error.exit_code
    except SystemExit as stop:
        code = int(stop.code or 0)
        # Ray turns the signal into this exit code while it starts.
        code = TERMINATED if code == signal.SIGTERM else code
    if code in (INTERRUPTED, TERMINATED):
        sys.stderr.write(
            "\nctllm: interrupted\n  remedy: run the same command again; it resumes where it stopped\n"
        )
    return code


def main(arguments: list[str] | None = None) -> None:
    """The console script: runs the command line and ends the process with its exit code."""
    sys.path.insert(0, str(Path.cwd()))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A terminal that cannot print Chinese must not end a command.
            stream.reconfigure(errors="backslashreplace")
    code = run(arguments)
    if code in (INTERRUPTED, TERMINATED):
        # Exit handlers of libraries may wait up to 30 s for a thread that starts Ray.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
