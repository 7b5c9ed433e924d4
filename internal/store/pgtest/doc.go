// Package pgtest runs a private PostgreSQL server for tests: real, empty, and gone afterwards, also if the
// test binary is killed. A package shares one server among its tests and gives each a database of its own:
//
//	var server *pgtest.Server
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m, &server)) }
//
//	func TestSomething(t *testing.T) {
//		url := server.NewDatabase(t)
//		…
//	}
//
// Stop, Kill and Start are for tests of faults; such a test should run a server of its own, by Start.
package pgtest
