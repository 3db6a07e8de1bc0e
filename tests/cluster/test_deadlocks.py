"""Commands that lock the same rows in opposite orders."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from hubbub.chat.codes import hash_of
from hubbub.chat.commands import AddLink, AddUser, ResetPassword
from hubbub.chat.errors import NotFound
from hubbub.chat.model import Purpose
from hubbub.cluster.database import Database
from hubbub.cluster.migrate import migrate
from hubbub.cluster.processes import Processes
from hubbub.loadtest.servers import MariaDb
from tests.conftest import eventually
from tests.ports.stores import ClusterStore
from tests.servers import new_database


def test_a_command_that_deadlocks_with_another_is_run_again(mariadb: MariaDb) -> None:
    """Deleting an account locks the account before its links; setting its password by a link locks the link first."""
    with closing(ClusterStore(new_database(mariadb))) as store, ThreadPoolExecutor(1) as thread:
        store.apply([AddUser("ref", "a@x", "A", "hash", 1), AddLink(Purpose.RESET, "a@x", hash_of("code"), 2**40)])
        connection = store.database.engine.raw_connection()
        deleting = connection.cursor()
        # When two transactions wait for each other, the larger one wins.
        deleting.executemany(
            "INSERT INTO ended_sessions (session, expires_at) VALUES (%s, 1)", [(f"{n}",) for n in range(100)]
        )
        deleting.execute("SELECT id FROM users WHERE id = 1 FOR UPDATE")
        setting = thread.submit(store.apply, [ResetPassword(hash_of("code"), "new", "era", 1)])
        # Not information_schema.innodb_trx: who asks it more often than every 100 ms gets the same old answer for ever.
        waits = "SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'"
        eventually(lambda: mariadb.root(waits).split()[-1] == "1")
        deleting.execute("DELETE FROM links WHERE purpose = 'reset' AND email = 'a@x'")
        connection.commit()
        connection.close()
        (outcome,) = setting.result(20)
        assert isinstance(outcome, NotFound)


def test_api_processes_may_start_at_the_same_moment(mariadb: MariaDb) -> None:
    database = Database(new_database(mariadb))
    migrate(database.engine)
    processes = Processes(database)
    processes.redis_servers(1)
    with ThreadPoolExecutor(8) as starting:
        for started in [starting.submit(processes.redis_servers, 1) for _ in range(400)]:
            started.result()  # raises Deadlocked if two of them wait for each other
    database.close()
