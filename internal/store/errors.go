package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/puddle/v2"
	"github.com/sony/gobreaker/v2"
)

// ErrUnavailable says that the database cannot be asked right now: no connection, no answer in time, or
// an open breaker. It says nothing about the data.
var ErrUnavailable = errors.New("database unavailable")

// errNotDelivered says that LISTEN was accepted but our own notification never came.
var errNotDelivered = errors.New("LISTEN works but notifications do not arrive: a proxy that pools " +
	"transactions is in between; give a URL that passes it by, or rely on the resync alone")

// errorKind is the label error_type of dory_database_errors_total.
type errorKind string

const (
	kindNone       errorKind = ""
	kindCancelled  errorKind = "cancelled"
	kindConnection errorKind = "connection"
	kindTimeout    errorKind = "timeout"
	kindOpen       errorKind = "circuit_open"
	kindConstraint errorKind = "constraint"
	kindConflict   errorKind = "conflict"
	kindStatement  errorKind = "statement"
)

// unavailable says whether the kind is the database's or the network's fault, and not the statement's.
func (k errorKind) unavailable() bool {
	return k == kindConnection || k == kindTimeout || k == kindOpen
}

// classify tells whose fault an error is. Whatever is not known to be a failure of the connection counts as
// a failure of the statement, so that one bad row never closes the door for all others.
func classify(err error) errorKind {
	var pgErr *pgconn.PgError
	switch {
	case err == nil, errors.Is(err, pgx.ErrNoRows):
		return kindNone
	case errors.Is(err, gobreaker.ErrOpenState), errors.Is(err, gobreaker.ErrTooManyRequests):
		return kindOpen
	case errors.Is(err, context.Canceled):
		return kindCancelled
	case errors.Is(err, context.DeadlineExceeded), pgconn.Timeout(err):
		return kindTimeout
	case errors.As(err, &pgErr):
		return classifyCode(pgErr.Code)
	case isConnectionError(err):
		return kindConnection
	}
	return kindStatement
}

// classifyCode sorts PostgreSQL's SQLSTATE codes by their class, the first two characters.
func classifyCode(code string) errorKind {
	switch code {
	case "57014": // query_canceled: statement_timeout, or an administrator
		return kindTimeout
	case "57P01", "57P02", "57P03", "57P05": // the server goes down, crashed, starts up, or ended an idle session
		return kindConnection
	case "25006": // read_only_sql_transaction: connected to a standby
		return kindConnection
	}
	switch code[:min(2, len(code))] {
	case "23":
		return kindConstraint
	case "40": // deadlock or serialization failure: rolled back, and the same statement may work now
		return kindConflict
	case "08", "28", "3D", "53", "58", "XX":
		// connection, authentication, no such database, resources, operating system, internal
		return kindConnection
	}
	return kindStatement
}

// advise adds what to do about errors whose cause is the way to the database.
func advise(err error) error {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && (pgErr.Code == "42P05" || pgErr.Code == "26000") {
		// duplicate_prepared_statement, invalid_sql_statement_name: the session is not ours alone
		return fmt.Errorf("behind a proxy that pools transactions, add default_query_exec_mode=exec to the database URL: %w", err)
	}
	return err
}

func isConnectionError(err error) bool {
	var netErr net.Error
	var connectErr *pgconn.ConnectError
	return errors.As(err, &netErr) || errors.As(err, &connectErr) || pgconn.SafeToRetry(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, puddle.ErrClosedPool)
}
