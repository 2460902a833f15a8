package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

func TestATransactionOfPgbenchsLogIsRead(t *testing.T) {
	x, err := readTransaction("0 199 2241 0 1175850568 995598 17")
	if err != nil || x.took != 2241*time.Microsecond || !x.ended.Equal(time.Unix(1175850568, 995598000)) {
		t.Errorf("%+v, %v", x, err)
	}
	if _, err := readTransaction("progress: 1.0 s"); err == nil {
		t.Error("a line that is no transaction is read")
	}
}

// two has PgBouncer at 10 µs and lockkeeper at twice that in one round, at half
// of it in another.
func two() *table {
	return &table{
		scenario: &scenarios[1], targets: []string{direct, pgbouncer, poll},
		samples: map[string][]sample{
			direct:    {{rate: 100, p50: 50 * time.Microsecond}, {rate: 200, p50: 40 * time.Microsecond}},
			pgbouncer: {{cpu: 10 * time.Microsecond, rate: 50, p50: 70 * time.Microsecond}, {cpu: 40 * time.Microsecond, rate: 50, p50: 60 * time.Microsecond}},
			poll:      {{cpu: 20 * time.Microsecond, rate: 50, p50: 60 * time.Microsecond}, {cpu: 20 * time.Microsecond, rate: 100, p50: 70 * time.Microsecond}},
		},
	}
}

func TestRatiosArePairedWithinARound(t *testing.T) {
	x := two()
	if got := median(x.ratios(poll, pgbouncer, cpuOf)); got != 1.25 { // of 2 and 0.5; of the medians it would be 0.8
		t.Errorf("median of the ratios: %v", got)
	}
	if got := x.added(poll); got < 19e-6 || got > 21e-6 {
		t.Errorf("added to the latency: %v", got)
	}
	if got := x.verdict(); !strings.Contains(got, "missed") || !strings.Contains(got, "1.25") {
		t.Errorf("verdict: %s", got)
	}
}

func TestPicturesAreWellFormed(t *testing.T) {
	c := &chronicle{incident: &incidents[0]}
	for i := range incidents[0].variants {
		x := course{variant: &incidents[0].variants[i]}
		x.count([]transaction{{time.Unix(3, 0), time.Second}, {time.Unix(9, 0), 7 * time.Second}}, time.Unix(0, 0))
		if x.slow != 1 || x.longest != 7*time.Second {
			t.Errorf("%+v", x)
		}
		c.courses = append(c.courses, x)
	}
	for name, svg := range map[string]string{"bars": bars([]*table{two()}), "lines": lines(c)} {
		d := xml.NewDecoder(strings.NewReader(svg))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, svg)
			}
		}
	}
}

func TestFlagsThatCannotBe(t *testing.T) {
	for _, args := range [][]string{{"-targets", "direct,odyssey"}, {"-scenarios", "all"}, {"-rounds", "0"}, {"-length", "1ms"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%v is taken", args)
		}
	}
}
