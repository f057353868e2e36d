"""A real Slurm on this machine, for tests: one node, two fake GPUs, no accounting, gone afterwards.

::

    with SlurmCluster() as slurm:       # 1 to 2 s
        slurm.run("sbatch", "--parsable", "--gres=gpu:1", "--wrap", "echo $CUDA_VISIBLE_DEVICES")
        slurm.env                       # os.environ with SLURM_CONF: for subprocess, or monkeypatch.setenv
        slurm.queue()                   # {"7_1": "RUNNING", ...}, what squeue knows
        slurm.wait_until_empty()

Two character devices stand in for the GPUs, and the node claims four CPUs and 8 GB whatever the machine has, so that two
jobs with a GPU and two without run at a time. As on some real sites ``sacct`` fails, and a job that has ended leaves
``squeue`` at once and ``scontrol`` after a few seconds. Requires root and Debian's package ``slurm-wlm``; neither systemd
nor munge runs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun")
SEARCHED = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
PREFIX = "nsdbench-slurm-"
GPUS = 2
CPUS = 4
MEMORY_MB = 8000

CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
SlurmctldPort={controller}
SlurmdPort={node}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,batch_sched_delay=0,bf_interval=2
DefMemPerCPU=500
KillWait=2
MinJobAge=5
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=gpu Nodes={host} Default=YES MaxTime=60 State=UP
"""


class SlurmUnavailable(RuntimeError):
    """No Slurm can run here; the message says why."""


def reason_to_skip() -> str:
    """Return why no Slurm can be started here; nothing if it is worth trying."""
    absent = [program for program in PROGRAMS if shutil.which(program, path=SEARCHED) is None]
    if absent:
        return f"Slurm is not installed ({', '.join(absent)} missing; Debian and Ubuntu: slurm-wlm)"
    if os.geteuid() != 0:
        return "a Slurm for tests needs root"
    return ""


class SlurmCluster:
    """A cluster of this machine alone; a context manager.

    Parameters
    ----------
    patience : float
        Seconds to wait for the node to become idle.

    Attributes
    ----------
    folder : Path
        Configuration, state and logs; deleted at the end.
    env : dict of str to str
        The environment in which Slurm's commands find this cluster.

    Raises
    ------
    SlurmUnavailable
        If it cannot be started.
    """

    def __init__(self, *, patience: float = 60) -> None:
        reason = reason_to_skip()
        if reason:
            raise SlurmUnavailable(reason)
        _bury_the_dead()
        # sockets in it have names of at most 108 bytes, which pytest's own folders can exceed
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
        (self.folder / "owner").write_text(str(os.getpid()))
        self.env = _environment(self.folder / "slurm.conf")
        self._daemons: list[subprocess.Popen[bytes]] = []
        try:
            self._configure()
            self._start(patience)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, *command: str) -> str:
        """Return what a command prints; a failure is an error with its complaint."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def queue(self) -> dict[str, str]:
        """Return the state of every job and array element that Slurm still lists."""
        lines = self.run("squeue", "-h", "-r", "-o", "%i|%T").splitlines()
        return dict(line.split("|", 1) for line in lines)

    def requeue(self, job: str) -> None:
        """Put a job back as a preemption does, but let it start again after two seconds rather than two minutes."""
        self.run("scontrol", "requeue", job)
        asked = ("squeue", "-h", "-r", "-j", job, "-o", "%T|%r")
        self.wait_until(lambda: self.run(*asked) == "PENDING|BeginTime")  # not before it has ended
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now+2")

    def wait_until(self, holds: Callable[[], bool], *, patience: float = 60) -> None:
        """Look every tenth of a second; an error shows the queue and the end of the logs."""
        end = time.monotonic() + patience
        while not holds():
            if time.monotonic() > end:
                raise TimeoutError(f"not within {patience} s; queue: {self.queue()}\n{self._logs()}")
            time.sleep(0.1)

    def wait_until_empty(self, *, patience: float = 60) -> None:
        """Wait for the end of all jobs."""
        self.wait_until(lambda: not self.queue(), patience=patience)

    def clear(self, *, patience: float = 20) -> None:
        """Cancel every job and wait until they are gone, so that the next test begins with an idle cluster."""
        self._cancel_all("TERM")
        end = time.monotonic() + patience / 2
        while self.queue() and time.monotonic() < end:
            time.sleep(0.1)
        if self.queue():
            self._cancel_all("KILL")
            self.wait_until_empty(patience=patience / 2)

    def close(self) -> None:
        """Cancel all jobs, end every process of the cluster and delete the folder. Can be called again."""
        if len(self._daemons) == 2 and all(daemon.poll() is None for daemon in self._daemons):
            self._cancel_all("KILL")
        for daemon in reversed(self._daemons):
            daemon.kill()
            daemon.wait()
        self._daemons = []
        _end(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _configure(self) -> None:
        host = socket.gethostname().partition(".")[0]
        controller, node = _free_ports(2)
        values = {"host": host, "folder": self.folder, "controller": controller, "node": node}
        sizes = {"cpus": CPUS, "memory": MEMORY_MB, "gpus": GPUS}
        (self.folder / "slurm.conf").write_text(CONF.format(**values, **sizes))
        (self.folder / "gres.conf").write_text(
            f"NodeName={host} Name=gpu File={self.folder}/gpu[0-{GPUS - 1}]\n"
        )
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        for index in range(GPUS):
            try:
                os.mknod(self.folder / f"gpu{index}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
            except PermissionError as error:
                raise SlurmUnavailable(f"fake GPUs cannot be made here: {error}") from error

    def _start(self, patience: float) -> None:
        for command in (["slurmctld", "-D", "-c"], ["slurmd", "-D"]):
            program = shutil.which(command[0], path=SEARCHED)
            assert program is not None
            with (self.folder / f"{command[0]}.out").open("wb") as output:
                self._daemons.append(
                    subprocess.Popen(
                        [program, *command[1:]],
                        env=self.env,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                    )
                )
        end = time.monotonic() + patience
        while not self._idle():
            if time.monotonic() > end or any(daemon.poll() is not None for daemon in self._daemons):
                raise SlurmUnavailable(f"Slurm does not start here:\n{self._logs()}")
            time.sleep(0.05)

    def _idle(self) -> bool:
        command = ["sinfo", "-h", "-o", "%t"]
        try:
            done = subprocess.run(
                command, env=self.env, capture_output=True, text=True, timeout=10, check=False
            )
        except subprocess.TimeoutExpired:
            return False
        return done.stdout.strip() == "idle"

    def _cancel_all(self, name: str) -> None:
        """Plain at first, as a user does; KILL does not wait for processes that ignore it."""
        command = ["scancel", "-u", "root"] if name == "TERM" else ["scancel", "-f", "-s", name, "-u", "root"]
        subprocess.run(command, env=self.env, capture_output=True, timeout=20, check=False)

    def _logs(self) -> str:
        parts = []
        for file in sorted(self.folder.glob("*.log")) + sorted(self.folder.glob("*.out")):
            parts += [f"--- {file.name}", *file.read_text(errors="replace").splitlines()[-12:]]
        return "\n".join(parts)


def _environment(conf: Path) -> dict[str, str]:
    """Return this environment without traces of another Slurm, such as the job in which tests may run."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
    return {**kept, "SLURM_CONF": str(conf), "PATH": SEARCHED}


def _free_ports(n: int) -> list[int]:
    """Return ports that nobody has at the moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _bury_the_dead() -> None:
    """End what is left of clusters whose tests were killed."""
    for folder in Path("/tmp").glob(f"{PREFIX}*"):
        try:
            owner = int((folder / "owner").read_text())
        except (OSError, ValueError):
            continue  # being made
        if not Path(f"/proc/{owner}").exists():
            _end(folder)
            shutil.rmtree(folder, ignore_errors=True)


def _end(folder: Path) -> None:
    """Kill the processes whose environment names the configuration in ``folder``: daemons, steps and jobs."""
    for _ in range(20):
        found = list(_processes(f"SLURM_CONF={folder}/slurm.conf"))
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _processes(setting: str) -> Iterable[int]:
    """Return the ids of other processes that were started with this variable."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            started_with = (entry / "environ").read_bytes().split(b"\0")
            dead = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            continue
        if setting.encode() in started_with and not dead:
            yield int(entry.name)
