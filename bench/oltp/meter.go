package main

import (
	"errors"
	"maps"
	"slices"
	"time"
)

// reading is what a proxy has used at a moment.
type reading struct {
	at  time.Time
	cpu time.Duration
}

// meter reads a proxy's CPU time again and again while a load runs, so that
// logins and the end of the load can be left out afterwards.
type meter struct {
	readings []reading
	err      error
	quit     chan struct{}
	done     chan struct{}
}

const readingEvery = 20 * time.Millisecond

func newMeter(t *target) *meter {
	m := &meter{quit: make(chan struct{}), done: make(chan struct{})}
	go m.run(t)
	return m
}

func (m *meter) run(t *target) {
	defer close(m.done)
	again := time.NewTicker(readingEvery)
	defer again.Stop()
	for {
		cpu, err := t.cpu()
		if err != nil {
			m.err = err
			return
		}
		m.readings = append(m.readings, reading{time.Now(), cpu}) //nolint:forbidigo // a measurement
		select {
		case <-again.C:
		case <-m.quit:
			return
		}
	}
}

func (m *meter) stop() ([]reading, error) {
	close(m.quit)
	<-m.done
	return m.readings, m.err
}

// errTooShort means that the clients were never all at work, or not for long
// enough: on a busy machine logins may take longer than the load.
var errTooShort = errors.New("the clients were not at work together for long enough")

// span returns the first and the last reading of the time in which every client
// was at work: from the last one's first transaction to the first one's last.
func span(all []transaction, clients int, readings []reading) (first, last reading, err error) {
	begun, ended := map[int]time.Time{}, map[int]time.Time{}
	for _, x := range all {
		if t, ok := begun[x.client]; !ok || x.ended.Before(t) {
			begun[x.client] = x.ended
		}
		if x.ended.After(ended[x.client]) {
			ended[x.client] = x.ended
		}
	}
	if len(begun) < clients {
		return first, last, errTooShort
	}
	from := slices.MaxFunc(slices.Collect(maps.Values(begun)), time.Time.Compare)
	to := slices.MinFunc(slices.Collect(maps.Values(ended)), time.Time.Compare)
	for _, r := range readings {
		if first.at.IsZero() && r.at.After(from) {
			first = r
		}
		if r.at.Before(to) {
			last = r
		}
	}
	if first.at.IsZero() || last.at.Sub(first.at) < 5*readingEvery {
		return first, last, errTooShort
	}
	return first, last, nil
}
