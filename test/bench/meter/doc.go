// Package meter counts what a benchmark is about: requests to the API server, statements and changed rows in PostgreSQL,
// the operator's memory and processor time, and how busy the machine is with other things.
package meter
