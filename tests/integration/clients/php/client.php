<?php
// `php client.php CLASS FEATURE`: mysqli and PDO; see the README of tests/integration/clients.
declare(strict_types=1);

const PARAMETERS = [["Grüße ☃", 1], [null, 2]];

/** What both classes do by the same names. */
abstract class Client
{
    /** Return all rows of a statement, as lists. */
    abstract public function ask(string $sql): array;

    abstract public function prepared(string $sql): array;

    /** Call a function with each row, as it comes. */
    abstract public function each(string $sql, callable $tell): void;

    /** Return what an exception says of an error. */
    abstract public static function error(Exception $caught): array;
}

function of_environment(string $name): string
{
    return (string) getenv("ODP_" . strtoupper($name));
}

final class OfMysqli extends Client
{
    private mysqli $inner;

    public function __construct(string $feature)
    {
        mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
        $this->inner = mysqli_init();
        $flags = ["tls" => MYSQLI_CLIENT_SSL, "compression" => MYSQLI_CLIENT_COMPRESS][$feature] ?? 0;
        if ($feature === "tls") {
            $this->inner->options(MYSQLI_OPT_SSL_VERIFY_SERVER_CERT, true);
            $this->inner->ssl_set(null, null, of_environment("ca"), null, null);
        }
        $this->inner->real_connect(
            of_environment("host"),
            of_environment("user"),
            of_environment("password"),
            of_environment("database"),
            (int) of_environment("port"),
            null,
            $flags
        );
        $this->inner->set_charset("utf8mb4");
    }

    public function ask(string $sql): array
    {
        return self::rows($this->inner->query($sql));
    }

    public function prepared(string $sql): array
    {
        $statement = $this->inner->prepare($sql);
        $found = [];
        foreach (PARAMETERS as [$text, $number]) {
            $statement->bind_param("si", $text, $number);
            $statement->execute();
            array_push($found, ...self::rows($statement->get_result()));
        }
        return $found;
    }

    public function each(string $sql, callable $tell): void
    {
        $result = $this->inner->query($sql, MYSQLI_USE_RESULT);
        while ($row = $result->fetch_row()) {
            $tell($row);
        }
    }

    public static function error(Exception $caught): array
    {
        $state = $caught instanceof mysqli_sql_exception ? $caught->getSqlState() : null;
        return ["code" => $caught->getCode(), "sqlstate" => known($state), "message" => $caught->getMessage()];
    }

    private static function rows(mysqli_result $result): array
    {
        $names = array_column($result->fetch_fields(), "name");
        return array_map(fn ($row) => as_json($names, $row), $result->fetch_all(MYSQLI_NUM));
    }
}

final class OfPdo extends Client
{
    private PDO $inner;

    public function __construct(string $feature)
    {
        $options = [PDO::ATTR_EMULATE_PREPARES => false, PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION];
        if ($feature === "tls") {
            $options[PDO::MYSQL_ATTR_SSL_CA] = of_environment("ca");
            $options[PDO::MYSQL_ATTR_SSL_VERIFY_SERVER_CERT] = true;
        }
        if ($feature === "compression") {
            $options[PDO::MYSQL_ATTR_COMPRESS] = true;
        }
        [$host, $port, $database] = array_map("of_environment", ["host", "port", "database"]);
        $this->inner = new PDO(
            "mysql:host=$host;port=$port;dbname=$database;charset=utf8mb4",
            of_environment("user"),
            of_environment("password"),
            $options
        );
    }

    public function ask(string $sql): array
    {
        return self::rows($this->inner->query($sql));
    }

    public function prepared(string $sql): array
    {
        $statement = $this->inner->prepare($sql);
        $found = [];
        foreach (PARAMETERS as [$text, $number]) {
            $statement->bindValue(1, $text);
            $statement->bindValue(2, $number, PDO::PARAM_INT);
            $statement->execute();
            array_push($found, ...self::rows($statement));
        }
        return $found;
    }

    public function each(string $sql, callable $tell): void
    {
        $this->inner->setAttribute(PDO::MYSQL_ATTR_USE_BUFFERED_QUERY, false);
        foreach ($this->inner->query($sql, PDO::FETCH_NUM) as $row) {
            $tell($row);
        }
    }

    public static function error(Exception $caught): array
    {
        [$state, $code, $message] = $caught->errorInfo ?? [null, $caught->getCode(), $caught->getMessage()];
        return ["code" => $code, "sqlstate" => known($state), "message" => $message];
    }

    private static function rows(PDOStatement $statement): array
    {
        $names = [];
        for ($i = 0; $i < $statement->columnCount(); $i++) {
            $names[] = $statement->getColumnMeta($i)["name"];
        }
        return array_map(fn ($row) => as_json($names, $row), $statement->fetchAll(PDO::FETCH_NUM));
    }
}

/** Return a SQLSTATE. HY000 may mean that there is none: mysqlnd does not keep that of a refused login. */
function known(?string $state): ?string
{
    return $state === "HY000" ? null : $state;
}

function as_json(array $names, array $row): array
{
    $raw = array_search("raw", $names, true);
    if ($raw !== false && $row[$raw] !== null) {
        $row[$raw] = strtoupper(bin2hex($row[$raw]));
    }
    return $row;
}

function tell_test(array $value): void
{
    fwrite(STDOUT, json_encode($value, JSON_UNESCAPED_UNICODE | JSON_THROW_ON_ERROR) . "\n");
}

/** Tell the connection's id, and wait until the test has done something about it. */
function pause(Client $client): void
{
    tell_test(["id" => (string) $client->ask("SELECT CONNECTION_ID()")[0][0]]);
    fgets(STDIN);
}

function sizes(Client $client, string $sql): array
{
    $count = $length = 0;
    $client->each($sql, function (array $row) use (&$count, &$length): void {
        $count += 1;
        $length += strlen($row[1]);
    });
    return [[$count, $length]];
}

function failures(Client $client, string $sql): array
{
    $errors = $rows = [];
    foreach (explode("\n", $sql) as $statement) {
        try {
            $rows = $client->ask($statement);
            $errors[] = null;
        } catch (Exception $caught) {
            $errors[] = $client->error($caught);
        }
    }
    return ["errors" => $errors, "rows" => $rows];
}

function reconnect(Client $client, string $sql): array
{
    pause($client);
    $error = null;
    try {
        @$client->ask($sql); // mysqlnd warns, too
    } catch (Exception $caught) {
        $error = $client->error($caught);
    }
    $next = new ($client::class)("connect");
    return ["error" => $error, "rows" => $next->ask($sql)];
}

function run(string $class, string $feature): array
{
    $sql = of_environment("sql");
    if ($feature === "version") {
        return extension_loaded($class === "OfPdo" ? "pdo_mysql" : "mysqli")
            ? ["version" => PHP_VERSION]
            : ["missing" => "PHP with MySQL (Debian: php-mysql)"];
    }
    try {
        $client = @new $class($feature); // that a certificate is refused is warned of, too
        if ($feature === "tls" || $feature === "compression") {
            pause($client);
        }
        return match ($feature) {
            "error" => failures($client, $sql),
            "reconnect_after_kill" => reconnect($client, $sql),
            "large_result", "compression" => ["rows" => sizes($client, $sql)],
            "prepare" => ["rows" => $client->prepared($sql)],
            default => ["rows" => $client->ask($sql)],
        };
    } catch (Exception $caught) {
        return ["error" => $class::error($caught)];
    }
}

tell_test(run($argv[1], $argv[2]));
