// Package faults breaks what surrounds the operator, and the operator itself, while it works, and sees that the invariants
// hold: the operator's own binary as a process, a real API server and a real PostgreSQL. docs/faults.md lists all faults.
package faults
