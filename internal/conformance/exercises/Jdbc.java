import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.math.BigDecimal;
import java.sql.*;
import java.util.Arrays;
import java.util.Properties;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyManager;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;

/** pgJDBC: its own implementation of the protocol; batches, portals with a fetch size, COPY, large objects by function call. */
public class Jdbc {
    interface Step {
        void run(Connection c) throws Exception;
    }

    static Connection connect(String... options) throws SQLException {
        Properties p = new Properties();
        p.setProperty("user", System.getenv("PGUSER"));
        p.setProperty("sslmode", "disable");
        for (int i = 0; i < options.length; i += 2) {
            p.setProperty(options[i], options[i + 1]);
        }
        return DriverManager.getConnection(
                "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE"), p);
    }

    static void show(Object... values) {
        System.out.println(Arrays.deepToString(values));
    }

    /** An error's text on one line; no two large objects have the same number. */
    static String text(SQLException e) {
        return e.getMessage().replace("\n", " | ").replaceAll("large object \\d+", "large object");
    }

    static void refused(Step step, Connection c) throws Exception {
        try {
            step.run(c);
            show("not refused");
        } catch (BatchUpdateException e) {
            show(e.getSQLState(), text(e), Arrays.toString(e.getUpdateCounts()));
        } catch (SQLException e) {
            show(e.getClass().getSimpleName(), e.getSQLState(), text(e));
        }
    }

    static void step(String name, Step step, String... options) {
        System.out.println("== " + name);
        try (Connection c = connect(options)) {
            step.run(c);
        } catch (Throwable e) {
            System.out.println("!! " + e.toString().replace("\n", " | "));
        }
    }

    static Object one(Connection c, String sql) throws SQLException {
        try (Statement s = c.createStatement(); ResultSet r = s.executeQuery(sql)) {
            r.next();
            return r.getObject(1);
        }
    }

    static void exec(Connection c, String sql) throws SQLException {
        try (Statement s = c.createStatement()) {
            s.execute(sql);
        }
    }

    static void queries(Connection c) throws Exception {
        PreparedStatement s = c.prepareStatement("SELECT CAST(? AS int) + 1, CAST(? AS text), CAST(? AS numeric), decode(?, 'hex'), CAST(? AS timestamp)");
        for (int i = 0; i < 8; i++) { // from the fifth on it is a named statement
            s.setInt(1, i);
            s.setString(2, "text ☃ " + i);
            s.setBigDecimal(3, new BigDecimal("1.2300"));
            s.setString(4, "00ff07");
            s.setTimestamp(5, Timestamp.valueOf("2026-02-28 23:59:59.999999"));
            try (ResultSet r = s.executeQuery()) {
                r.next();
                show(r.getInt(1), r.getString(2), r.getBigDecimal(3), r.getBytes(4), r.getTimestamp(5).toString());
            }
        }
        refused(x -> exec(x, "SELECT 1/0"), c);
        refused(x -> exec(x, "SELEC 1"), c);
        exec(c, "CREATE TEMP TABLE several (id int)");
        exec(c, "SELECT 1; SELECT 2; INSERT INTO several VALUES (1), (2); INSERT INTO several VALUES (3)");
        show(one(c, "SELECT count(*) FROM several"), ((PGConnection) c).getBackendPID() == (Integer) one(c, "SELECT pg_backend_pid()"));
    }

    static void batches(Connection c) throws Exception {
        exec(c, "CREATE TEMP TABLE batch (id serial PRIMARY KEY, n int UNIQUE, t text)");
        PreparedStatement s = c.prepareStatement("INSERT INTO batch (n, t) VALUES (?, ?)", Statement.RETURN_GENERATED_KEYS);
        for (int i = 0; i < 1000; i++) {
            s.setInt(1, i);
            s.setString(2, "t" + i);
            s.addBatch();
        }
        show(Arrays.stream(s.executeBatch()).sum());
        ResultSet keys = s.getGeneratedKeys();
        int n = 0;
        while (keys.next()) {
            n += keys.getInt(1);
        }
        show(n);
        for (int i : new int[] {5000, 5001, 7, 5002}) {
            s.setInt(1, i);
            s.setString(2, "again");
            s.addBatch();
        }
        refused(x -> s.executeBatch(), c);
        show(one(c, "SELECT count(*) FROM batch"));
    }

    static void portals(Connection c) throws Exception {
        c.setAutoCommit(false);
        PreparedStatement s = c.prepareStatement("SELECT g FROM generate_series(1, ?) g");
        s.setInt(1, 1000);
        s.setFetchSize(33);
        long sum = 0;
        try (ResultSet r = s.executeQuery()) {
            while (r.next()) {
                sum += r.getInt(1);
            }
        }
        show(sum);
        Savepoint p = c.setSavepoint("one");
        refused(x -> exec(x, "SELECT * FROM nothing_there"), c);
        refused(x -> exec(x, "SELECT 1"), c);
        c.rollback(p);
        show(one(c, "SELECT 1"));
        c.commit();
        c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
        c.setReadOnly(true);
        refused(x -> exec(x, "CREATE TABLE not_now ()"), c);
        c.rollback();
    }

    static void copying(Connection c) throws Exception {
        exec(c, "CREATE TEMP TABLE copied (id int, t text)");
        CopyManager copy = ((PGConnection) c).getCopyAPI();
        StringBuilder b = new StringBuilder();
        for (int i = 0; i < 5000; i++) {
            b.append(i).append("\ttext ").append(i).append('\n');
        }
        show(copy.copyIn("COPY copied FROM STDIN", new StringReader(b.toString())));
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        show(copy.copyOut("COPY copied TO STDOUT (FORMAT binary)", out), out.size());
        refused(x -> copy.copyIn("COPY copied FROM STDIN", new ByteArrayInputStream("x\ty\n".getBytes())), c);
        show(one(c, "SELECT count(*) FROM copied"));
    }

    static void largeObjects(Connection c) throws Exception {
        c.setAutoCommit(false);
        LargeObjectManager m = ((PGConnection) c).getLargeObjectAPI();
        long oid = m.createLO();
        LargeObject o = m.open(oid);
        o.write(new byte[200000]);
        o.seek(10);
        show(o.tell(), o.read(50).length, o.size());
        o.close();
        m.delete(oid);
        refused(x -> m.open(oid), c);
        c.commit();
    }

    static void cancelling(Connection c) throws Exception {
        Statement s = c.createStatement();
        s.setQueryTimeout(1);
        refused(x -> s.execute("SELECT pg_sleep(60)"), c);
        s.setQueryTimeout(0);
        show(one(c, "SELECT 'still here'"));
    }

    static void notifications(Connection c) throws Exception {
        exec(c, "LISTEN chan");
        try (Connection other = connect()) {
            exec(other, "NOTIFY chan, 'payload'");
            for (PGNotification n : ((PGConnection) c).getNotifications(30000)) {
                show(n.getName(), n.getParameter(), n.getPID() == ((PGConnection) other).getBackendPID());
            }
        }
    }

    static void catalogue(Connection c) throws Exception {
        exec(c, "CREATE TEMP TABLE looked_at (id serial PRIMARY KEY, n numeric(10,2) NOT NULL, t varchar(20))");
        try (ResultSet r = c.getMetaData().getColumns(null, null, "looked_at", null)) {
            while (r.next()) {
                show(r.getString("COLUMN_NAME"), r.getString("TYPE_NAME"), r.getInt("COLUMN_SIZE"), r.getInt("NULLABLE"));
            }
        }
        show(c.getMetaData().getDatabaseMajorVersion(), c.isValid(10), c.getClientInfo("ApplicationName"));
    }

    public static void main(String[] args) {
        step("queries", Jdbc::queries);
        step("queries in the simple protocol", Jdbc::queries, "preferQueryMode", "simple");
        step("queries prepared at once", Jdbc::queries, "prepareThreshold", "-1");
        step("batches", Jdbc::batches);
        step("batches rewritten", Jdbc::batches, "reWriteBatchedInserts", "true");
        step("portals", Jdbc::portals);
        step("copying", Jdbc::copying);
        step("large objects", Jdbc::largeObjects);
        step("cancelling", Jdbc::cancelling);
        step("notifications", Jdbc::notifications);
        step("catalogue", Jdbc::catalogue);
    }
}
