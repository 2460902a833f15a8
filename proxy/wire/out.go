package wire

import "unsafe"

// Out collects what is to be written to one peer, in order. Forwarded bytes
// alias their buffer and must stay as they are until Take's result has been
// written; neighbours in the same buffer become one segment, so that a run of
// relayed messages costs one write.
type Out struct {
	segments [][]byte
	bytes    int
}

// Forward appends b, which the caller keeps unchanged until it is written.
func (o *Out) Forward(b []byte) {
	o.bytes += len(b)
	if n := len(o.segments); n > 0 {
		if last := &o.segments[n-1]; adjacent(*last, b) {
			*last = (*last)[:len(*last)+len(b)]
			return
		}
	}
	o.begin(b)
}

// begin begins a segment.
func (o *Out) begin(b []byte) {
	if len(b) > 0 {
		o.segments = append(o.segments, b)
	}
}

// adjacent reports whether b starts where a ends, in the same buffer.
func adjacent(a, b []byte) bool {
	return cap(a)-len(a) >= len(b) && unsafe.Pointer(unsafe.SliceData(b)) == unsafe.Add(unsafe.Pointer(unsafe.SliceData(a)), len(a))
}

// Len returns the bytes collected.
func (o *Out) Len() int { return o.bytes }

// Take moves the segments into dst, which it returns, and empties o.
func (o *Out) Take(dst [][]byte) [][]byte {
	dst = append(dst[:0], o.segments...)
	o.Reset()
	return dst
}

// Segments returns what is collected, in order, until the next Forward or
// Reset.
func (o *Out) Segments() [][]byte { return o.segments }

// Reset empties o.
func (o *Out) Reset() {
	if len(o.segments) == 1 { // as most: a write barrier's check is all it costs
		o.segments[0] = nil
	} else {
		clear(o.segments)
	}
	o.segments = o.segments[:0]
	o.bytes = 0
}
