package statexfer

import (
	"encoding/binary"
	"math/bits"
)

// The same byte eight times, for looking at eight at once.
const (
	ones  = 0x0101010101010101
	highs = 0x80 * ones
)

// plainRun is how many bytes at the beginning of b stand for themselves in a JSON string, and in Python's JSON too:
// printable ASCII without quotes and backslashes.
func plainRun(b []byte) int {
	n := 0
	for ; n+16 <= len(b); n += 16 {
		if (special(binary.LittleEndian.Uint64(b[n:]))|special(binary.LittleEndian.Uint64(b[n+8:])))&highs != 0 {
			break
		}
	}
	for ; n+8 <= len(b); n += 8 {
		if marked := special(binary.LittleEndian.Uint64(b[n:])) & highs; marked != 0 {
			return n + bits.TrailingZeros64(marked)/8
		}
	}
	for n < len(b) && isPlain(b[n]) {
		n++
	}
	return n
}

// special has the highest bit of a byte set where x has one that is not plain: beyond ASCII, a control character, DEL, a
// quote or a backslash. Bytes above the first such one may have it set too, by a carry or borrow.
func special(x uint64) uint64 {
	return x | (x - 0x20*ones) | (x + ones) | ((x ^ '"'*ones) - ones) | ((x ^ '\\'*ones) - ones)
}
