package markdown

import (
	"fmt"
	"strings"
	"time"
)

// endOfBlock is no line of any document.
const endOfBlock = "END_OF_THE_BLOCK"

// Walkthrough is what a person does who reads the document from its top, and types what is marked as run, endless and file: a
// script for bash. It says before each block where it stands. What does not end by itself is ended after that time, and
// must have printed something if loud.
func Walkthrough(doc *Document, endless time.Duration, loud bool) string {
	var script strings.Builder
	for _, block := range doc.Blocks {
		switch block.Directive.Verb {
		case "run":
			fmt.Fprintf(&script, "echo '--- %s'\n%s", block.Where(), block.Text)
		case "file":
			fmt.Fprintf(&script, "echo '--- %s'\ncat >%s <<'%s'\n%s%s\n", block.Where(), block.Directive.Argument, endOfBlock, block.Text, endOfBlock)
		case "endless":
			fmt.Fprintf(&script, "echo '--- %s'\n", block.Where())
			fmt.Fprintf(&script, "status=0; printed=$(timeout %.0f bash -euo pipefail 2>&1 <<'%s'\n%s%s\n) || status=$?\n",
				endless.Seconds(), endOfBlock, block.Text, endOfBlock)
			script.WriteString("echo \"$printed\"\n[ $status = 124 ] || { echo \"it ended by itself, with status $status\"; exit 1; }\n")
			if loud {
				script.WriteString("[ -n \"$printed\" ] || { echo 'it printed nothing'; exit 1; }\n")
			}
		}
	}
	return script.String()
}
