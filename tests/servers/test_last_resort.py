"""What would keep a server from ending after its app has ended, or before it has begun."""

import signal

import pytest

from tests.servers.living import Client, Living, check_status
from tests.support.limitations import Limitation

SIGNAL = {"uvicorn": signal.SIGINT}  # at a SIGTERM it ends as the signal says, whatever hangs
SERVERS = ["uvicorn", "hypercorn", "hypercorn-0", "granian"]
ENDED = "the shutdown has not ended within 3 s, so the process exits now"

# The others have processes.
KEEPS_THE_STATUS = {"uvicorn", "hypercorn-0"}


@pytest.mark.parametrize("name", SERVERS)
def test_thread_whose_work_has_ended(name: str, limitation: Limitation) -> None:
    """A6: A thread that still runs when all has ended that has waited for it, such as that of a
    request that was answered long ago, keeps no server from ending: asyncio or the interpreter
    would wait for it."""
    with Living(name, "threaded") as server:
        assert Client(server, "/mail").result()[1] == b"sent, perhaps"
        status = server.stop(SIGNAL.get(name, signal.SIGTERM))
    check_status(name, status, 1, limitation, drops=name not in KEEPS_THE_STATUS)
    for lines in server.said().values():
        assert lines[-2:] == ["pump ends", "resources close"]
    assert ENDED in server.log


@pytest.mark.parametrize("name", [*SERVERS, "gunicorn"])
def test_signal_while_the_app_starts(name: str, limitation: Limitation) -> None:
    """A6: A server that is asked to stop while the app's own lifespan opens ends as well, with what
    that has opened, though it hangs in closing it; no pump was started."""
    with Living(name, "unending", ready=False) as server:
        server.wait_for("resources open")
        status = server.stop()
    check_status(name, status, 1, limitation, drops=name not in KEEPS_THE_STATUS)
    for lines in server.said().values():
        assert lines == ["resources open", "app starts", "resources close"]
    assert ENDED in server.log


@pytest.mark.parametrize(("name", "option"), [("uvicorn", "--limit-max-requests")])
def test_end_that_no_signal_tells_of(name: str, option: str) -> None:
    """A6: The end of the app is bounded where its server ends it without a signal, too."""
    with Living(name, "unending", option, "1") as server:
        Client(server, "/nothing").result()
        assert server.wait() == 1
    [lines] = server.said().values()
    assert lines[-3:] == ["pump begins", "pump ends", "resources close"]
    assert ENDED in server.log
