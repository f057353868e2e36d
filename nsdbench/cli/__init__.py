"""The ``nsdbench`` command. Verb modules import only typer and the standard library at the top."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

from nsdbench import __version__
from nsdbench.cli import (
    cancel,
    catalogue,
    check,
    doctor,
    inspect,
    oracle,
    pretrain,
    report,
    run,
    score,
    status,
    weights,
)
from nsdbench.cli import compare as comparison
from nsdbench.cli import data as datasets
from nsdbench.cli.output import LOG, explain, fail, say

INTERRUPTED = 130
CLOSED_PIPE = 141  # as a shell reports SIGPIPE; never 0, which would turn a failed check into a passed one

app = typer.Typer(
    name="nsdbench",
    help="Benchmark fMRI-to-image decoders on seen (NSD) and imagined (NSD-Imagery) images.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: nsdbench run --model ridge,mean_image,random_image --split both",
)


def _version(show: bool) -> None:
    if show:
        print(f"nsdbench {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Benchmark fMRI-to-image decoders on seen (NSD) and imagined (NSD-Imagery) images."""


run.register(app)
status.register(app)
cancel.register(app)
pretrain.register(app)
score.register(app)
comparison.register(app)
check.register(app)
report.register(app)
catalogue.register(app)
doctor.register(app)
oracle.register(app)
inspect.register(app)
app.add_typer(datasets.app, name="data")
app.add_typer(weights.app, name="weights")


def main() -> None:
    """Run the command line and exit: 0 ok, 1 failed check, 2 misuse or anything that went wrong, 130 interrupted.

    This is the one place where an exception becomes a message. Where ``--json`` was given, the message is JSON.
    """
    try:
        code = app(prog_name="nsdbench", standalone_mode=False) or 0
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient second Ctrl-C must not break the way out
        code = INTERRUPTED
    except (BrokenPipeError, SystemExit):  # `nsdbench compare | head`; typer turns a closed pipe into an exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = CLOSED_PIPE
    except Exception as error:  # noqa: BLE001 - shown as one sentence; -v shows where it came from
        LOG.debug("where it happened:", exc_info=error)
        kind, message, remedy = explain(error)
        if message:  # it is empty where typer has printed the help instead
            fail(kind, message, remedy, as_json="--json" in sys.argv)
        code = 2
    if code == INTERRUPTED:
        say("interrupted; everything finished so far is kept, and the same command continues from there")
    sys.exit(code)


__all__ = ["app", "main"]
