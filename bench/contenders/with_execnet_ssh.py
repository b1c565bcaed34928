"""execnet over ssh: gateways by OpenSSH's client, which execnet tells to compress."""

import sys
import time
from collections.abc import Callable

import execnet

from bench import hosts, payload
from bench.clock import timed
from bench.contenders.with_execnet import COUNT, ECHO, count, ping
from bench.turns import Turns
from parallel.launch.ssh import Ssh

WEIGH = "for item in channel: channel.send(len(item))"

Open = Callable[[], execnet.Gateway]


def process(turns: Turns) -> None:
    """Execute a no-op in a gateway that stands."""
    reach(turns, lambda gateways: run_nothings(turns, gateways[0]()))


def process_connecting(turns: Turns) -> None:
    """Open a gateway, execute a no-op there, end it."""
    reach(turns, lambda gateways: connect_nothings(turns, gateways[0]))


def roundtrip(turns: Turns) -> None:
    """Send a small string and receive it back."""
    reach(turns, lambda gateways: ping(turns, gateways[0]().remote_exec(ECHO)))


def oneway(turns: Turns) -> None:
    """Send small strings; until the receiver's count comes back."""
    reach(turns, lambda gateways: count(turns, gateways[0]().remote_exec(COUNT)))


def array(turns: Turns) -> None:
    """Send an array's bytes; until their number comes back."""
    reach(turns, lambda gateways: send_arrays(turns, gateways[0]().remote_exec(WEIGH)))


def start(turns: Turns, number: str) -> None:
    """Open gateways, one after the other."""
    reach(turns, lambda gateways: open_all(turns, gateways), int(number))


def reach(turns: Turns, work: Callable[[list[Open]], None], number: int = 1) -> None:
    """Do what has to be done with gateways to so many hosts, none of which is open yet."""

    def work_with(launchers: list[Ssh], turns: Turns) -> None:
        del turns
        config = hosts.openssh_config(launchers)
        specs = [
            f"ssh={host.name}//ssh_config={config}//python={sys.executable}" for host in launchers
        ]
        group = execnet.Group()
        work([lambda spec=spec: group.makegateway(spec) for spec in specs])  # type: ignore[misc]
        group.terminate(timeout=5)

    if hosts.has_program(turns, "ssh"):
        hosts.reach(turns, work_with, number)


def run_nothings(turns: Turns, gateway: execnet.Gateway) -> None:
    """Time no-ops."""
    for operations in turns:
        turns.report(
            [timed(lambda: gateway.remote_exec("pass").waitclose()) for _ in range(operations)]
        )


def connect_nothings(turns: Turns, open_gateway: Open) -> None:
    """Time no-ops, from the start to the end of their gateways."""

    def run_nothing() -> None:
        gateway = open_gateway()
        gateway.remote_exec("pass").waitclose()
        gateway.exit()
        gateway.join()

    for operations in turns:
        turns.report([timed(run_nothing) for _ in range(operations)])


def send_arrays(turns: Turns, channel: execnet.Channel) -> None:
    """Time arrays."""
    sent = payload.array().tobytes()

    def send() -> None:
        channel.send(sent)
        assert channel.receive() == len(sent)

    for operations in turns:
        turns.report([timed(send) for _ in range(operations)])


def open_all(turns: Turns, openings: list[Open]) -> None:
    """Time the opening of gateways, and end them."""
    for operations in turns:
        costs = []
        for _ in range(operations):
            start = time.perf_counter()
            gateways = [open_gateway() for open_gateway in openings]
            costs.append(time.perf_counter() - start)
            for gateway in gateways:
                gateway.exit()
                gateway.join()
        turns.report(costs)
