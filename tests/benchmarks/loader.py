"""Stands in for wrk, which takes a second: it makes a few requests."""

import sys
from urllib.request import urlopen

REQUESTS = 3


def main() -> None:
    for _ in range(REQUESTS):
        with urlopen(sys.argv[-1]) as answer:
            answer.read()


if __name__ == "__main__":
    main()
