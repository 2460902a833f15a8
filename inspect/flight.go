package inspect

import (
	"sync"

	"lockkeeper/inspect/lex"
)

// maxFlights bounds how often a session waits for others' parses before it
// parses itself: a parse of the same shape may leave no facts for this text.
const maxFlights = 2

// flights are the parses under way, by a hash of what is parsed: the shape,
// or the whole text. Where two have one hash, one waits for the other in vain.
type flights struct {
	mu    sync.Mutex
	under map[uint64]chan struct{} // each is closed when its parse has ended
}

// begin begins a parse; the caller calls done when it has ended. Where such a
// parse is under way already, begin returns what is closed at its end.
func (f *flights) begin(sum uint64) (done func(), other <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c, ok := f.under[sum]; ok {
		return nil, c
	}
	c := make(chan struct{})
	f.under[sum] = c
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.under, sum)
		close(c)
	}, nil
}

// flightOf is the hash of what is parsed when a text is.
func (i *Inspector) flightOf(text []byte) uint64 {
	if len(text) > i.cacheable() {
		return i.cache.sum(text, true)
	}
	k := i.keys.get(text)
	defer i.keys.put(k, text)
	k.read(i, text)
	if k.why == lex.Shaped {
		return i.cache.sum(k.shape.Key, false)
	}
	return i.cache.sum(text, true)
}
