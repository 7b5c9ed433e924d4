package sdk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"unicode/utf8"

	"github.com/dory-io/dory/internal/statexfer"
)

// ErrForeignState says that a state holds none of the variables that the processor declares: another processor's
// state, or an answer that is no state at all.
var ErrForeignState = errors.New("the state holds none of this processor's variables")

// Variable is a part of the processor's state, of a type that encoding/json can write and read without loss.
type Variable[T any] struct {
	vars    *variables
	name    string
	initial json.RawMessage
	value   T
	before  T
	changed bool
}

// Var declares a variable of p's state. The name is its key in the state and must not change, or its value is lost;
// initial is its value until an iteration sets it or a state is restored. Declare all variables before Run; what is
// wrong with a declaration, Run returns.
func Var[T any](p *Processor, name string, initial T) *Variable[T] {
	v := &Variable[T]{vars: &p.vars, name: name, value: initial}
	text, err := json.Marshal(initial)
	if err != nil {
		err = fmt.Errorf("variable %q of type %T cannot be written as JSON: %w", name, initial, err)
	}
	v.initial = text
	p.vars.declare(v, name, err)
	return v
}

// Get is the current value. In the middle of an iteration that is the value it has set. Do not change what it refers
// to, such as the elements of a map: Set a new value.
func (v *Variable[T]) Get() T {
	v.vars.mu.RLock()
	defer v.vars.mu.RUnlock()
	return v.value
}

// Set changes the value. It is undone if the iteration fails. Outside of an iteration it changes nothing and makes
// Run fail, because such a change could be lost, or saved by halves.
func (v *Variable[T]) Set(value T) {
	v.vars.mu.Lock()
	defer v.vars.mu.Unlock()
	if !v.vars.iterating {
		v.vars.misused(fmt.Errorf("variable %q was set outside of an iteration", v.name))
		return
	}
	if !v.changed {
		v.changed, v.before = true, v.value
		v.vars.changed = append(v.vars.changed, v)
	}
	v.value = value
}

func (v *Variable[T]) key() string { return v.name }

func (v *Variable[T]) encode() ([]byte, error) {
	text, err := json.Marshal(v.value)
	if err != nil {
		return nil, fmt.Errorf("variable %q: %w", v.name, err)
	}
	return text, nil
}

// decode keeps numbers in values of type any as json.Number: a float would lose digits of large integers.
func (v *Variable[T]) decode(text json.RawMessage) (apply func(), err error) {
	if text == nil {
		text = v.initial
	}
	var value T
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&value); err != nil {
		return nil, fmt.Errorf("variable %q: %w", v.name, err)
	}
	if string(text) == "null" {
		// encoding/json takes null for any type and leaves zero, which would be a value made up.
		if back, err := json.Marshal(value); err != nil || string(back) != "null" {
			return nil, fmt.Errorf("variable %q: null is no %T", v.name, value)
		}
	}
	return func() { v.value = value }, nil
}

func (v *Variable[T]) settle(keep bool) {
	var zero T
	if !keep {
		v.value = v.before
	}
	v.changed, v.before = false, zero
}

// variable is a Variable of any type. All but key are called with the lock of variables held.
type variable interface {
	key() string
	encode() ([]byte, error)
	// decode checks a text, nil for the initial value, and returns what makes it the value.
	decode(text json.RawMessage) (apply func(), err error)
	// settle ends an iteration: its change is kept or undone.
	settle(keep bool)
}

// variables is the state of a processor. They change inside of iterations, and as a whole when a state is restored.
type variables struct {
	mu        sync.RWMutex
	all       []variable
	unknown   map[string]json.RawMessage // Restored, but not declared by this version of the processor; saved again.
	sealed    bool
	iterating bool
	changed   []variable
	misuse    error
}

func (v *variables) declare(added variable, name string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case err != nil:
	case name == "" || !utf8.ValidString(name):
		err = fmt.Errorf("%q is no name for a variable", name)
	case v.find(name):
		err = fmt.Errorf("variable %q is declared twice", name)
	case v.sealed:
		err = fmt.Errorf("variable %q is declared after Run: its saved value has been passed by", name)
	default:
		v.all = append(v.all, added)
		return
	}
	v.misused(err)
}

func (v *variables) find(name string) bool {
	return slices.ContainsFunc(v.all, func(known variable) bool { return known.key() == name })
}

// misused keeps the first mistake of the processor's author, which ends Run.
func (v *variables) misused(err error) {
	if v.misuse == nil {
		v.misuse = err
	}
}

// mistake is what was done wrong with the variables, or nil.
func (v *variables) mistake() error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.misuse
}

func (v *variables) seal() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sealed = true
	return v.misuse
}

func (v *variables) beginIteration() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.iterating = true
}

// endIteration keeps or undoes what the iteration changed. Called again for the same iteration it does nothing and
// says so.
func (v *variables) endIteration(keep bool) (ended bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.iterating {
		return false
	}
	for _, changed := range v.changed {
		changed.settle(keep)
	}
	clear(v.changed)
	v.iterating, v.changed = false, v.changed[:0]
	return true
}

// snapshot is the state as a JSON object.
func (v *variables) snapshot() (json.RawMessage, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	var b bytes.Buffer
	for _, known := range v.all {
		text, err := known.encode()
		if err != nil {
			return nil, err
		}
		if err := appendMember(&b, known.key(), text); err != nil {
			return nil, err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(v.unknown)) {
		if err := appendMember(&b, key, v.unknown[key]); err != nil {
			return nil, err
		}
	}
	if b.Len() == 0 {
		return json.RawMessage("{}"), nil
	}
	b.WriteByte('}')
	if b.Len() > statexfer.MaxStateBytes {
		return nil, fmt.Errorf("%w: %d bytes of JSON, the limit is %d", statexfer.ErrTooLarge, b.Len(), statexfer.MaxStateBytes)
	}
	return b.Bytes(), nil
}

func appendMember(b *bytes.Buffer, key string, text []byte) error {
	name, err := json.Marshal(key)
	if err != nil {
		return fmt.Errorf("variable %q: %w", key, err)
	}
	if b.Len() == 0 {
		b.WriteByte('{')
	} else {
		b.WriteByte(',')
	}
	b.Write(name)
	b.WriteByte(':')
	b.Write(text)
	return nil
}

// restore replaces the whole state, or nothing of it where the text does not fit. A variable that the text does not
// have becomes its initial value; what no variable is declared for is kept, so that an older version of a
// processor hands on what a newer one wrote. It returns the keys of the latter.
func (v *variables) restore(text json.RawMessage) (unknown []string, err error) {
	var values map[string]json.RawMessage
	if err := json.Unmarshal(text, &values); err != nil {
		return nil, fmt.Errorf("the state is no JSON object: %w", err)
	}
	if values == nil {
		return nil, errors.New("the state is null, not a JSON object")
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	found := len(values)
	changes, err := v.decode(values)
	if err != nil {
		return nil, err
	}
	if found > 0 && found == len(values) && len(v.all) > 0 {
		return nil, fmt.Errorf("%w, but %q", ErrForeignState, slices.Sorted(maps.Keys(values)))
	}
	for _, apply := range changes {
		apply()
	}
	v.unknown = values
	return slices.Sorted(maps.Keys(values)), nil
}

// decode reads the variables' values and removes them; what is left must be fit to be saved.
func (v *variables) decode(values map[string]json.RawMessage) (changes []func(), err error) {
	for _, known := range v.all {
		apply, err := known.decode(values[known.key()])
		if err != nil {
			return nil, err
		}
		changes = append(changes, apply)
		delete(values, known.key())
	}
	for key, text := range values {
		if _, err := statexfer.Canonical(text); err != nil {
			return nil, fmt.Errorf("key %q: %w", key, err)
		}
	}
	return changes, nil
}
