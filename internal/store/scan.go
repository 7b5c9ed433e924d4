package store

import (
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// rowError is about the values of one row.
type rowError struct{ error }

func (e *rowError) Unwrap() error { return e.error }

// scanColumns reads the columns of one row, each for itself: a value that cannot be read leaves its destination as it is and is
// in the error, and the others are there. Other than rows.Scan it does not end the listing, so that one row's value never
// hides the rows behind it.
func scanColumns(rows pgx.Rows, into ...any) error {
	raw, fields, types := rows.RawValues(), rows.FieldDescriptions(), rows.Conn().TypeMap()
	if len(raw) != len(into) {
		return fmt.Errorf("the query has %d columns, and %d are read", len(raw), len(into))
	}
	var wrong []error
	for i := range raw {
		if err := types.Scan(fields[i].DataTypeOID, fields[i].Format, raw[i], into[i]); err != nil {
			wrong = append(wrong, fmt.Errorf("the value of column %s cannot be read, set another: %w", fields[i].Name, err))
		}
	}
	if err := errors.Join(wrong...); err != nil {
		return &rowError{err}
	}
	return nil
}

// aboutRow splits the error of scanColumns: what is wrong with a row whose id is known is the row's, and all else is the
// listing's. A row without an id could not be told from one that is gone.
func aboutRow(id string, err error) (ofRow, ofListing error) {
	if bad, ok := errors.AsType[*rowError](err); ok && id != "" {
		return bad, nil
	}
	return nil, err
}

// moment takes a time that people may have set to anything: an infinity, and a year that a calendar of four digits does not
// have, are no time.
type moment struct{ into *time.Time }

// ScanTimestamptz implements pgtype.TimestamptzScanner.
func (m moment) ScanTimestamptz(v pgtype.Timestamptz) error {
	const lastYear = 9999
	*m.into = time.Time{}
	if year := v.Time.UTC().Year(); v.Valid && v.InfinityModifier == pgtype.Finite && year > 0 && year <= lastYear {
		*m.into = v.Time
	}
	return nil
}
