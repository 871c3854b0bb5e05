// `java Client FEATURE`: MariaDB's connector for Java; see the README of tests/integration/clients.

import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.Driver;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Types;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

final class Client {
    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    private static final String SQL = System.getenv("ODP_SQL");
    private static final Map<String, String> OPTIONS = Map.of(
            "prepare", "&useServerPrepStmts=true",
            "tls", "&useSsl=true&serverSslCert=" + System.getenv("ODP_CA"),
            "compression", "&useCompression=true");

    private static Connection open(String feature) throws SQLException {
        String url = String.format(
                "jdbc:mariadb://%s:%s/%s?tinyInt1isBit=false%s",
                System.getenv("ODP_HOST"),
                System.getenv("ODP_PORT"),
                System.getenv("ODP_DATABASE"),
                OPTIONS.getOrDefault(feature, ""));
        return DriverManager.getConnection(url, System.getenv("ODP_USER"), System.getenv("ODP_PASSWORD"));
    }

    // -- JSON -------------------------------------------------------------------------------------------------------

    private static String quote(String text) {
        if (text == null) {
            return "null";
        }
        StringBuilder quoted = new StringBuilder("\"");
        for (char each : text.toCharArray()) {
            if (each < ' ' || each == '"' || each == '\\') {
                quoted.append(String.format("\\u%04x", (int) each));
            } else {
                quoted.append(each);
            }
        }
        return quoted.append('"').toString();
    }

    private static String error(SQLException error) {
        return String.format(
                "{\"code\": %d, \"sqlstate\": %s, \"message\": %s}",
                error.getErrorCode(), quote(error.getSQLState()), quote(error.getMessage()));
    }

    private static String value(ResultSet found, int column, int type) throws SQLException {
        if (type == Types.VARBINARY) {
            byte[] bytes = found.getBytes(column);
            if (bytes == null) {
                return "null";
            }
            StringBuilder digits = new StringBuilder();
            for (byte each : bytes) {
                digits.append(String.format("%02X", each));
            }
            return quote(digits.toString());
        }
        String text = found.getString(column);
        if (type == Types.TIME && text != null) {
            text = text.replaceFirst("\\.0+$", ""); // version 2 adds it to the values of prepared statements
        }
        return quote(text);
    }

    private static List<String> rows(ResultSet found) throws SQLException {
        ResultSetMetaData columns = found.getMetaData();
        List<String> rows = new ArrayList<>();
        while (found.next()) {
            List<String> row = new ArrayList<>();
            for (int column = 1; column <= columns.getColumnCount(); column++) {
                row.add(value(found, column, columns.getColumnType(column)));
            }
            rows.add(row.toString());
        }
        return rows;
    }

    // -- features ---------------------------------------------------------------------------------------------------

    private static List<String> ask(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            return rows(statement.executeQuery(sql));
        }
    }

    /** Tell the connection's id, and wait until the test has done something about it. */
    private static void pause(Connection connection) throws SQLException, IOException {
        try (Statement statement = connection.createStatement()) {
            ResultSet found = statement.executeQuery("SELECT CONNECTION_ID()");
            found.next();
            OUT.println("{\"id\": " + quote(found.getString(1)) + "}");
        }
        System.in.read();
    }

    private static String prepared(Connection connection) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(SQL)) {
            statement.setString(1, "Grüße ☃");
            statement.setInt(2, 1);
            List<String> rows = rows(statement.executeQuery());
            statement.setNull(1, Types.VARCHAR);
            statement.setInt(2, 2);
            rows.addAll(rows(statement.executeQuery()));
            return "{\"rows\": " + rows + "}";
        }
    }

    private static String sizes(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.setFetchSize(1000); // else it reads all rows at once
            ResultSet found = statement.executeQuery(SQL);
            long count = 0;
            long length = 0;
            while (found.next()) {
                count += 1;
                length += found.getString(2).length();
            }
            return String.format("{\"rows\": [[%d, %d]]}", count, length);
        }
    }

    private static String failures(Connection connection) {
        List<String> errors = new ArrayList<>();
        List<String> rows = List.of();
        for (String sql : SQL.split("\n")) {
            try {
                rows = ask(connection, sql);
                errors.add("null");
            } catch (SQLException error) {
                errors.add(error(error));
            }
        }
        return "{\"errors\": " + errors + ", \"rows\": " + rows + "}";
    }

    private static String reconnect(Connection connection) throws SQLException, IOException {
        pause(connection);
        String error = "null";
        try {
            ask(connection, SQL);
        } catch (SQLException caught) {
            error = error(caught);
        }
        try (Connection next = open("connect")) {
            return "{\"error\": " + error + ", \"rows\": " + ask(next, SQL) + "}";
        }
    }

    private static String run(String feature) throws SQLException, IOException {
        if (feature.equals("version")) {
            Driver driver = DriverManager.getDriver("jdbc:mariadb://localhost/");
            String version = driver.getMajorVersion() + "." + driver.getMinorVersion();
            return "{\"version\": " + quote(version) + "}";
        }
        try (Connection connection = open(feature)) {
            if (feature.equals("tls") || feature.equals("compression")) {
                pause(connection);
            }
            switch (feature) {
                case "error":
                    return failures(connection);
                case "reconnect_after_kill":
                    return reconnect(connection);
                case "prepare":
                    return prepared(connection);
                case "large_result":
                case "compression":
                    return sizes(connection);
                default:
                    return "{\"rows\": " + ask(connection, SQL) + "}";
            }
        } catch (SQLException error) {
            return "{\"error\": " + error(error) + "}";
        }
    }

    public static void main(String[] arguments) throws SQLException, IOException {
        OUT.println(run(arguments[0]));
    }
}
