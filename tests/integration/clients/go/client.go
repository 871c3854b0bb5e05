// `client FEATURE`: go-sql-driver; see the README of tests/integration/clients.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/ioutil"
	"os"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// The library does not know its version: the linker sets it.
var version string

type object map[string]interface{}

type asker interface {
	QueryContext(context.Context, string, ...interface{}) (*sql.Rows, error)
}

var (
	always    = context.Background()
	statement = os.Getenv("ODP_SQL")
)

func print(value object) {
	if err := json.NewEncoder(os.Stdout).Encode(value); err != nil {
		panic(err)
	}
}

func open(feature string) (*sql.DB, error) {
	config := mysql.NewConfig()
	config.User, config.Passwd = os.Getenv("ODP_USER"), os.Getenv("ODP_PASSWORD")
	config.Net, config.Addr = "tcp", os.Getenv("ODP_HOST")+":"+os.Getenv("ODP_PORT")
	config.DBName = os.Getenv("ODP_DATABASE")
	if feature == "tls" {
		text, err := ioutil.ReadFile(os.Getenv("ODP_CA"))
		if err != nil {
			return nil, err
		}
		trusted := x509.NewCertPool()
		trusted.AppendCertsFromPEM(text)
		checks := &tls.Config{RootCAs: trusted, ServerName: os.Getenv("ODP_HOST")}
		if err := mysql.RegisterTLSConfig("checking", checks); err != nil {
			return nil, err
		}
		config.TLSConfig = "checking"
	}
	return sql.Open("mysql", config.FormatDSN())
}

func describe(err error) object {
	var told *mysql.MySQLError
	if errors.As(err, &told) { // version 1.5 does not keep the SQLSTATE
		return object{"code": told.Number, "sqlstate": nil, "message": told.Message}
	}
	return object{"code": nil, "sqlstate": nil, "message": err.Error()}
}

func read(found *sql.Rows) ([][]interface{}, error) {
	defer found.Close()
	columns, err := found.ColumnTypes()
	if err != nil {
		return nil, err
	}
	rows := [][]interface{}{}
	for found.Next() {
		values := make([]sql.NullString, len(columns))
		into := make([]interface{}, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := found.Scan(into...); err != nil {
			return nil, err
		}
		row := make([]interface{}, len(columns))
		for i, value := range values {
			if value.Valid && columns[i].DatabaseTypeName() == "VARBINARY" {
				row[i] = strings.ToUpper(hex.EncodeToString([]byte(value.String)))
			} else if value.Valid {
				row[i] = value.String
			}
		}
		rows = append(rows, row)
	}
	return rows, found.Err()
}

func ask(from asker, text string) ([][]interface{}, error) {
	found, err := from.QueryContext(always, text)
	if err != nil {
		return nil, err
	}
	return read(found)
}

// Tell the connection's id, and wait until the test has done something about it.
func pause(connection *sql.Conn) error {
	var id string
	if err := connection.QueryRowContext(always, "SELECT CONNECTION_ID()").Scan(&id); err != nil {
		return err
	}
	print(object{"id": id})
	bufio.NewReader(os.Stdin).ReadString('\n')
	return nil
}

func prepared(connection *sql.Conn) (object, error) {
	ready, err := connection.PrepareContext(always, statement)
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	rows := [][]interface{}{}
	for _, parameters := range [][]interface{}{{"Grüße ☃", 1}, {nil, 2}} {
		found, err := ready.QueryContext(always, parameters...)
		if err != nil {
			return nil, err
		}
		more, err := read(found)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return object{"rows": rows}, nil
}

func sizes(connection *sql.Conn) (object, error) {
	found, err := connection.QueryContext(always, statement)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	count, length := 0, 0
	for found.Next() {
		var id, text string
		if err := found.Scan(&id, &text); err != nil {
			return nil, err
		}
		count, length = count+1, length+len(text)
	}
	return object{"rows": [][]int{{count, length}}}, found.Err()
}

func failures(connection *sql.Conn) (object, error) {
	told, rows := []interface{}{}, [][]interface{}{}
	for _, text := range strings.Split(statement, "\n") {
		found, err := ask(connection, text)
		if err != nil {
			told = append(told, describe(err))
		} else {
			told, rows = append(told, nil), found
		}
	}
	return object{"errors": told, "rows": rows}, nil
}

func reconnect(pool *sql.DB, connection *sql.Conn) (object, error) {
	if err := pause(connection); err != nil {
		return nil, err
	}
	_, lost := ask(connection, statement)
	connection.Close()
	rows, err := ask(pool, statement)
	if lost == nil || err != nil {
		return object{"rows": rows}, err
	}
	return object{"error": describe(lost), "rows": rows}, nil
}

func run(feature string) (object, error) {
	if feature == "version" {
		return object{"version": version}, nil
	}
	pool, err := open(feature)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	connection, err := pool.Conn(always)
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	switch feature {
	case "tls":
		if err := pause(connection); err != nil {
			return nil, err
		}
	case "error":
		return failures(connection)
	case "reconnect_after_kill":
		return reconnect(pool, connection)
	case "prepare":
		return prepared(connection)
	case "large_result":
		return sizes(connection)
	}
	rows, err := ask(connection, statement)
	return object{"rows": rows}, err
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: client FEATURE")
		os.Exit(2)
	}
	found, err := run(os.Args[1])
	if err != nil {
		found = object{"error": describe(err)}
	}
	print(found)
}
