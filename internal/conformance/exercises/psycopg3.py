"""psycopg 3: parameters in the extended protocol, text and binary, statements
prepared by themselves, pipelines, COPY in blocks, cursors, asyncio."""

import asyncio
import datetime
import decimal
import logging
import threading

import psycopg
from psycopg.types.json import Jsonb

from steps import run, show


logging.disable()  # whether a pipeline's end warns depends on how much has been answered by then


def connect(**options):
    return psycopg.connect("", **options)


def refused(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except psycopg.Error as e:
        show(type(e).__name__, e.sqlstate, e.diag.message_primary, e.diag.message_detail, e.diag.statement_position)
    else:
        show("not refused")


def parameters():
    with connect() as conn:
        for binary in (False, True):
            cur = conn.cursor(binary=binary)
            for value in (1, -(2**62), 1.5, "ünïcode", b"\x00\xff", None, True, datetime.date(2026, 2, 28), datetime.timedelta(days=3, microseconds=7),
                          decimal.Decimal("1.20"), Jsonb({"a": [1, None]}), [1, 2, None], ["a", "b,c", '"']):
                cur.execute("SELECT %s", (value,), binary=binary)
                show(cur.fetchone(), cur.description[0].type_code)
        cur = conn.cursor()
        show(cur.execute("SELECT %t, %b", ("text", 7)).fetchone())


def prepared():
    with connect() as conn:
        conn.prepare_threshold = 1
        for i in range(12):
            conn.execute("SELECT %s::int + 1", (i,)).fetchone()
        show(conn.execute("SELECT statement FROM pg_prepared_statements ORDER BY 1").fetchall())
        conn.execute("CREATE TEMP TABLE changing (a int)")
        for i in range(3):
            conn.execute("SELECT * FROM changing", prepare=True)
        conn.commit()
        conn.execute("ALTER TABLE changing ADD b text")
        refused(conn.execute, "SELECT * FROM changing", prepare=True)
        conn.rollback()
        conn.execute("DEALLOCATE ALL")
        conn.prepared_max = 2
        for i in range(10):
            conn.execute("SELECT %s::int AS n{}".format(i), (i,), prepare=True)
        show(conn.execute("SELECT count(*) FROM pg_prepared_statements").fetchall())


def pipelines():
    with connect() as conn:
        conn.execute("CREATE TEMP TABLE piped (id int PRIMARY KEY)")
        conn.commit()
        with conn.pipeline():
            cursors = [conn.execute("INSERT INTO piped VALUES (%s) RETURNING id", (i,)) for i in range(500)]
        show(sum(c.fetchone()[0] for c in cursors))

        def failing():
            with conn.pipeline() as p:
                conn.execute("INSERT INTO piped VALUES (1000)")
                p.sync()
                conn.execute("INSERT INTO piped VALUES (1)")
                conn.execute("INSERT INTO piped VALUES (1001)")
                p.sync()

        conn.commit()
        refused(failing)
        show(conn.info.transaction_status)
        conn.rollback()
        show(conn.execute("SELECT count(*), max(id) FROM piped").fetchone())
        conn.commit()
        with conn.pipeline():
            with conn.transaction():
                conn.execute("DELETE FROM piped WHERE id < 10")
                with conn.transaction(force_rollback=True):
                    conn.execute("DELETE FROM piped")
        show(conn.execute("SELECT count(*) FROM piped").fetchone())


def many():
    with connect() as conn:
        cur = conn.cursor()
        cur.execute("CREATE TEMP TABLE many (id int, t text)")
        cur.executemany("INSERT INTO many VALUES (%s, %s) RETURNING id", [(i, "t%d" % i) for i in range(300)], returning=True)
        n = 1
        while cur.nextset():
            n += 1
        show(n, cur.rowcount)
        refused(cur.execute, "SELECT 1; SELECT 1/0")
        conn.rollback()
        cur.execute("SELECT 1; SELECT 2, 3; VALUES (4), (5)")
        sets = [cur.fetchall()]
        while cur.nextset():
            sets.append(cur.fetchall())
        show(sets)


def cursors():
    with connect() as conn:
        with conn.cursor("server_side", scrollable=True) as cur:
            cur.execute("SELECT %s + g FROM generate_series(1, 1000) g", (5,))
            cur.itersize = 77
            show(sum(r[0] for r in cur))
            cur.scroll(0, mode="absolute")
            show(cur.fetchmany(2))
        show(sum(r[0] for r in conn.cursor().stream("SELECT g FROM generate_series(1, 5000) g")))


def copying():
    with connect() as conn:
        cur = conn.cursor()
        cur.execute("CREATE TEMP TABLE copied (id int, d date, b bytea)")
        with cur.copy("COPY copied FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "date", "bytea"])
            for i in range(3000):
                copy.write_row((i, datetime.date(2026, 1, 1), b"\x00" * (i % 50)))
        show(cur.rowcount)
        with cur.copy("COPY copied TO STDOUT (FORMAT binary)") as copy:
            show(sum(len(block) for block in copy))
        conn.commit()

        def abandoned():
            with cur.copy("COPY copied FROM STDIN") as copy:
                copy.write("1\t2026-01-01\t\\N\n")
                raise ValueError("changed our mind")

        try:
            abandoned()
        except (ValueError, psycopg.Error) as e:  # which of them depends on psycopg's version
            show(str(e), conn.info.transaction_status)
        conn.rollback()

        def malformed():
            with cur.copy("COPY copied FROM STDIN") as copy:
                for _ in range(1000):
                    copy.write("no number\n")

        refused(malformed)
        conn.rollback()
        with cur.copy("COPY (SELECT g, 'x' FROM generate_series(1, 100000) g) TO STDOUT") as copy:
            show(sum(len(block) for block in copy))


def cancelling():
    with connect(autocommit=True) as conn:
        timer = threading.Timer(0.5, conn.cancel)
        timer.start()
        refused(conn.execute, "SELECT pg_sleep(%s)", (60,))
        timer.join()
        show(conn.execute("SELECT 1").fetchone())


def notifications():
    with connect(autocommit=True) as conn, connect(autocommit=True) as other:
        conn.execute("LISTEN chan")
        other.execute("SELECT pg_notify('chan', 'one'), pg_notify('chan', 'two')")
        seen = []
        for n in conn.notifies():
            seen.append((n.channel, n.payload, n.pid == other.info.backend_pid))
            if len(seen) == 2:
                break
        show(seen)
        show(conn.info.backend_pid == conn.execute("SELECT pg_backend_pid()").fetchone()[0])


def asynchronous():
    async def go():
        async with await psycopg.AsyncConnection.connect("", autocommit=True) as conn:
            async with conn.pipeline():
                cursors = [await conn.execute("SELECT %s::int * 2", (i,)) for i in range(100)]
            show(sum([(await c.fetchone())[0] for c in cursors]))
            async with conn.transaction():
                cur = conn.cursor("acur")
                await cur.execute("SELECT generate_series(1, 10)")
                show(await cur.fetchall())

    asyncio.run(go())


run([parameters, prepared, pipelines, many, cursors, copying, cancelling, notifications, asynchronous])
