"""Many tasks on all slots of a machine or cluster: `parallel.open_farm`.

The modules, from the bottom up; those marked * are pure:

* `results`*, `tasks`*, `messages`*, `instructions`*, `events`*: what is decided upon, and said.
* `roster`*, `backlog`*, `deadlines`*, `sharing`*: a worker as the plan sees it; what is with none;
  when one is killed; what is taken off it. `plan`*: which task goes where, after each event.
* `deployment`: where workers run. `surroundings`: what is around the tasks of one.
* `serving`: what runs the tasks in a process. `processes`: the default deployment.
* `batches`: seats without a process to talk with. `sequential`: in this process. `engine_side`:
  what runs the tasks in an executor. `executors`: Dask, MPI, loky and the like.
* `far_side`: what runs the tasks under another Python. `interpreters`: other Pythons.
* `commands`: a function that any program can be.
* `fingerprint`*, `journal`, `ledger`: results for a program that is killed.
* `stream`, `feed`: the tasks of one call; where they come from.
* `statistics`: what was done. `desk`, `engine`, `staff`: one worker; all of them and the plan; who
  is there.
* `derived`*: maps and folds from `compute`. `specification`: the farm as a few lines of loops.
* `audit`, `trace`, `progress`, `monitors`: what users see of it while it works.
* `mapping`, `computation`, `algorithm`: what calls give back. `maps`, `farm`: `Farm` and
  `open_farm`.
"""

from __future__ import annotations

from .algorithm import Algorithm as Algorithm
from .audit import Audit as Audit
from .commands import CommandFailed as CommandFailed
from .commands import command as command
from .computation import Computation as Computation
from .computation import Status as Status
from .deployment import Deployment as Deployment
from .deployment import Seat as Seat
from .deployment import WorkerLost as WorkerLost
from .events import WorkerJoined as WorkerJoined
from .events import WorkerLeft as WorkerLeft
from .executors import Executor as Executor
from .farm import Farm as Farm
from .farm import open_farm as open_farm
from .interpreters import Interpreters as Interpreters
from .journal import Journal as Journal
from .journal import JournalError as JournalError
from .journal import JournalMismatch as JournalMismatch
from .mapping import Results as Results
from .processes import Processes as Processes
from .results import Done as Done
from .results import NoWorkers as NoWorkers
from .results import TaskLost as TaskLost
from .results import TaskTimeout as TaskTimeout
from .results import TaskUnrunnable as TaskUnrunnable
from .sequential import Sequential as Sequential
from .statistics import FunctionStatistics as FunctionStatistics
from .statistics import Statistics as Statistics
from .statistics import WorkerStatistics as WorkerStatistics
from .surroundings import worker_state as worker_state
from .tasks import Kind as Kind
from .tasks import Policy as Policy
