// Package markdown takes apart what the documentation is made of: blocks of code, words in backticks, links and headings.
// It knows no more of Markdown than the documents use, and says so where one uses more.
package markdown

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
)

// Document is one file.
type Document struct {
	Path     string
	Blocks   []Block
	Spans    []Span
	Links    []Link
	Headings []string
	// Faults are what does not read as its writer meant it.
	Faults []string
}

// Block is a block of code, fenced or indented.
type Block struct {
	Path string
	Line int
	// Language is what stands behind the fence; empty for indented blocks.
	Language string
	Text     string
	// Directive is what a comment before the block says of it: <!-- test: VERB: REASON -->.
	Directive Directive
}

// Where names the block as an editor would.
func (b Block) Where() string { return fmt.Sprintf("%s:%d", b.Path, b.Line) }

// Directive tells the tests what a block is, where that cannot be seen from the block itself.
type Directive struct {
	// Verb is run, endless, file or output; empty where there is no directive.
	Verb string
	// Argument is the name of a file, or the reason.
	Argument string
}

// Span is a text in backticks.
type Span struct {
	Where string
	Text  string
}

// Link is a link to another place.
type Link struct {
	Where  string
	Target string
}

var (
	comment   = regexp.MustCompile(`(?s)<!--\s*(.*?)\s*-->`)
	directive = regexp.MustCompile(`^test:\s*([a-z]+)(?:[:\s]\s*(.*))?$`)
	span      = regexp.MustCompile("(?s)``(.+?)``|`([^`]+)`")
	link      = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	listItem  = regexp.MustCompile(`^\s{0,3}([-*+]|\d+[.)])\s`)
)

// Read parses a file.
func Read(root, path string) (*Document, error) {
	text, err := os.ReadFile(filepath.Join(root, path)) //nolint:gosec // The caller names a file of this repository.
	if err != nil {
		return nil, fmt.Errorf("reading the document: %w", err)
	}
	return Parse(path, string(text)), nil
}

// Parse takes a document apart.
func Parse(path, text string) *Document {
	p := &parser{doc: &Document{Path: path}, lines: strings.Split(text, "\n")}
	for p.at < len(p.lines) {
		p.step()
	}
	p.endParagraph()
	return p.doc
}

// parser goes through the lines once.
type parser struct {
	doc   *Document
	lines []string
	at    int

	paragraph      []string
	paragraphBegan int
	afterBlank     bool
	inList         bool
	directive      Directive
}

func (p *parser) step() {
	line := p.lines[p.at]
	trimmed := strings.TrimSpace(line)
	switch {
	case strings.HasPrefix(trimmed, "```"):
		p.endParagraph()
		p.fence(trimmed)
	case trimmed == "":
		p.endParagraph()
		p.afterBlank = true
		p.at++
	case strings.HasPrefix(trimmed, "<!--"):
		p.endParagraph()
		p.comment()
	case strings.HasPrefix(line, "    ") && len(p.paragraph) == 0:
		p.indented()
	default:
		p.prose(line)
	}
}

// prose collects a paragraph: what is in backticks may go over a line's end.
func (p *parser) prose(line string) {
	switch {
	case listItem.MatchString(line):
		p.inList = true
	case p.afterBlank && !strings.HasPrefix(line, " "):
		p.inList = false
	}
	if strings.HasPrefix(line, "#") {
		p.endParagraph()
		p.doc.Headings = append(p.doc.Headings, strings.TrimSpace(strings.TrimLeft(line, "#")))
		p.inList = false
	}
	if len(p.paragraph) == 0 {
		p.paragraphBegan = p.at + 1
	}
	p.paragraph = append(p.paragraph, line)
	p.afterBlank = false
	p.directive = Directive{}
	p.at++
}

func (p *parser) endParagraph() {
	text := strings.Join(p.paragraph, "\n")
	lineOf := func(offset int) string {
		return fmt.Sprintf("%s:%d", p.doc.Path, p.paragraphBegan+strings.Count(text[:offset], "\n"))
	}
	for _, found := range span.FindAllStringSubmatchIndex(text, -1) {
		inner := text[found[0]:found[1]]
		inner = strings.TrimSpace(strings.Trim(inner, "`"))
		p.doc.Spans = append(p.doc.Spans, Span{Where: lineOf(found[0]), Text: strings.Join(strings.Fields(inner), " ")})
	}
	for _, found := range link.FindAllStringSubmatchIndex(text, -1) {
		p.doc.Links = append(p.doc.Links, Link{Where: lineOf(found[0]), Target: text[found[2]:found[3]]})
	}
	p.paragraph = nil
}

func (p *parser) fence(opening string) {
	began, language := p.at+1, strings.TrimSpace(strings.Trim(opening, "`"))
	var body []string
	for p.at++; p.at < len(p.lines) && strings.TrimSpace(p.lines[p.at]) != "```"; p.at++ {
		body = append(body, p.lines[p.at])
	}
	p.at++
	p.add(began, language, body)
}

func (p *parser) indented() {
	began := p.at + 1
	var body []string
	for ; p.at < len(p.lines); p.at++ {
		line := p.lines[p.at]
		if strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "    ") {
			break
		}
		body = append(body, strings.TrimPrefix(line, "    "))
	}
	for len(body) > 0 && strings.TrimSpace(body[len(body)-1]) == "" {
		body = body[:len(body)-1]
	}
	if p.inList {
		p.fault(began, "an indented block after a list is read as text of the list: use a fence")
	}
	p.add(began, "", body)
	p.afterBlank = true
}

func (p *parser) add(line int, language string, body []string) {
	p.doc.Blocks = append(p.doc.Blocks, Block{
		Path: p.doc.Path, Line: line, Language: language, Text: strings.Join(body, "\n") + "\n", Directive: p.directive,
	})
	p.directive = Directive{}
}

// comment reads one HTML comment, which must stand on lines of its own.
func (p *parser) comment() {
	began := p.at + 1
	text := p.lines[p.at]
	for !strings.Contains(text, "-->") && p.at+1 < len(p.lines) {
		p.at++
		text += "\n" + p.lines[p.at]
	}
	p.at++
	found := comment.FindStringSubmatch(text)
	if found == nil || !strings.HasPrefix(found[1], "test:") {
		return
	}
	parts := directive.FindStringSubmatch(strings.Join(strings.Fields(found[1]), " "))
	if parts == nil {
		p.fault(began, fmt.Sprintf("%q is no directive: write <!-- test: VERB: REASON -->", found[1]))
		return
	}
	p.directive = Directive{Verb: parts[1], Argument: strings.TrimSpace(parts[2])}
	p.check(began)
}

// check says of a directive whether the tests know it.
func (p *parser) check(line int) {
	d := p.directive
	switch d.Verb {
	case "run", "endless":
	case "file":
		if d.Argument == "" {
			p.fault(line, "the directive file names no file")
		}
	case "output":
		if d.Argument == "" {
			p.fault(line, "the directive output gives no reason")
		}
	default:
		p.fault(line, fmt.Sprintf("unknown directive %q: run, endless, file and output are known", d.Verb))
	}
}

func (p *parser) fault(line int, text string) {
	p.doc.Faults = append(p.doc.Faults, fmt.Sprintf("%s:%d: %s", p.doc.Path, line, text))
}

// Slug is how a heading is linked to.
func Slug(heading string) string {
	var slug strings.Builder
	for _, r := range strings.ToLower(heading) {
		switch {
		case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_':
			slug.WriteRune(r)
		case r == ' ':
			slug.WriteByte('-')
		}
	}
	return slug.String()
}
