// Package leftaside tells of objects that cannot be decoded: in an event, a metric and the log, once for each and for each
// cause. Nothing is done about them; internal/undecodable keeps the other controllers from it.
package leftaside
