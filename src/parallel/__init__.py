"""Run functions in other processes, and talk with them, as if they were tasks.

The layers, from the bottom up; imports point downwards only:

* `errors`: the exceptions.
* `_wire`: pure. Frames and messages as bytes, pickling, exceptions as bytes.
* `_endpoint`, `_table`, `_settings`, `_surroundings`: a socket, shared memory, what a host is told,
  what a process sees.
* `_connection`: frames over a socket, in a trio program.
* `_member`: this process's connection to its host's fork server.
* `_channel`, `_hub`, `_process`, `_cluster`, `placement`: what users hold.
* `_root`, `_api`, `_processes`: `init`; `run` and `spawn`; `processes`.
* `_host`: the programs that a host consists of: keeper, fork server, worker. Nobody imports them.
"""

from . import errors as errors
from ._api import run as run
from ._api import spawn as spawn
from ._channel import Channel as Channel
from ._channel import ChannelStatistics as ChannelStatistics
from ._cluster import Cluster as Cluster
from ._cluster import current_host as current_host
from ._cluster import hosts as hosts
from ._hub import Client as Client
from ._hub import Connected as Connected
from ._hub import Disconnected as Disconnected
from ._hub import Ended as Ended
from ._hub import Hub as Hub
from ._hub import HubStatistics as HubStatistics
from ._hub import Message as Message
from ._hub import open_hub as open_hub
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
from .placement import Host as Host
from .placement import Placement as Placement
from .placement import least_loaded as least_loaded
from .placement import random as random
from .placement import random_in as random_in
from .placement import round_robin as round_robin

__version__ = "0.1.0"
