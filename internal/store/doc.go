// Package store is the operator's only door to PostgreSQL: the desired set of processors and edge nodes,
// the status written back, the epochs, and the feed of changes.
//
// Every method takes a context, adds a deadline of its own, and goes through one circuit breaker. Three
// kinds of errors come back:
//   - ErrUnavailable: the database cannot be reached, does not answer in time, or the breaker is open. The
//     data says nothing then: change nothing, try again later.
//   - the caller's own cancellation, as context.Canceled.
//   - anything else is about the statement or its data, such as a constraint, and does not heal by waiting.
//
// Writes are batched, and a row is written only if that changes it.
package store
