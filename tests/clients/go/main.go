// pgx with its pool. It prepares every statement by a name and keeps what it prepared.
//
// A scenario and a URL in, its result out, line by line, as in ../python/program.py.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"
)

const table = "scenario_pgx"

type found = map[string]any

var background = context.Background()

// A mistake of a scenario ends it; the loop tells it as a failure.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func got[T any](value T, err error) T {
	must(err)
	return value
}

func connect(url string) *pgx.Conn { return got(pgx.Connect(background, url)) }

func poolOf(url string, size int32) *pgxpool.Pool {
	config := got(pgxpool.ParseConfig(url))
	config.MaxConns = size
	return got(pgxpool.NewWithConfig(background, config))
}

type asker interface {
	QueryRow(context.Context, string, ...any) pgx.Row
	Exec(context.Context, string, ...any) (pgconn.CommandTag, error)
}

func value[T any](from asker, query string, arguments ...any) T {
	var one T
	must(from.QueryRow(background, query, arguments...).Scan(&one))
	return one
}

func run(on asker, query string, arguments ...any) {
	_, err := on.Exec(background, query, arguments...)
	must(err)
}

func codeOf(err error) any {
	var told *pgconn.PgError
	if errors.As(err, &told) {
		return told.Code
	}
	return nil
}

func tried(on asker, query string) any {
	_, err := on.Exec(background, query)
	return codeOf(err)
}

func connectByURL(url string) any {
	one := connect(url)
	defer one.Close(background)
	var name, database, user string
	var answer int
	query := "SELECT current_setting('application_name'), current_database(), current_user, $1::int"
	must(one.QueryRow(background, query, 42).Scan(&name, &database, &user, &answer))
	return found{"application_name": name, "database": database, "user": user, "answer": answer}
}

// atOnce runs work(0), work(1), ... each in a goroutine of its own.
func atOnce[T any](count int, work func(int) T) []T {
	all := make([]T, count)
	failed := make([]any, count)
	var running sync.WaitGroup
	for i := range count {
		running.Go(func() {
			defer func() { failed[i] = recover() }()
			all[i] = work(i)
		})
	}
	running.Wait()
	for _, failure := range failed {
		if failure != nil {
			panic(failure)
		}
	}
	return all
}

func pool(url string) any {
	shared := poolOf(url, 5)
	defer shared.Close()
	rows := atOnce(40, func(i int) int { return value[int](shared, "SELECT $1::int * 2", i) })
	return found{"rows": rows}
}

func crowd(url string) any {
	shared := poolOf(url, 8)
	defer shared.Close()
	clients := atOnce(8, func(int) *pgxpool.Conn { return got(shared.Acquire(background)) })
	rows := atOnce(8, func(client int) []int {
		defer clients[client].Release()
		turns := []int{}
		for i := range 5 {
			must(pgx.BeginFunc(background, clients[client], func(own pgx.Tx) error {
				turns = append(turns, value[int](own, "SELECT $1::int", 100*client+i))
				return nil
			}))
		}
		return turns
	})
	return found{"rows": rows}
}

func preparedStatements(url string) any {
	one, other := connect(url), connect(url)
	defer one.Close(background)
	defer other.Close(background)
	first, second := []int{}, []string{}
	for i := range 8 {
		first = append(first, value[int](one, "SELECT $1::int + 1", i))
	}
	must(pgx.BeginFunc(background, other, func(own pgx.Tx) error {
		got(own.Prepare(background, "word", "SELECT 'x' || $1::text"))
		for i := range 8 {
			second = append(second, value[string](own, "word", fmt.Sprint(i)))
		}
		for i := 8; i < 11; i++ {
			first = append(first, value[int](one, "SELECT $1::int + 1", i))
		}
		return nil
	}))
	return found{"one": first, "other": second}
}

func transactions(url string) any {
	one := connect(url)
	defer one.Close(background)
	run(one, "DROP TABLE IF EXISTS "+table)
	run(one, "CREATE TABLE "+table+" (a int)")
	insert := "INSERT INTO " + table + " VALUES ($1)"
	within := func(on interface {
		Begin(context.Context) (pgx.Tx, error)
	}, number int, more func(pgx.Tx), keep bool) {
		own := got(on.Begin(background))
		run(own, insert, number)
		more(own)
		if keep {
			must(own.Commit(background))
		} else {
			must(own.Rollback(background))
		}
	}
	nothing := func(pgx.Tx) {}
	within(one, 1, nothing, true)
	within(one, 2, nothing, false)
	within(one, 3, func(own pgx.Tx) { within(own, 4, nothing, false) }, true)
	rows := got(one.Query(background, "SELECT a FROM "+table+" ORDER BY a"))
	numbers := got(pgx.CollectRows(rows, pgx.RowTo[int]))
	run(one, "DROP TABLE "+table)
	return found{"rows": numbers}
}

func copyIn(url string) any {
	one := connect(url)
	defer one.Close(background)
	run(one, "DROP TABLE IF EXISTS "+table)
	run(one, "CREATE TABLE "+table+" (a int, b text)")
	source := pgx.CopyFromSlice(1000, func(i int) ([]any, error) { return []any{i + 1, fmt.Sprint("row ", i+1)}, nil })
	got(one.CopyFrom(background, pgx.Identifier{table}, []string{"a", "b"}, source))
	count := value[int](one, "SELECT count(*) FROM "+table)
	sum := value[int](one, "SELECT sum(a) FROM "+table)
	run(one, "DROP TABLE "+table)
	return found{"count": count, "sum": sum}
}

func copyOut(url string) any {
	one := connect(url)
	defer one.Close(background)
	var target bytes.Buffer
	query := "COPY (SELECT g, 'row ' || g FROM generate_series(1, 1000) g) TO STDOUT CSV"
	got(one.PgConn().CopyTo(background, &target, query))
	lines := strings.Split(strings.TrimSpace(target.String()), "\n")
	return found{"count": len(lines), "last": lines[len(lines)-1]}
}

func listen(url string) any {
	listener, other := connect(url), connect(url)
	defer listener.Close(background)
	defer other.Close(background)
	run(listener, "LISTEN scenario_pgx")
	heard := []string{}
	for _, payload := range []string{"one", "two"} {
		run(other, "SELECT pg_notify('scenario_pgx', $1)", payload)
	}
	patience, stop := context.WithTimeout(background, 3*time.Second)
	defer stop()
	for len(heard) < 2 {
		told, err := listener.WaitForNotification(patience)
		if err != nil {
			break
		}
		heard = append(heard, told.Payload)
	}
	return found{"heard": heard}
}

// A context that ends makes pgx ask for a cancel, and, as is its way, give the connection up: the pool makes another.
func cancel(url string) any {
	config := got(pgxpool.ParseConfig(url))
	config.MaxConns = 1
	config.ConnConfig.BuildContextWatcherHandler = func(one *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: one, DeadlineDelay: 5 * time.Second}
	}
	shared := got(pgxpool.NewWithConfig(background, config))
	defer shared.Close()
	patience, stop := context.WithTimeout(background, 100*time.Millisecond)
	defer stop()
	_, err := shared.Exec(patience, "SELECT pg_sleep(30)")
	return found{"code": codeOf(err), "after": value[int](shared, "SELECT 1")}
}

func errorsOfAllKinds(url string) any {
	one := connect(url)
	defer one.Close(background)
	run(one, "DROP TABLE IF EXISTS "+table)
	run(one, "CREATE TABLE "+table+" (a int PRIMARY KEY)")
	unique := tried(one, "INSERT INTO "+table+" VALUES (1), (1)")
	syntax := tried(one, "SELEC 1")
	run(one, "DROP TABLE "+table)
	own := got(one.Begin(background))
	tried(own, "SELECT 1/0")
	aborted := tried(own, "SELECT 1")
	must(own.Rollback(background))
	return found{"unique": unique, "syntax": syntax, "aborted": aborted, "after": value[int](one, "SELECT 1")}
}

func refusalWhileFull(url string) any {
	holder := connect(url)
	defer holder.Close(background)
	run(holder, "BEGIN")
	shared := poolOf(url, 1)
	defer shared.Close()
	_, err := shared.Exec(background, "SELECT 1")
	return found{"code": codeOf(err), "message": fmt.Sprint(err), "type": fmt.Sprintf("%T", err)}
}

func recovery(url string) any {
	return afterRefusals(url, func(shared *pgxpool.Pool) error {
		_, err := shared.Exec(background, "SELECT 1")
		return err
	})
}

func refusedBegin(url string) any {
	return afterRefusals(url, func(shared *pgxpool.Pool) error {
		return pgx.BeginFunc(background, shared, func(own pgx.Tx) error {
			_, err := own.Exec(background, "SELECT 1")
			return err
		})
	})
}

func afterRefusals(url string, ask func(*pgxpool.Pool) error) any {
	shared := poolOf(url, 1)
	defer shared.Close()
	holder := connect(url)
	run(holder, "BEGIN")
	first, second := ask(shared), ask(shared)
	run(holder, "ROLLBACK")
	must(holder.Close(background))
	after := []int{}
	for i := range 5 {
		after = append(after, value[int](shared, "SELECT $1::int", i))
	}
	return found{"refused": first != nil && second != nil, "after": after}
}

func version(string) any {
	build, _ := debug.ReadBuildInfo()
	for _, module := range build.Deps {
		if module.Path == "github.com/jackc/pgx/v5" {
			return found{"driver": strings.TrimPrefix(module.Version, "v")}
		}
	}
	panic("pgx is not in this program")
}

var scenarios = map[string]func(string) any{
	"version":             version,
	"connect_by_url":      connectByURL,
	"pool":                pool,
	"crowd":               crowd,
	"prepared_statements": preparedStatements,
	"transactions":        transactions,
	"copy_in":             copyIn,
	"copy_out":            copyOut,
	"listen":              listen,
	"cancel":              cancel,
	"errors":              errorsOfAllKinds,
	"refusal_while_full":  refusalWhileFull,
	"recovery":            recovery,
	"refused_begin":       refusedBegin,
}

func answer(scenario, url string) (told found) {
	defer func() {
		if failure := recover(); failure != nil {
			told = found{"failure": fmt.Sprintf("%v\n%s", failure, debug.Stack())}
		}
	}()
	return found{"result": scenarios[scenario](url)}
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var asked struct{ Scenario, URL string }
		must(json.Unmarshal(lines.Bytes(), &asked))
		fmt.Println(string(got(json.Marshal(answer(asked.Scenario, asked.URL)))))
	}
}
