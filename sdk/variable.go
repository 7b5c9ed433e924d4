package sdk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
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
	facts   typeFacts
	initial json.RawMessage
	value   T
	before  T
	changed bool
	// text of the value, where it is known; see steady. Atomic, because those who only read the state write it.
	text atomic.Pointer[[]byte]
}

// Var declares a variable of p's state. The name is its key in the state and must not change, or its value is lost;
// initial is its value until an iteration sets it or a state is restored. Declare all variables before Run; what is
// wrong with a declaration, Run returns.
func Var[T any](p *Processor, name string, initial T) *Variable[T] {
	v := &Variable[T]{vars: &p.vars, name: name, value: initial, facts: factsOf(reflect.TypeFor[T]())}
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
	v.text.Store(nil)
}

func (v *Variable[T]) key() string { return v.name }

func (v *Variable[T]) encode() ([]byte, error) {
	if text := v.known(); text != nil {
		return text, nil
	}
	text, err := json.Marshal(v.value)
	if err != nil {
		return nil, fmt.Errorf("variable %q: %w", v.name, err)
	}
	if v.steady() {
		v.text.Store(&text)
	}
	return text, nil
}

// steady says that the value is certainly still the one that text was made of. A map or a slice may be changed by the
// processor's author without Set, which is not allowed but happens, and then its change must not be lost as well.
func (v *Variable[T]) steady() bool { return v.facts.immutable || v.vars.untouched }

func (v *Variable[T]) known() []byte {
	if text := v.text.Load(); text != nil && v.steady() {
		return *text
	}
	return nil
}

// decode keeps numbers in values of type any as json.Number: a float would lose digits of large integers.
func (v *Variable[T]) decode(text json.RawMessage) (apply func(), err error) {
	if text == nil {
		text = v.initial
	}
	var value T
	if err := v.unmarshal(text, &value); err != nil {
		return nil, fmt.Errorf("variable %q: %w", v.name, err)
	}
	if string(text) == "null" {
		// encoding/json takes null for any type and leaves zero, which would be a value made up.
		if back, err := json.Marshal(value); err != nil || string(back) != "null" {
			return nil, fmt.Errorf("variable %q: null is no %T", v.name, value)
		}
	}
	return func() {
		v.value = value
		v.text.Store(nil)
	}, nil
}

func (v *Variable[T]) unmarshal(text []byte, value *T) error {
	if !v.facts.open {
		return json.Unmarshal(text, value)
	}
	if !json.Valid(text) { // A decoder stops after the first value.
		return json.Unmarshal(text, value)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return d.Decode(value)
}

func (v *Variable[T]) settle(keep bool) {
	var zero T
	if !keep {
		v.value = v.before
		v.text.Store(nil)
	}
	v.changed, v.before = false, zero
}

// variable is a Variable of any type. All but key are called with the lock of variables held.
type variable interface {
	key() string
	encode() ([]byte, error)
	// known is the text of the value, or nil where only encode can tell.
	known() []byte
	// decode checks a text, nil for the initial value, and returns what makes it the value.
	decode(text json.RawMessage) (apply func(), err error)
	// settle ends an iteration: its change is kept or undone.
	settle(keep bool)
}

// variables is the state of a processor. They change inside of iterations, and as a whole when a state is restored.
type variables struct {
	mu        sync.RWMutex
	all       []declared
	byKey     map[string]variable
	unknown   map[string]json.RawMessage // Restored, but not declared by this version of the processor; saved again.
	sealed    bool
	untouched bool // No iteration began since the state was restored: nobody has had its values in hand.
	iterating bool
	changed   []variable
	misuse    error
}

// declared is a variable with its key as JSON.
type declared struct {
	variable

	quoted []byte
}

func (v *variables) declare(added variable, name string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case err != nil:
	case name == "" || !utf8.ValidString(name):
		err = fmt.Errorf("%q is no name for a variable", name)
	case v.byKey[name] != nil:
		err = fmt.Errorf("variable %q is declared twice", name)
	case v.sealed:
		err = fmt.Errorf("variable %q is declared after Run: its saved value has been passed by", name)
	default:
		var quoted []byte
		if quoted, err = json.Marshal(name); err == nil {
			v.add(declared{added, quoted})
			return
		}
	}
	v.misused(err)
}

func (v *variables) add(added declared) {
	if v.byKey == nil {
		v.byKey = make(map[string]variable)
	}
	v.all = append(v.all, added)
	v.byKey[added.key()] = added
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
	v.iterating, v.untouched = true, false
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
func (v *variables) snapshot() (stateText, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	var b textBuilder
	for _, known := range v.all {
		text, err := known.encode()
		if err != nil {
			return stateText{}, err
		}
		b.add(known.quoted, text)
	}
	for _, key := range slices.Sorted(maps.Keys(v.unknown)) {
		quoted, err := json.Marshal(key)
		if err != nil {
			return stateText{}, fmt.Errorf("key %q: %w", key, err)
		}
		b.add(quoted, v.unknown[key])
	}
	state := b.end()
	if state.size > statexfer.MaxStateBytes {
		return stateText{}, fmt.Errorf("%w: %d bytes of JSON, the limit is %d", statexfer.ErrTooLarge, state.size, statexfer.MaxStateBytes)
	}
	return state, nil
}

// known is the text that a key has in the state now, where that costs nothing to tell.
func (v *variables) known(key string) []byte {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if known := v.byKey[key]; known != nil {
		return known.known()
	}
	return v.unknown[key]
}

// restore replaces the whole state by a JSON object, see replace.
func (v *variables) restore(text json.RawMessage) (unknown []string, err error) {
	members, err := splitObject(text, v.known)
	if err != nil {
		return nil, err
	}
	return v.replace(members)
}

// replace replaces the whole state, or nothing of it where the members do not fit. A variable that they do not have
// becomes its initial value; what no variable is declared for is kept, so that an older version of a processor hands
// on what a newer one wrote. It returns the keys of the latter.
func (v *variables) replace(members []member) (unknown []string, err error) {
	values := make(map[string]json.RawMessage, len(members))
	for _, m := range members {
		values[m.key] = m.text
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
	v.unknown, v.untouched = values, true
	return slices.Sorted(maps.Keys(values)), nil
}

// decode reads the variables' values and removes them; what is left must be fit to be saved. A value whose text is
// the same as before is not read again.
func (v *variables) decode(values map[string]json.RawMessage) (changes []func(), err error) {
	for _, known := range v.all {
		text := values[known.key()]
		delete(values, known.key())
		if text != nil && bytes.Equal(text, known.known()) {
			continue
		}
		apply, err := known.decode(text)
		if err != nil {
			return nil, err
		}
		changes = append(changes, apply)
	}
	for key, text := range values {
		if held := v.unknown[key]; held != nil && bytes.Equal(text, held) {
			values[key] = held
			continue
		}
		if _, err := statexfer.Canonical(text); err != nil {
			return nil, fmt.Errorf("key %q: %w", key, err)
		}
		values[key] = bytes.Clone(text) // It must not keep the whole body in memory.
	}
	return changes, nil
}
