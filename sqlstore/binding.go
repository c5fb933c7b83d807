package sqlstore

import (
	"encoding/binary"
	"fmt"

	"github.com/counterfoil/counterfoil"
)

// A binding is one value, so that a session without one pays for one NULL:
// the key (its first byte is 4), Unix milliseconds, and the number of proofs.
const bindingSize = len(counterfoil.DeviceKey{}) + 8 + 8

func bindingOrNull(b *counterfoil.Binding) any {
	if b == nil {
		return nil
	}
	out := make([]byte, 0, bindingSize)
	out = append(out, b.Key[:]...)
	out = binary.BigEndian.AppendUint64(out, uint64(b.RegisteredAt.UnixMilli()))
	return binary.BigEndian.AppendUint64(out, uint64(b.Proofs))
}

func readBinding(r *row) *counterfoil.Binding {
	text := r.bytes()
	if text == nil {
		return nil
	}
	if len(text) != bindingSize {
		r.err = fmt.Errorf("column %d is no binding of this version", r.next)
		return nil
	}
	b := &counterfoil.Binding{}
	n := copy(b.Key[:], text)
	b.RegisteredAt = fromMillis(int64(binary.BigEndian.Uint64(text[n:])))
	b.Proofs = int64(binary.BigEndian.Uint64(text[n+8:]))
	return b
}
