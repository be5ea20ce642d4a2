"""Stands in for valgrind, which takes minutes: it runs a command, and makes up what it counts."""

import subprocess
import sys


def main() -> None:
    done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True, check=True)
    sys.stdout.write(done.stdout)
    for number, line in enumerate(done.stdout.splitlines(), 1):
        pid, _, _ = line.partition(" ")
        print(f"=={pid}== Collected : {1000 * number}", file=sys.stderr)


if __name__ == "__main__":
    main()
