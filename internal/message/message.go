// Package message brings texts for people within the limits of where they are kept.
package message

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// The limits of the API, in bytes. Where it counts characters, these are a little stricter.
const (
	// EventLimit is an event's note.
	EventLimit = 1024
	// ConditionLimit is a condition's message.
	ConditionLimit = 32768
)

const ellipsis = "…"

// Shorten cuts a text to a number of bytes, between two characters, and shows that it did. What is no UTF-8 is replaced,
// because the API server refuses it.
func Shorten(text string, limit int) string {
	text = strings.ToValidUTF8(text, "\ufffd")
	if len(text) <= limit {
		return text
	}
	cut := max(0, limit-len(ellipsis))
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + ellipsis
}

// Line makes one printable line of a text that a processor, a container or a server wrote.
func Line(text string, limit int) string {
	// Fields joins what it finds, so that no more than a few times the limit can be worth looking at.
	const margin = 4
	cut := len(text) > margin*limit
	if cut {
		text = text[:margin*limit]
	}
	line := strings.Join(strings.Fields(strings.Map(printable, text)), " ")
	if cut && len(line) <= limit-len(ellipsis) {
		return line + ellipsis
	}
	return Shorten(line, limit)
}

func printable(r rune) rune {
	if strconv.IsPrint(r) && r != utf8.RuneError {
		return r
	}
	return ' '
}
