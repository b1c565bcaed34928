"""`errors`: each says what happened, as text and as fields, here and in any other process."""

from __future__ import annotations

import copy
import pickle
import signal
import traceback
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest

import parallel
from parallel import errors
from parallel._wire.codec import pack, unpack
from parallel._wire.failure import decode_failure, encode_failure

EXAMPLES: list[tuple[parallel.ParallelError, str]] = [
    (parallel.ParallelError("a plain misuse"), "a plain misuse"),
    (
        parallel.UnknownHost("host7", ("root", "host0")),
        "there is no host 'host7'; the known ones are root, host0",
    ),
    (
        parallel.HostUnreachable("host0", "no route"),
        "host 'host0' could not be started: no route",
    ),
    (
        parallel.HostMismatch("host0", "Python 3.12", "Python 3.11"),
        (
            "host 'host0' has Python 3.11, but this program needs Python 3.12; "
            "the host's setting python= says where there is one"
        ),
    ),
    (parallel.HostDied("host0", "the link was cut"), "host 'host0' died: the link was cut"),
    (
        parallel.WorkerDied("root", 12, "job", 3),
        "worker 'job' (pid 12 on host 'root') exited with code 3 without a result",
    ),
    (
        parallel.WorkerDied("root", 12, "job", -9, maybe_oom=True, stderr="a\nb"),
        (
            "worker 'job' (pid 12 on host 'root') was killed by SIGKILL without a result; "
            "the kernel ran out of memory then: give it less to hold, or more memory; "
            "its last words were:\na\nb"
        ),
    ),
    (
        parallel.WorkerDied("root", 12, "job", reason="raised ValueError: x"),
        "worker 'job' (pid 12 on host 'root') raised ValueError: x",
    ),
    (
        parallel.WorkerCancelled("root", 12, "job"),
        "worker 'job' (pid 12 on host 'root') was cancelled",
    ),
    (parallel.RemoteError("Odd", "text", "Traceback..."), "Odd: text\n\nTraceback..."),
    (parallel.RemoteError("Odd", ""), "Odd"),
    (
        parallel.NotSendable("closure variable 'lock' of 'job'", "_thread.lock", "why not"),
        "cannot send closure variable 'lock' of 'job': _thread.lock (why not)",
    ),
    (
        parallel.NotSendable("the message", "socket.socket"),
        "cannot send the message: socket.socket",
    ),
    (parallel.ProtocolError("nonsense"), "nonsense"),
    (
        parallel.MessageTooLarge(200, 100),
        (
            "a message of 200 bytes is over the limit of 100; "
            "send less at once or raise init(max_message_size=...)"
        ),
    ),
]

by_name = pytest.mark.parametrize(
    ("error", "text"), EXAMPLES, ids=[type(error).__name__ for error, _ in EXAMPLES]
)


def by_codec(error: Exception) -> Any:
    return unpack(pack(error).body)


def as_failure(error: Exception) -> Any:
    return decode_failure(encode_failure(error))


def by_pickle(error: Exception) -> Any:
    return pickle.loads(pickle.dumps(error))


def by_cloudpickle(error: Exception) -> Any:
    return cloudpickle.loads(cloudpickle.dumps(error))


WAYS: list[Callable[[Any], Any]] = [
    by_codec,
    as_failure,
    by_pickle,
    by_cloudpickle,
    copy.copy,
    copy.deepcopy,
]


def test_every_error_of_the_package_is_tested_here() -> None:
    defined = {
        value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, BaseException) and name[0] != "_"
    }
    assert defined == {type(error) for error, _ in EXAMPLES}


def test_every_error_is_a_public_name() -> None:
    for error, _ in EXAMPLES:
        assert getattr(parallel, type(error).__name__) is type(error)
        assert issubclass(type(error), parallel.ParallelError)


@by_name
def test_the_text_says_who_where_and_what(error: parallel.ParallelError, text: str) -> None:
    assert str(error) == text
    assert "".join(traceback.format_exception_only(error)).endswith(f"{text}\n")


@by_name
def test_it_survives_the_way_to_another_process(error: parallel.ParallelError, text: str) -> None:
    for travel in WAYS:
        arrived = travel(error)
        assert type(arrived) is type(error)
        assert vars(arrived) == vars(error)
        assert arrived.args == error.args
        assert str(arrived) == text


@by_name
def test_its_notes_and_later_attributes_survive_too(
    error: parallel.ParallelError, text: str
) -> None:
    noted = copy.copy(error)
    noted.add_note("while counting")
    noted.code = 7  # type: ignore[attr-defined]
    for travel in WAYS:
        arrived = travel(noted)
        assert (arrived.__notes__, arrived.code, str(arrived)) == (["while counting"], 7, text)


def test_fields_given_by_keyword_survive() -> None:
    error = parallel.WorkerDied(host="root", pid=1, name="f", returncode=-15)
    for travel in (by_pickle, by_codec, as_failure):
        assert vars(travel(error)) == vars(error)


def test_an_error_is_itself_and_no_other() -> None:
    first, second = parallel.HostDied("a", "b"), parallel.HostDied("a", "b")
    assert first != second
    assert len({first, second}) == 2


def test_a_class_derived_from_one_of_ours_survives() -> None:
    arrived = by_pickle(Derived("x", 3))
    assert (type(arrived), str(arrived), arrived.more) == (Derived, "x", 3)


class Derived(parallel.ParallelError):
    def __init__(self, text: str, more: int) -> None:
        super().__init__(text)
        self.more = more


@pytest.mark.parametrize(
    ("returncode", "name"),
    [(None, None), (0, None), (3, None), (-9, "SIGKILL"), (-11, "SIGSEGV"), (-63, "signal 63")],
)
def test_a_signal_has_its_name(returncode: int | None, name: str | None) -> None:
    assert parallel.WorkerDied("root", 1, "f", returncode).signal == name


def test_the_end_of_a_process_is_told_in_words() -> None:
    assert errors.describe_exit(None) == "ended"
    assert errors.describe_exit(0) == "exited with code 0"
    assert errors.describe_exit(-signal.SIGTERM) == "was killed by SIGTERM"
    assert errors.signal_name(signal.SIGUSR1) == "SIGUSR1"
