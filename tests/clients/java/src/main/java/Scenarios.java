import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonObject;
import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintWriter;
import java.io.StringReader;
import java.io.StringWriter;
import java.net.URI;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.IntStream;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;

/**
 * pgjdbc with HikariCP. It prepares on the server, by a name, what it has executed five times.
 *
 * A scenario and a URL in, its result out, line by line, as in ../python/program.py.
 */
public final class Scenarios {
    private static final String TABLE = "scenario_pgjdbc";

    interface Scenario {
        Object run(String url) throws Exception;
    }

    interface Work<T, R> {
        R apply(T given) throws Exception;
    }

    /** The same address in the words of JDBC: postgresql://user:password@host:port/database?application_name=... */
    static String jdbc(String url) {
        URI parts = URI.create(url);
        String[] who = parts.getUserInfo().split(":");
        String more = parts.getQuery().replace("application_name=", "ApplicationName=");
        String place = parts.getHost() + ":" + parts.getPort() + parts.getPath();
        return "jdbc:postgresql://" + place + "?user=" + who[0] + "&password=" + who[1] + "&" + more;
    }

    static Connection connect(String url) throws SQLException {
        return DriverManager.getConnection(jdbc(url));
    }

    static HikariDataSource pool(String url, int size, long patience) {
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl(jdbc(url));
        config.setMaximumPoolSize(size);
        config.setMinimumIdle(0);
        config.setConnectionTimeout(patience);
        config.setInitializationFailTimeout(-1);
        return new HikariDataSource(config);
    }

    static Map<String, Object> found(Object... pairs) {
        Map<String, Object> found = new LinkedHashMap<>();
        for (int i = 0; i < pairs.length; i += 2) {
            found.put((String) pairs[i], pairs[i + 1]);
        }
        return found;
    }

    static void run(Connection on, String query) throws SQLException {
        try (Statement statement = on.createStatement()) {
            statement.execute(query);
        }
    }

    static Object value(Connection on, String query, Object... arguments) throws SQLException {
        try (PreparedStatement statement = on.prepareStatement(query)) {
            return value(statement, arguments);
        }
    }

    static Object value(PreparedStatement statement, Object... arguments) throws SQLException {
        for (int i = 0; i < arguments.length; i++) {
            statement.setObject(i + 1, arguments[i]);
        }
        try (ResultSet rows = statement.executeQuery()) {
            rows.next();
            return rows.getObject(1);
        }
    }

    static String codeOf(Connection on, String query) {
        try {
            run(on, query);
            return null;
        } catch (SQLException error) {
            return error.getSQLState();
        }
    }

    static <R> List<R> atOnce(int count, Work<Integer, R> work) throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(count);
        try {
            List<Callable<R>> calls = new ArrayList<>();
            IntStream.range(0, count).forEach(i -> calls.add(() -> work.apply(i)));
            List<R> all = new ArrayList<>();
            for (Future<R> one : threads.invokeAll(calls)) {
                all.add(one.get());
            }
            return all;
        } finally {
            threads.shutdown();
        }
    }

    static Object connectByUrl(String url) throws Exception {
        String query = "SELECT current_setting('application_name'), current_database(), current_user, 42";
        try (Connection one = connect(url); Statement statement = one.createStatement()) {
            ResultSet row = statement.executeQuery(query);
            row.next();
            return found("application_name", row.getString(1), "database", row.getString(2), "user", row.getString(3),
                    "answer", row.getInt(4));
        }
    }

    static Object pool(String url) throws Exception {
        try (HikariDataSource shared = pool(url, 5, 10_000)) {
            return found("rows", atOnce(40, i -> {
                try (Connection one = shared.getConnection()) {
                    return value(one, "SELECT ?::int * 2", i);
                }
            }));
        }
    }

    static Object crowd(String url) throws Exception {
        try (HikariDataSource shared = pool(url, 8, 10_000)) {
            List<Connection> clients = atOnce(8, i -> shared.getConnection());
            Object rows = atOnce(8, client -> {
                List<Object> turns = new ArrayList<>();
                Connection own = clients.get(client);
                own.setAutoCommit(false);
                for (int i = 0; i < 5; i++) {
                    Object last = null;
                    for (int again = 0; again < 2; again++) {
                        last = value(own, "SELECT ?::int", 100 * client + i);
                    }
                    turns.add(last);
                    own.commit();
                }
                own.close();
                return turns;
            });
            return found("rows", rows);
        }
    }

    static Object preparedStatements(String url) throws Exception {
        List<Object> first = new ArrayList<>();
        List<Object> second = new ArrayList<>();
        try (Connection one = connect(url); Connection other = connect(url);
                PreparedStatement plus = one.prepareStatement("SELECT ?::int + 1");
                PreparedStatement word = other.prepareStatement("SELECT 'x' || ?::text")) {
            for (int i = 0; i < 8; i++) {
                first.add(value(plus, i));
            }
            other.setAutoCommit(false);
            for (int i = 0; i < 8; i++) {
                second.add(value(word, String.valueOf(i)));
            }
            for (int i = 8; i < 11; i++) {
                first.add(value(plus, i));
            }
            other.commit();
        }
        return found("one", first, "other", second);
    }

    static Object transactions(String url) throws Exception {
        try (Connection one = connect(url)) {
            run(one, "DROP TABLE IF EXISTS " + TABLE + "; CREATE TABLE " + TABLE + " (a int)");
            one.setAutoCommit(false);
            one.setTransactionIsolation(Connection.TRANSACTION_REPEATABLE_READ);
            String insert = "INSERT INTO " + TABLE + " VALUES ";
            run(one, insert + "(1)");
            one.commit();
            run(one, insert + "(2)");
            one.rollback();
            run(one, insert + "(3)");
            Savepoint here = one.setSavepoint();
            run(one, insert + "(4)");
            one.rollback(here);
            one.commit();
            List<Integer> rows = new ArrayList<>();
            try (PreparedStatement select = one.prepareStatement("SELECT a FROM " + TABLE + " ORDER BY a")) {
                select.setFetchSize(1); // by a portal that is executed in parts
                for (ResultSet row = select.executeQuery(); row.next();) {
                    rows.add(row.getInt(1));
                }
            }
            run(one, "DROP TABLE " + TABLE);
            one.commit();
            return found("rows", rows);
        }
    }

    static Object copyIn(String url) throws Exception {
        try (Connection one = connect(url)) {
            run(one, "DROP TABLE IF EXISTS " + TABLE + "; CREATE TABLE " + TABLE + " (a int, b text)");
            StringBuilder lines = new StringBuilder();
            IntStream.rangeClosed(1, 1000).forEach(i -> lines.append(i).append("\trow ").append(i).append("\n"));
            StringReader source = new StringReader(lines.toString());
            one.unwrap(PGConnection.class).getCopyAPI().copyIn("COPY " + TABLE + " FROM STDIN", source);
            Object count = value(one, "SELECT count(*)::int FROM " + TABLE);
            Object sum = value(one, "SELECT sum(a)::int FROM " + TABLE);
            run(one, "DROP TABLE " + TABLE);
            return found("count", count, "sum", sum);
        }
    }

    static Object copyOut(String url) throws Exception {
        try (Connection one = connect(url)) {
            StringWriter target = new StringWriter();
            String query = "COPY (SELECT g, 'row ' || g FROM generate_series(1, 1000) g) TO STDOUT CSV";
            one.unwrap(PGConnection.class).getCopyAPI().copyOut(query, target);
            String[] lines = target.toString().trim().split("\n");
            return found("count", lines.length, "last", lines[lines.length - 1]);
        }
    }

    static Object listen(String url) throws Exception {
        try (Connection listener = connect(url); Connection other = connect(url)) {
            run(listener, "LISTEN scenario_pgjdbc");
            for (String payload : List.of("one", "two")) {
                value(other, "SELECT pg_notify('scenario_pgjdbc', ?)::text", payload);
            }
            List<String> heard = new ArrayList<>();
            long end = System.nanoTime() + 3_000_000_000L;
            while (heard.size() < 2 && System.nanoTime() < end) {
                PGNotification[] told = listener.unwrap(PGConnection.class).getNotifications(500);
                Arrays.stream(told == null ? new PGNotification[0] : told).forEach(n -> heard.add(n.getParameter()));
            }
            return found("heard", heard);
        }
    }

    static Object cancel(String url) throws Exception {
        try (Connection one = connect(url); Statement statement = one.createStatement()) {
            Thread canceller = new Thread(() -> {
                try {
                    Thread.sleep(100);
                    statement.cancel();
                } catch (InterruptedException | SQLException error) {
                    throw new IllegalStateException(error);
                }
            });
            canceller.start();
            String code = null;
            try {
                statement.execute("SELECT pg_sleep(30)");
            } catch (SQLException error) {
                code = error.getSQLState();
            }
            canceller.join();
            return found("code", code, "after", value(one, "SELECT 1"));
        }
    }

    static Object errors(String url) throws Exception {
        try (Connection one = connect(url)) {
            run(one, "DROP TABLE IF EXISTS " + TABLE + "; CREATE TABLE " + TABLE + " (a int PRIMARY KEY)");
            String unique = codeOf(one, "INSERT INTO " + TABLE + " VALUES (1), (1)");
            String syntax = codeOf(one, "SELEC 1");
            run(one, "DROP TABLE " + TABLE);
            one.setAutoCommit(false);
            codeOf(one, "SELECT 1/0");
            String aborted = codeOf(one, "SELECT 1");
            one.rollback();
            return found("unique", unique, "syntax", syntax, "aborted", aborted, "after", value(one, "SELECT 1"));
        }
    }

    /** What a pool throws names its own patience; what the server said is the innermost cause. */
    static SQLException root(SQLException error) {
        SQLException innermost = error;
        for (Throwable cause = error; cause != null; cause = cause.getCause()) {
            innermost = cause instanceof SQLException said ? said : innermost;
        }
        return innermost;
    }

    /** The error, or null where there was none. */
    static SQLException refused(HikariDataSource shared, boolean inTransaction) {
        try (Connection one = shared.getConnection()) {
            one.setAutoCommit(!inTransaction);
            value(one, "SELECT 1");
            return null;
        } catch (SQLException error) {
            return root(error);
        }
    }

    static Object refusalWhileFull(String url) throws Exception {
        try (Connection holder = connect(url); HikariDataSource shared = pool(url, 1, 3_000)) {
            holder.setAutoCommit(false);
            value(holder, "SELECT 1");
            SQLException error = refused(shared, false);
            holder.rollback();
            return found("code", error.getSQLState(), "message", error.getMessage(), "type", error.getClass().getName());
        }
    }

    static Object recovery(String url, boolean inTransaction) throws Exception {
        try (HikariDataSource shared = pool(url, 1, 3_000)) {
            boolean isRefused;
            try (Connection holder = connect(url)) {
                holder.setAutoCommit(false);
                value(holder, "SELECT 1");
                isRefused = refused(shared, inTransaction) != null && refused(shared, inTransaction) != null;
                holder.rollback();
            }
            List<Object> after = new ArrayList<>();
            for (int i = 0; i < 5; i++) {
                try (Connection one = shared.getConnection()) {
                    after.add(value(one, "SELECT ?::int", i));
                }
            }
            return found("refused", isRefused, "after", after);
        }
    }

    static Object version(String url) {
        return found("driver", org.postgresql.util.DriverInfo.DRIVER_VERSION);
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, Scenario> scenarios = new LinkedHashMap<>();
        scenarios.put("version", Scenarios::version);
        scenarios.put("connect_by_url", Scenarios::connectByUrl);
        scenarios.put("pool", Scenarios::pool);
        scenarios.put("crowd", Scenarios::crowd);
        scenarios.put("prepared_statements", Scenarios::preparedStatements);
        scenarios.put("transactions", Scenarios::transactions);
        scenarios.put("copy_in", Scenarios::copyIn);
        scenarios.put("copy_out", Scenarios::copyOut);
        scenarios.put("listen", Scenarios::listen);
        scenarios.put("cancel", Scenarios::cancel);
        scenarios.put("errors", Scenarios::errors);
        scenarios.put("refusal_while_full", Scenarios::refusalWhileFull);
        scenarios.put("recovery", url -> recovery(url, false));
        scenarios.put("refused_begin", url -> recovery(url, true));
        Gson gson = new GsonBuilder().serializeNulls().disableHtmlEscaping().create();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = lines.readLine()) != null;) {
            JsonObject asked = gson.fromJson(line, JsonObject.class);
            Object answer;
            try {
                String url = asked.get("url").getAsString();
                answer = found("result", scenarios.get(asked.get("scenario").getAsString()).run(url));
            } catch (Exception error) {
                StringWriter told = new StringWriter();
                error.printStackTrace(new PrintWriter(told));
                answer = found("failure", told.toString());
            }
            System.out.println(gson.toJson(answer));
        }
        System.exit(0);
    }
}
