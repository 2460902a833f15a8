package inspect

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestFingerprintIsMadeOnceAndWhenAsked(t *testing.T) {
	var made atomic.Int64
	f := NewFingerprint("SELECT 1", func(text string) uint64 {
		made.Add(1)
		return uint64(len(text))
	})
	if made.Load() != 0 {
		t.Error("made before anybody asked")
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if f.Value() != 8 {
				t.Error("another value")
			}
		})
	}
	group.Wait()
	if made.Load() != 1 || f.text != "" {
		t.Errorf("made %d times, keeps %q", made.Load(), f.text)
	}
	if none := (*Fingerprint)(nil); none.Value() != 0 {
		t.Error("no text has a fingerprint")
	}
}
