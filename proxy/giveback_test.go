package proxy

import "testing"

func TestThoseWhoHaveComeOrGoneAreCounted(t *testing.T) {
	before := traffic{begun: 50, here: 20}
	for now, want := range map[traffic]int64{
		{begun: 50, here: 20}:  0,
		{begun: 60, here: 30}:  10, // ten have come
		{begun: 50, here: 5}:   15, // fifteen have gone
		{begun: 150, here: 20}: 200,
	} {
		if got := now.since(before); got != want {
			t.Errorf("%+v: %d, want %d", now, got, want)
		}
	}
}
