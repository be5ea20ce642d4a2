"""What logs, health and errors say of a service that can't be reached: nothing of its password."""

import asyncio
import functools
import traceback
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from redis.asyncio import Redis

from quattro_web import LockLostError, OnceLock
from quattro_web._locks.address import Address
from quattro_web._locks.holder import OnceState, run_once
from quattro_web.postgres import PostgresLock
from quattro_web.redis import RedisLock

pump = functools.partial(asyncio.sleep, 3600)  # it never runs


def texts_of(error: BaseException | None) -> Iterator[str]:
    """All that an error can tell, and those behind it."""
    if error is not None:
        yield from traceback.format_exception(error)
        yield repr(error)
        yield from texts_of(error.__cause__)
        yield from texts_of(error.__context__)


def said_of(lock: OnceLock) -> str:
    """What the state and its error say when the lock is unreachable."""
    return "\n".join(texts_of(error_of(lock)))


def error_of(lock: OnceLock) -> BaseException:
    """The error of the state when the lock is unreachable."""
    states: list[OnceState] = []

    async def main() -> None:
        was_tried = asyncio.Event()

        def report(state: OnceState) -> None:
            states.append(state)
            was_tried.set()

        task = asyncio.create_task(run_once(lock, "pump", pump, report=report))
        await was_tried.wait()
        task.cancel()
        await asyncio.wait((task,))

    asyncio.run(main())
    assert states[0].error is not None
    return states[0].error


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_password_that_becomes_a_database(
    driver: str, postgres: str, caplog: pytest.LogCaptureFixture
) -> None:
    """O3: A password whose slash is not escaped is cut by the driver, so that the server says that
    there is no database of that name: the log and the health of the pump don't."""
    port = urlsplit(postgres).port
    dsn = f"postgresql://127.0.0.1:{port}/reT9x@localhost/postgres?user=postgres"
    lock = PostgresLock(dsn, driver=driver, timeout=20)  # type: ignore[arg-type]
    said = said_of(lock) + caplog.text
    assert "reT9x" not in said
    assert "%2F for /" in caplog.text


def test_connection_of_an_error() -> None:
    """O3: An error of psycopg's has the connection that it is of, with its password: not any more
    when it leaves the lock, whose log entries others may read with all that belongs to them."""
    lock = PostgresLock("postgresql://me:reT9xreT9x@127.0.0.1:1/db", driver="psycopg", timeout=20)
    error = error_of(lock)
    assert isinstance(error, psycopg.OperationalError)
    assert error.pgconn is None


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_password_that_becomes_a_host(driver: str, caplog: pytest.LogCaptureFixture) -> None:
    """O3: So it is with one that is cut at an @, whose rest is taken for a host."""
    lock = PostgresLock("postgresql://me:a@reT9x@127.0.0.1:1/db", driver=driver, timeout=20)  # type: ignore[arg-type]
    assert "reT9x" not in said_of(lock) + caplog.text


@pytest.mark.parametrize("mark", ["/", "#", "?"])
def test_password_that_becomes_a_port(mark: str, caplog: pytest.LogCaptureFixture) -> None:
    """O3: So it is with one that is cut after its first digits, for Redis."""
    lock = RedisLock(f"redis://127.0.0.1:1{mark}reT9x@localhost:6379/0", ttl=60, timeout=20)
    said = said_of(lock) + caplog.text
    assert "127.0.0.1:1" not in said
    assert "reT9x" not in said


def test_errors_of_a_clear_address_are_shown(caplog: pytest.LogCaptureFixture) -> None:
    """O3: Where nothing of the password can be in it, an error stays as it is: with its class, and
    all that it says."""
    for lock in (
        PostgresLock("postgresql://me:reT9x@127.0.0.1:1/db", driver="asyncpg", timeout=20),
        PostgresLock("host=127.0.0.1 port=1 password=reT9x", driver="psycopg", timeout=20),
        RedisLock("redis://me:reT9x@127.0.0.1:1/0", ttl=60, timeout=20),
    ):
        said = said_of(lock)
        assert "127.0.0.1" in said
        assert "reT9x" not in said + caplog.text
    # What the error says is in the log as well, also where its repr does not say it, as redis-py's.
    ours = [record for record in caplog.records if record.name == "quattro_web"]
    assert ["127.0.0.1" in record.getMessage() for record in ours] == [True] * 3


class Hidden(Exception):
    def __str__(self) -> str:
        return "nothing of it"


def caused(message: str) -> Exception:
    error = OSError("nothing of it")
    error.__cause__ = ValueError(message)
    return error


def noted(message: str) -> Exception:
    error = OSError("nothing of it")
    error.add_note(message)
    return error


def raised_for(message: str) -> Exception:
    error = OSError("nothing of it")
    error.__context__ = ValueError(message)
    error.__context__.__context__ = error  # a circle
    return error


def grouped(message: str) -> Exception:
    return ExceptionGroup("nothing of it", [OSError(1, "nothing of it"), OSError(2, message)])


@pytest.mark.parametrize("make", [OSError, Hidden, caused, noted, raised_for, grouped])
@pytest.mark.parametrize(
    ("address", "secret"),
    [
        (Address("postgresql://me:reT9x@host/db"), "reT9x"),
        (Address("postgresql://me:a%2Fb@host/db"), "a/b"),
        (Address("postgresql://me:a%2Fb@host/db"), "a%2Fb"),
        (Address("postgresql://host/db?password=reT9x"), "reT9x"),
        (Address("redis://:a+b@[::1]:6379/0"), "a b"),
        (Address("redis://:a+b%2Fc@host:6379/0"), "a+b/c"),
        (Address("redis://:a%0Ab@host:6379,other/0"), "a\nb"),
        (Address("host=here password=reT9x", ["reT9x"]), "reT9x"),
    ],
)
def test_password_is_hidden(make: type[OSError], address: Address, secret: str) -> None:
    """O3: An error that says the password, in its cause, a note or a group, is replaced by one that
    does not, and that refers to none of these."""
    clean = address.clean(make(f"no entry for '{secret}'"))
    assert isinstance(clean, ConnectionError)
    said = "\n".join(texts_of(clean))
    assert secret not in said
    assert "Error" in said
    assert (clean.__cause__, clean.__context__, getattr(clean, "__notes__", [])) == (None, None, [])


TOKEN = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9" * 8


@pytest.mark.parametrize(
    ("address", "text", "shown"),
    [
        (Address(f"rediss://:{TOKEN}@host/0"), f"begins with '{TOKEN[:100]}'", "begins with '***'"),
        (Address(f"redis://:{TOKEN}@host/0"), f"no x{TOKEN}y", "no x***y"),
        (Address("redis://:reT9xQ%0AmK4w@host/0"), "AUTH 'reT9xQ mK4w'", "AUTH '***'"),
        (Address("postgresql://host/db?password=reT9xQ%0A4w"), "no reT9xQ4w", "no ***"),
    ],
)
def test_piece_of_a_password_is_hidden(address: Address, text: str, shown: str) -> None:
    """O3: So is a part of one that a service has cut off or glued to something else, as Redis does
    with what is longer than 128 bytes, and one whose line feed it has replaced."""
    assert str(address.clean(OSError(text))) == f"OSError: {shown}"


@pytest.mark.parametrize("dsn", ["postgresql://me:reT9x%B5@host/db", "password=reT9x\udce4"])
def test_password_that_is_no_text(dsn: str) -> None:
    """O3: A password that is no text, with a % that is not escaped or with bytes of another
    encoding in its environment variable, is refused without being shown."""
    with pytest.raises(ValueError, match="dsn is not a URL that psycopg understands") as caught:
        PostgresLock(dsn, driver="psycopg")
    assert "reT9x" not in "\n".join(texts_of(caught.value))


@pytest.mark.parametrize("mark", ["mK4w", "mK4w=1", "mK%3D"])
def test_password_that_becomes_a_setting(mark: str, caplog: pytest.LogCaptureFixture) -> None:
    """O3: A password in a query is cut at an &, and its rest taken for a setting of the server's:
    of such an address no message is shown."""
    dsn = f"postgresql://me@127.0.0.1:1/db?password=reT9x&{mark}"
    said = said_of(PostgresLock(dsn, driver="asyncpg", timeout=20))
    assert "mK" not in said + caplog.text
    assert "127.0.0.1" not in said


def test_query_that_ends_with_its_password() -> None:
    """O3: Nothing follows it in a clear one, and other settings may come before."""
    error = OSError("no such host")
    address = Address("postgresql://host/db?sslmode=require&passfile=a&password=reT9x")
    assert address.clean(error) is error
    assert "reT9x" not in str(address.clean(OSError("no reT9x")))


@pytest.mark.parametrize(
    "client", [Redis(password="reT9x"), Redis.from_url("redis://:reT9x@127.0.0.1")]
)
def test_client_of_yours(client: Redis) -> None:
    """O3: The password of a client that you give to the lock is hidden as that of a URL is."""

    async def main() -> str:
        claim: Any = RedisLock(client).claim("pump")
        claim._lock = Refusing("AUTH reT9x")
        with pytest.raises(ConnectionError) as caught:
            await claim.prove()
        return "\n".join(texts_of(caught.value))

    assert "reT9x" not in asyncio.run(main())


class Refusing:
    """A lock in a Redis that repeats what it was sent."""

    def __init__(self, text: str) -> None:
        self._text = text

    async def reacquire(self) -> None:
        raise OSError(self._text)


@pytest.mark.parametrize("text", ["cache.example.com", "database-of-the-app", "no app-user"])
def test_public_part_of_a_password_is_shown(text: str) -> None:
    """O3: A host, a database or a user with which a password begins is shown."""
    dsn = "postgresql://app-user:{}-1@cache.example.com/database-of-the-app"
    error = OSError(text)
    assert Address(dsn.format(text.removeprefix("no "))).clean(error) is error


@pytest.mark.parametrize(
    "text", ["port 15432 is closed", "port 54321 is closed", 'role "me" does not exist', "no host"]
)
def test_what_only_looks_like_it_is_shown(text: str) -> None:
    """O3: A part of another word, and what is no secret, is shown."""
    for address in (Address("postgresql://me:5432@host/db"), Address("postgresql://me:me@host/db")):
        error = OSError(text)
        assert address.clean(error) is error
        error.__context__ = ValueError(text)
        error.__context__.__context__ = error  # a circle
        assert address.clean(error) is error


def test_address_without_its_host() -> None:
    """O3: Where the host is forgotten, the password stands in the place of the port."""
    assert "reT9x" not in str(Address("postgresql://me:reT9x").clean(OSError("port reT9x")))


def test_loss_is_a_loss() -> None:
    """A7: That a lock is lost is said whatever the address is."""
    claim = RedisLock("redis://host/0?client_name=a@b").claim("pump")
    with pytest.raises(LockLostError):
        asyncio.run(claim.prove())
