"""Many files: several at a time, each on its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from nsdbench.errors import NsdbenchError
from nsdbench.transfer.client import Client
from nsdbench.transfer.files import Fetched, Job, bring
from nsdbench.transfer.meter import SILENT, Meter
from nsdbench.transfer.room import disk_error
from nsdbench.transfer.workers import Lanes, for_each


def _nothing(job: Job, fetched: Fetched) -> None:
    pass


def fetch_all(
    client: Client,
    jobs: Sequence[Job],
    *,
    workers: int = 4,
    meter: Meter = SILENT,
    done: Callable[[Job, Fetched], None] = _nothing,
) -> list[tuple[Job, NsdbenchError]]:
    """Bring all files, over ``workers`` connections together; one that fails does not stop the others.

    Parameters
    ----------
    client : Client
    jobs : sequence of Job
        Large ones are begun first.
    workers : int
    meter : Meter
        Told about all known sizes at once.
    done : callable
        Called for each whole file as soon as it has its name, for one at a time.

    Returns
    -------
    list of (Job, NsdbenchError)
        What failed and why, in the order of ``jobs``.
    """
    meter.expect(sum(job.size for job in jobs))
    failed: dict[Job, NsdbenchError] = {}
    stop, one_at_a_time, lanes = threading.Event(), threading.Lock(), Lanes(workers)

    def one(job: Job) -> None:
        try:
            fetched = bring(client, job, meter, lanes, stop)
            with one_at_a_time:
                done(job, fetched)
        except NsdbenchError as error:
            failed[job] = error
        except OSError as error:  # of ``done``, which keeps a record
            failed[job] = disk_error(error, job.path)

    for_each(sorted(jobs, key=lambda job: -job.size), one, lanes.n, stop)
    return [(job, failed[job]) for job in jobs if job in failed]
