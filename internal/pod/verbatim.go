package pod

import "strings"

// Verbatim is the value to set so that a container gets the text itself. Kubernetes makes $(NAME) the variable of that name,
// and $$ a single $; a $ before anything else stays as it is, and so does a text in which every $ is one of these. Such texts
// are left alone, so that they mean the same in an older pod's spec.
func Verbatim(text string) string {
	if !strings.Contains(text, "$$") && !strings.Contains(text, "$(") {
		return text
	}
	return strings.ReplaceAll(text, "$", "$$")
}
