"""asyncpg: its own implementation of the protocol; everything is prepared and
binary, results come in portions, COPY is binary, cancels follow timeouts."""

import asyncio
import datetime
import decimal
import ipaddress
import os
import uuid

import asyncpg

from steps import run, show


def connect():
    return asyncpg.connect(host=os.environ["PGHOST"], port=int(os.environ["PGPORT"]), user=os.environ["PGUSER"], database=os.environ["PGDATABASE"], ssl=False)


def step(body):
    """A step on a connection of its own."""

    async def go():
        conn = await connect()
        try:
            await body(conn)
        finally:
            await conn.close()

    def one():
        asyncio.run(go())

    one.__name__ = body.__name__
    return one


async def refused(awaitable):
    try:
        await awaitable
    except asyncpg.PostgresError as e:
        show(type(e).__name__, e.sqlstate, e.message, e.detail, e.position)
    else:
        show("not refused")


async def settings(conn):
    s = conn.get_settings()
    show(s.application_name, s.TimeZone, s.DateStyle, s.client_encoding, conn.get_server_version().major)
    show(conn.get_server_pid() == await conn.fetchval("SELECT pg_backend_pid()"))


async def types(conn):
    for kind, value in (("int8", 2**62), ("float8", 1.1), ("numeric", decimal.Decimal("-1.2300")), ("text", "ünïcode"), ("bytea", b"\0\xff"),
                        ("uuid", uuid.UUID(int=7)), ("inet", ipaddress.ip_address("::1")), ("date", datetime.date(2026, 2, 28)),
                        ("timestamptz", datetime.datetime(2026, 2, 28, tzinfo=datetime.timezone.utc)), ("interval", datetime.timedelta(days=1, seconds=2)),
                        ("int4[]", [1, None, 3]), ("jsonb", '{"a": 1}'), ("point", asyncpg.Point(1, 2)), ("int4range", asyncpg.Range(1, 5)), ("bool", None)):
        show(kind, await conn.fetchval("SELECT $1::" + kind, value))
    await conn.execute("CREATE TYPE pg_temp.pair AS (a int, b text)")
    show(await conn.fetchval("SELECT (1, 'x')::pg_temp.pair"))


async def statements(conn):
    st = await conn.prepare("SELECT g, $1::text FROM generate_series(1, $2) g")
    show([a.name for a in st.get_attributes()], [t.name for t in st.get_parameters()], st.get_statusmsg())
    show(len(await st.fetch("a", 1000)), await st.fetchrow("b", 1), st.get_statusmsg())
    await refused(conn.prepare("SELECT * FROM nothing_there"))
    await refused(conn.fetch("SELECT 1/$1::int", 0))
    for i in range(150):
        await conn.fetchval("SELECT $1::int + {}".format(i), i)
    show(await conn.fetchval("SELECT count(*) > 50 FROM pg_prepared_statements"))


async def transactions(conn):
    await conn.execute("CREATE TEMP TABLE tx (id int PRIMARY KEY)")
    async with conn.transaction(isolation="serializable"):
        await conn.execute("INSERT INTO tx VALUES (1)")
        try:
            async with conn.transaction():
                await conn.execute("INSERT INTO tx VALUES (2)")
                await conn.execute("INSERT INTO tx VALUES (1)")
        except asyncpg.UniqueViolationError as e:
            show(e.detail, e.constraint_name)
        await conn.execute("INSERT INTO tx VALUES (3)")
    show(await conn.fetch("SELECT * FROM tx ORDER BY 1"))
    await refused(conn.execute("SELECT 1; SELECT 1/0"))
    show(await conn.execute("INSERT INTO tx VALUES (4); INSERT INTO tx VALUES (5)"))


async def cursors(conn):
    async with conn.transaction():
        n = 0
        async for row in conn.cursor("SELECT g FROM generate_series(1, 1000) g", prefetch=33):
            n += row[0]
        show(n)
        cur = await conn.cursor("SELECT g FROM generate_series(1, 100) g")
        await cur.forward(50)
        show(await cur.fetch(3))


async def batches(conn):
    await conn.execute("CREATE TEMP TABLE many (id int PRIMARY KEY, t text)")
    await conn.executemany("INSERT INTO many VALUES ($1, $2)", [(i, "x" * (i % 100)) for i in range(5000)])
    show(await conn.fetchval("SELECT count(*) FROM many"))
    await refused(conn.executemany("INSERT INTO many VALUES ($1, $2)", [(i, "y") for i in range(5000, 4000, -1)]))
    show(await conn.fetchval("SELECT count(*) FROM many"))


async def copying(conn):
    await conn.execute("CREATE TEMP TABLE copied (id int, d date, t text)")
    show(await conn.copy_records_to_table("copied", records=[(i, datetime.date(2026, 1, 1), None) for i in range(5000)]))
    size = 0

    async def sink(data):
        nonlocal size
        size += len(data)

    show(await conn.copy_from_query("SELECT * FROM copied WHERE id < $1", 2500, output=sink, format="binary"), size)
    await refused(conn.copy_to_table("copied", source=source(b"x\ty\tz\n" * 100)))
    show(await conn.fetchval("SELECT count(*) FROM copied"))


async def source(data):
    for i in range(0, len(data), 16):
        yield data[i:i + 16]


async def timeouts(conn):
    try:
        await conn.fetch("SELECT pg_sleep(60)", timeout=0.5)
    except asyncio.TimeoutError:
        show("timed out")
    show(await conn.fetchval("SELECT 'still here'"))


async def notifications(conn):
    other, got = await connect(), asyncio.Queue()
    await conn.add_listener("chan", lambda c, pid, channel, payload: got.put_nowait((channel, payload, pid == other.get_server_pid())))
    await other.execute("NOTIFY chan, 'hello'")
    show(await asyncio.wait_for(got.get(), 30))
    await conn.reset()
    await other.close()


async def ended(conn):
    other = await connect()
    await other.execute("SELECT pg_terminate_backend({}, 10000)".format(conn.get_server_pid()))
    await asyncio.sleep(0.2)
    try:
        await conn.fetch("SELECT 1")
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as e:
        show(conn.is_closed(), getattr(e, "sqlstate", None) in (None, "57P01"))
    await other.close()


run([step(s) for s in (settings, types, statements, transactions, cursors, batches, copying, timeouts, notifications, ended)])
