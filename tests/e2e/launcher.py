"""Starts a server as a child, as a shell or a process manager does, and says how it ended."""

import os
import signal
import subprocess
import sys


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda got, _: os.write(1, b"the launcher got signal\n"))
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    server = subprocess.run([sys.executable, *sys.argv[1:]], check=False)
    assert bystander.stdin is not None
    print("the bystander is", "alive" if bystander.poll() is None else "dead")
    bystander.communicate(b"\n")
    print("the server's status is", server.returncode, "in", os.getpid())


if __name__ == "__main__":
    main()
