// Package drain empties nodes of processors by moves, and answers those who ask for it.
//
// The Desk is where everybody asks: the eviction webhook and the responder of the eviction API are fronts of it. Every
// replica has one. It answers from caches, by a pure function (answer.go), and makes the ProcessorMigration that the
// answer promises in a queue of its own, so that a thousand evictions at once are answered at once.
//
// The Reconciler follows nodes: it moves processors off those that are announced for removal before anybody evicts, takes
// moves back that lead onto such a node or that nobody needs any more, and says why a move cannot be placed (plan.go).
// Turns says in which order and how many at once the moves of drains begin (turn.go). Migratable says of every Processor,
// before any drain, whether one would get through (migratable.go).
//
// Nothing here moves a pod: that is the migration controller's, and its alone.
package drain
