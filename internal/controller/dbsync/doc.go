// Package dbsync keeps the database and Kubernetes in step, in both directions:
//
//   - rows of processors and edge_nodes become Processors and EdgeNodes, by server-side apply (rows.go);
//   - objects whose row is gone are deleted, but only by a pass over everything and past a guard (deletions.go);
//   - Processors that people applied to Kubernetes get a row (registrar.go);
//   - the status of all Processors goes back into their rows (statuswriter.go).
//
// A change arrives as a hint, from the database or from a watch, and a hint is only a reason to look: the row
// is read again, rendered (render.go, pure), compared with the cached object (decide.go, pure), and written only
// if that changes something. A full pass on a timer makes good what no hint told. While the database cannot be
// read, nothing is decided.
package dbsync
