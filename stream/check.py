"""Whether a ward could start here, found out without starting anything.

`config.load` has checked by then that the settings make sense; this is about the machine: ports,
folders, the device, the weights, the recordings. Each problem is one line with its mend.
"""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from stream import config
from stream.bridges import tools as bridges
from stream.config import Settings


def problems(settings: Settings, source_fault: Callable[[str], str]) -> list[str]:
    """All that would keep this ward from running on this machine.

    `source_fault`: what is wrong with a bed's source, empty where nothing is."""
    return [
        *taken(settings),
        *_folders(settings),
        *_model(settings),
        *_sources(settings, source_fault),
        *bridges.check(settings)[1],
    ]


def taken(settings: Settings) -> list[str]:
    """Addresses that a role could not bind now: another program has them, or they are not of this machine."""
    faults = (fault_of(setting, address) for setting, address in config.endpoints(settings).items())
    return [fault for fault in faults if fault]


def fault_of(setting: str, address: str) -> str:
    """Why an address could not be bound now, with the mend; empty where it could."""
    kind, _, rest = address.partition("://")
    if kind == "ipc":
        folder = Path(rest).parent
        if os.access(folder, os.W_OK):
            return ""
        return f"{setting}: {address}: the folder {folder} cannot be written to; give another path"
    host, _, port = rest.rpartition(":")
    host = host.strip("[]")
    try:
        # Not a ZeroMQ socket: its port would be free only some time after it was closed.
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("" if host == "*" else host, int(port)))
    except OSError as error:
        reason = error.strerror or str(error)
        mend = "stop what holds it, or set another port" if error.errno == errno.EADDRINUSE else "set another"
        return f"{setting}: {address} cannot be bound ({reason}); {mend}"
    return ""


def _folders(settings: Settings) -> Iterator[str]:
    folders = {f"shards.{name}.state_dir": Path(shard.state_dir) for name, shard in settings.shards.items()}
    folders["supervisor.state_dir"] = Path(settings.supervisor.state_dir)
    folders["gateway.journal"] = Path(settings.gateway.journal).parent
    for setting, folder in folders.items():
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            yield f"{setting}: {there} is not a folder that can be written to; give another path"


def _model(settings: Settings) -> Iterator[str]:
    import torch

    from model.judge import Judge, WeightsError

    device = settings.worker.device
    if device.startswith("cuda"):
        number = int(device.partition(":")[2] or 0)
        if number >= torch.cuda.device_count():
            yield f'worker.device = "{device}": torch finds {torch.cuda.device_count()} of these here; set it to "auto"'
    elif device == "mps" and not torch.backends.mps.is_available():
        yield 'worker.device = "mps": torch finds none here; set it to "auto"'
    try:
        Judge.load(settings.worker.weights, "cpu")
    except WeightsError as error:
        yield f"worker.weights: {error}"


def _sources(settings: Settings, source_fault: Callable[[str], str]) -> Iterator[str]:
    for name, bed in settings.beds.items():
        fault = source_fault(bed.source) if bed.source is not None else ""
        if fault:
            yield f"beds.{config.quoted(name)}.source: {fault}"
