"""psycopg2 with Odoo's habits: literals in the text, REPEATABLE READ, savepoints
named by UUIDs, execute_values, named cursors, several statements in one text,
the bus on a connection of its own, reset when a connection is borrowed."""

import datetime
import decimal
import io
import select
import threading

import psycopg2
import psycopg2.extensions
import psycopg2.extras
from psycopg2 import errorcodes

from steps import run, show

REPEATABLE_READ = psycopg2.extensions.ISOLATION_LEVEL_REPEATABLE_READ


def connect(**options):
    return psycopg2.connect("", application_name="odoo-1234", **options)


def worker(**options):
    conn = connect(**options)
    conn.set_session(isolation_level=REPEATABLE_READ)
    return conn


def refused(call, *args, **kwargs):
    """Shows what an error says to a program."""
    try:
        call(*args, **kwargs)
    except psycopg2.Error as e:
        d = e.diag
        show(type(e).__name__, e.pgcode, d.severity, d.message_primary, d.message_detail, d.message_hint, d.statement_position,
             d.table_name, d.constraint_name, d.source_function)
    else:
        show("not refused")


def connection():
    conn = worker()
    show(conn.info.status, conn.info.transaction_status, conn.server_version // 10000, conn.encoding, conn.protocol_version)
    show([conn.info.parameter_status(n) for n in ("application_name", "DateStyle", "TimeZone", "integer_datetimes", "standard_conforming_strings")])
    cr = conn.cursor()
    cr.execute("SELECT pg_backend_pid() = %s", (conn.info.backend_pid,))
    show(cr.fetchall())
    cr.execute("SHOW transaction_isolation")
    show(cr.fetchall())
    conn.close()


def registry():
    conn = worker()
    cr = conn.cursor()
    cr.execute("SET SESSION lock_timeout = '15s'")
    cr.execute("""DROP TABLE IF EXISTS conf_line, conf_move; CREATE TABLE conf_move (id SERIAL NOT NULL, PRIMARY KEY(id)); COMMENT ON TABLE conf_move IS 'Move'""")
    cr.execute("""CREATE TABLE conf_line (id SERIAL NOT NULL, PRIMARY KEY(id)); COMMENT ON TABLE conf_line IS 'Line'""")
    show(cr.statusmessage)
    for column in ("name varchar", "active bool DEFAULT false", "amount numeric", "date timestamp without time zone", "data jsonb", "raw bytea"):
        cr.execute('ALTER TABLE "conf_move" ADD COLUMN %s ; COMMENT ON COLUMN "conf_move"."%s" IS \'%s\'' % (column, column.split()[0], column))
    cr.execute('ALTER TABLE conf_line ADD COLUMN move_id int4, ADD FOREIGN KEY (move_id) REFERENCES conf_move(id) ON DELETE cascade')
    cr.execute('ALTER TABLE conf_move ADD CONSTRAINT conf_move_name_uniq UNIQUE (name)')
    cr.execute("SELECT column_name, udt_name, is_nullable FROM information_schema.columns WHERE table_name = 'conf_move' ORDER BY ordinal_position")
    show(cr.fetchall())
    show([d[:2] for d in cr.description])
    conn.commit()
    show(conn.notices)
    conn.close()


def values():
    conn = worker()
    cr = conn.cursor()
    odd = ["it's", "back\\slash", "per%cent", "ünïcode ☃", "", None, "$1 ? :x", "-- no comment", "/* nor */ this", "$$"]
    psycopg2.extras.execute_values(cr, "INSERT INTO conf_move (name) VALUES %s RETURNING name", [(v,) for v in odd])
    show(cr.fetchall())
    psycopg2.extras.execute_values(cr, "INSERT INTO conf_move (name, active) VALUES %s", [("m%d" % i, i % 2 == 0) for i in range(2500)], page_size=500)
    show(cr.rowcount, cr.statusmessage)
    psycopg2.extras.execute_batch(cr, "UPDATE conf_move SET amount = %s WHERE name = %s", [(i, "m%d" % i) for i in range(250)])
    cr.execute("SELECT count(*), sum(amount), count(active) FROM conf_move")
    show(cr.fetchall())
    cr.execute("SELECT %s, %s, %s, %s, %s, %s::jsonb, %s", (
        datetime.datetime(2026, 2, 28, 23, 59, 59, 999999), decimal.Decimal("12345678901234567890.0123456789"), [1, 2, None], True,
        datetime.date(1, 1, 1), psycopg2.extras.Json({"a": [1, {"b": None}]}), psycopg2.Binary(bytes(range(256)))))
    row = cr.fetchone()
    show(row[:-1], bytes(row[-1]) == bytes(range(256)))
    cr.execute("SELECT id FROM conf_move WHERE id IN %s ORDER BY id", (tuple(range(1, 1001)),))
    show(cr.rowcount)
    cr.execute("SELECT repeat('x', 3000000)")
    show(len(cr.fetchone()[0]))
    conn.commit()
    conn.close()


def savepoints():
    conn = worker()
    cr = conn.cursor()
    name = '"6a8f8b2e9d7211ee8c900242ac120002"'
    for failing in ("INSERT INTO conf_move (name) VALUES ('m1')", "INSERT INTO conf_line (move_id) VALUES (-1)", "SELECT * FROM nothing_there", "SELECT 1/0",
                    "SELEC", "UPDATE conf_move SET id = NULL WHERE name = 'm1'"):
        cr.execute("SAVEPOINT " + name)
        refused(cr.execute, failing)
        show(conn.info.transaction_status)
        refused(cr.execute, "SELECT 1")
        cr.execute("ROLLBACK TO SAVEPOINT " + name)
        cr.execute("RELEASE SAVEPOINT " + name)
    cr.execute("SELECT count(*) FROM conf_move")
    show(cr.fetchall(), conn.info.transaction_status)
    conn.rollback()
    refused(cr.execute, "INSERT INTO conf_line DEFAULT VALUES; SELECT 1/0; SELECT 2")
    conn.rollback()
    cr.execute("SELECT count(*) FROM conf_line")
    show(cr.fetchall())
    conn.close()


def named_cursors():
    conn = worker()
    cr = conn.cursor("channel_jobs", withhold=True)
    cr.itersize = 100
    cr.execute("SELECT g FROM generate_series(1, 1050) g")
    show(sum(r[0] for r in cr))
    conn.commit()
    cr.close()
    cr = conn.cursor("scrolls", scrollable=True)
    cr.execute("SELECT g FROM generate_series(1, 100) g")
    show(cr.fetchmany(3))
    cr.scroll(-2)
    show(cr.fetchone())
    cr.scroll(50, mode="absolute")
    show(cr.fetchmany(2))
    conn.rollback()
    refused(cr.fetchone)
    conn.close()


def row_locks():
    a, b = worker(), worker()
    ca, cb = a.cursor(), b.cursor()
    ca.execute("SELECT id FROM conf_move WHERE name = 'm1' FOR UPDATE")
    show(ca.rowcount)
    refused(cb.execute, "SELECT id FROM conf_move WHERE name = 'm1' FOR NO KEY UPDATE NOWAIT; UPDATE conf_move SET amount = 1 WHERE name = 'm1'")
    b.rollback()
    cb.execute("SELECT name FROM conf_move WHERE name IN ('m1', 'm2') FOR NO KEY UPDATE SKIP LOCKED")
    show(cb.fetchall())
    b.rollback()
    cb.execute("SET LOCAL lock_timeout TO '50ms'")
    refused(cb.execute, "LOCK conf_move IN ACCESS EXCLUSIVE MODE")
    b.rollback()
    cb.execute("SHOW lock_timeout")
    show(cb.fetchall())
    a.close()
    b.close()


def serialisation():
    a, b = worker(), worker()
    ca, cb = a.cursor(), b.cursor()
    ca.execute("SELECT count(*) FROM conf_move")
    cb.execute("UPDATE conf_move SET amount = 7 WHERE name = 'm3'")
    b.commit()
    refused(ca.execute, "UPDATE conf_move SET amount = 8 WHERE name = 'm3'")
    a.rollback()
    a.close()
    b.close()


def bus():
    listener, conn = connect(), worker()
    listener.set_session(autocommit=True)
    listener.cursor().execute("LISTEN imbus")
    cr = conn.cursor()
    cr.execute("SELECT pg_notify('imbus', %s)", ("x" * 7000,))
    cr.execute("NOTIFY imbus, 'second'")
    show(select.select([listener], [], [], 0.2)[0])
    conn.commit()
    while len(listener.notifies) < 2:
        if not select.select([listener], [], [], 30)[0]:
            show("nothing came")
            break
        listener.poll()
    show([(n.channel, len(n.payload), n.pid == conn.info.backend_pid) for n in listener.notifies])
    conn.close()
    listener.close()


def copying():
    conn = worker()
    cr = conn.cursor()
    cr.copy_expert("COPY conf_move (name) FROM STDIN", io.StringIO("".join("copied%d\n" % i for i in range(5000))))
    show(cr.rowcount, cr.statusmessage)
    out = io.StringIO()
    cr.copy_expert("COPY (SELECT name FROM conf_move WHERE name LIKE 'copied%' ORDER BY id) TO STDOUT WITH CSV HEADER", out)
    show(len(out.getvalue()), out.getvalue()[:20])
    conn.commit()
    refused(cr.copy_expert, "COPY conf_move (amount) FROM STDIN", io.StringIO("1\n2\nthree\n4\n"))
    conn.rollback()
    refused(cr.copy_expert, "COPY conf_move (name) FROM STDIN", io.StringIO("copied1\n"))
    conn.rollback()
    cr.execute("SELECT count(*) FROM conf_move")
    show(cr.fetchall())
    conn.close()


def cancelling():
    conn = worker()
    cr = conn.cursor()
    timer = threading.Timer(0.5, conn.cancel)
    timer.start()
    refused(cr.execute, "SELECT pg_sleep(60)")
    timer.join()
    show(conn.info.transaction_status)
    conn.rollback()
    cr.execute("SELECT 'still here'")
    show(cr.fetchall())
    conn.close()


def borrowed_again():
    conn = worker()
    cr = conn.cursor()
    cr.execute("SET statement_timeout = 100; CREATE TEMP TABLE left_over (); LISTEN left_over")
    conn.commit()
    refused(cr.execute, "SELECT pg_sleep(60)")
    conn.reset()
    cr = conn.cursor()
    cr.execute("SHOW statement_timeout")
    show(cr.fetchall())
    refused(cr.execute, "SELECT * FROM left_over")
    conn.close()


def two_phases():
    conn = connect()
    xid = conn.xid(42, "conformance", "odoo")
    conn.tpc_begin(xid)
    conn.cursor().execute("INSERT INTO conf_move (name) VALUES ('two phases')")
    conn.tpc_prepare()
    conn.reset()
    show([(x.format_id, x.gtrid, x.bqual) for x in conn.tpc_recover()])
    conn.rollback()
    conn.tpc_commit(xid)
    cr = conn.cursor()
    cr.execute("SELECT count(*) FROM conf_move WHERE name = 'two phases'")
    show(cr.fetchall())
    conn.close()


def large_objects():
    conn = connect()
    lo = conn.lobject(0, "wb")
    show(lo.write(b"abc" * 100000), lo.tell(), lo.seek(10), lo.tell())
    oid = lo.oid
    lo.close()
    lo = conn.lobject(oid, "rb")
    show(len(lo.read()))
    lo.unlink()
    conn.commit()
    refused(conn.lobject, oid, "rb")
    conn.close()


def notices():
    conn = connect()
    cr = conn.cursor()
    cr.execute("DO $$ BEGIN FOR i IN 1..60 LOOP RAISE NOTICE 'notice %', i; END LOOP; END $$")
    cr.execute("SET LOCAL client_min_messages = debug1; DROP TABLE IF EXISTS not_there; CREATE TEMP TABLE t (id serial)")
    show(len(conn.notices), conn.notices[-3:])
    conn.close()


def encodings():
    conn = connect()
    conn.set_client_encoding("LATIN1")
    cr = conn.cursor()
    cr.execute("SELECT %s, length(%s)", ("naïve", "naïve"))
    show(cr.fetchall(), conn.encoding)
    refused(cr.execute, "SELECT chr(9731)")
    conn.close()


def terminated():
    victim, conn = connect(), connect()
    cr = conn.cursor()
    victim.cursor().execute("SELECT 1")
    cr.execute("SELECT pg_terminate_backend(%s, 10000)", (victim.info.backend_pid,))
    show(cr.fetchall())
    refused(victim.cursor().execute, "SELECT 1")
    show(victim.closed)
    conn.close()


def asynchronous():
    conn = psycopg2.connect("", async_=True)

    def wait():
        while True:
            state = conn.poll()
            if state == psycopg2.extensions.POLL_OK:
                return
            select.select([conn] if state == psycopg2.extensions.POLL_READ else [], [conn] if state == psycopg2.extensions.POLL_WRITE else [], [], 30)

    wait()
    cr = conn.cursor()
    cr.execute("SELECT count(*) FROM generate_series(1, 100000)")
    wait()
    show(cr.fetchall())
    cr.execute("SELECT 1/0")
    refused(wait)
    conn.close()


def strangers():
    for bad in ({"dbname": "not_there"}, {"user": "nobody_of_that_name"}, {"options": "-c nonsense=1"}, {"options": "-c work_mem=nonsense"}):
        logged_in(**bad)
    conn = logged_in(options="-c search_path=pg_catalog -c statement_timeout=12345 -c DateStyle=German,DMY -c TimeZone=Asia/Tokyo")
    if conn:
        cr = conn.cursor()
        cr.execute("SELECT current_setting('search_path'), current_setting('statement_timeout'), '2026-02-01'::timestamptz::text")
        show(cr.fetchall(), conn.info.parameter_status("TimeZone"))
        conn.close()


def logged_in(**options):
    """Connects, or shows what the server said; libpq puts the port before it."""
    try:
        return psycopg2.connect("", **options)
    except psycopg2.OperationalError as e:
        show(str(e).strip().split("FATAL:")[-1])


run([connection, registry, values, savepoints, named_cursors, row_locks, serialisation, bus, copying, cancelling, borrowed_again, two_phases,
     large_objects, notices, encodings, terminated, asynchronous, strangers])
