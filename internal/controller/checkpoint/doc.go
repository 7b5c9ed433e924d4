// Package checkpoint copies the state of every running processor to where it outlives the processor's pod, at the
// interval that its spec says, and gives it back to a process that started without it.
//
// It has a queue of its own, because it waits for the network. A pass looks at one processor: it captures the state,
// compares it with what was stored last, which it remembers, and stores it if it is new. What it remembers can be
// lost at any time: it then reads what is stored.
package checkpoint
