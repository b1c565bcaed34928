"""Run functions in other processes, and talk with them, as if they were tasks.

The layers, from the bottom up; imports point downwards only:

* `errors`: the exceptions.
* `_wire`: pure. Frames and messages as bytes, pickling, exceptions as bytes.
* `_endpoint`, `_table`, `_settings`, `_surroundings`: a socket, shared memory, what a host is told,
  what a process sees.
* `_sending`, `_connection`: frames over a socket, in a trio program.
* `_member`: this process's connection to its host's fork server.
* `_channel`, `_client`, `_listener`, `_hub`, `_process`, `placement`: what users hold.
* `_directory`: the hosts as every process knows them.
* `_api`, `_own_host`, `_root`, `_processes`: `run` and `spawn`; a host of one's own; `init`;
  `processes`.
* `abc`, `launch`: what a launcher is, and those that there are. `testing`: hosts for tests.
* `_bootstrap`, `_boot_script`, `_sources`, `_shipping`: from a shell on a host to its agent; what
  that is sent; what of the program's own modules goes with a call.
* `_pipes`, `_ends`, `_link`, `_output`, `_console`: sockets and streams that are joined; a link
  between two agents; what processes of other hosts print, and where it appears.
* `_service`, `_orders`, `_root_agent`, `_hosts`: a process of the package's own; what the root and
  its agent say to each other; the agent; the hosts of a cluster as the root has them.
* `_cluster`, `_cluster_file`: `Cluster`; one from a file.
* `failure`, `_pickled`, `farm`: an exception that travels as a value; values as bytes; many tasks
  on all slots of a cluster.
* `_showcase`, `_programs`: what the root's agent shows to `python -m parallel top`, and what that
  sees of the programs that run here.
* `_probe`, `_check`: what `python -m parallel check` runs on a host, and what it makes of it.
* `_host`: the programs that a host consists of: keeper, fork server, worker, and beyond the root's
  host an agent. Nobody imports them.

A name is loaded when it is first used: the keeper, which uses none, stays small, and so does a
program that imports this and runs nothing.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import errors as errors
    from . import farm as farm
    from ._api import run as run
    from ._api import spawn as spawn
    from ._channel import Channel as Channel
    from ._channel import ChannelStatistics as ChannelStatistics
    from ._client import Client as Client
    from ._cluster import Cluster as Cluster
    from ._directory import current_host as current_host
    from ._directory import hosts as hosts
    from ._hub import Hub as Hub
    from ._hub import HubStatistics as HubStatistics
    from ._hub import open_hub as open_hub
    from ._listener import Connected as Connected
    from ._listener import Disconnected as Disconnected
    from ._listener import Ended as Ended
    from ._listener import Message as Message
    from ._process import Ending as Ending
    from ._process import Process as Process
    from ._processes import ProcessInfo as ProcessInfo
    from ._processes import processes as processes
    from ._root import init as init
    from .errors import HostDied as HostDied
    from .errors import HostMismatch as HostMismatch
    from .errors import HostUnreachable as HostUnreachable
    from .errors import MessageTooLarge as MessageTooLarge
    from .errors import NotSendable as NotSendable
    from .errors import ParallelError as ParallelError
    from .errors import ProtocolError as ProtocolError
    from .errors import RemoteError as RemoteError
    from .errors import UnknownHost as UnknownHost
    from .errors import WorkerCancelled as WorkerCancelled
    from .errors import WorkerDied as WorkerDied
    from .failure import Failure as Failure
    from .farm.farm import Farm as Farm
    from .farm.farm import open_farm as open_farm
    from .placement import Host as Host
    from .placement import Placement as Placement
    from .placement import least_loaded as least_loaded
    from .placement import random as random
    from .placement import random_in as random_in
    from .placement import round_robin as round_robin

__version__ = "0.1.0"

_NAMES = {
    "_api": "run spawn",
    "_channel": "Channel ChannelStatistics",
    "_client": "Client",
    "_cluster": "Cluster",
    "_directory": "current_host hosts",
    "_hub": "Hub HubStatistics open_hub",
    "_listener": "Connected Disconnected Ended Message",
    "_process": "Ending Process",
    "_processes": "ProcessInfo processes",
    "_root": "init",
    "errors": "HostDied HostMismatch HostUnreachable MessageTooLarge NotSendable ParallelError "
    "ProtocolError RemoteError UnknownHost WorkerCancelled WorkerDied",
    "failure": "Failure",
    "farm.farm": "Farm open_farm",
    "placement": "Host Placement least_loaded random random_in round_robin",
}
_MODULES = ("errors", "farm")
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}


if not TYPE_CHECKING:  # a type checker shall still say that a name does not exist
    __all__ = sorted({*_HOMES, *_MODULES})  # noqa: PLE0605  # one list serves both

    def __getattr__(name: str) -> object:
        """Load a public name from the module that defines it."""
        if name in _MODULES:
            return import_module(f".{name}", __name__)
        if name not in _HOMES:
            text = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(text, name=name, obj=sys.modules[__name__])
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
