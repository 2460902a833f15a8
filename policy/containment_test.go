package policy

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

func TestContainmentsSurviveAsJSON(t *testing.T) {
	want := Containment{
		ID: "p1", Kind: Pause, Scope: Scope{Tag: "cron"}, Reason: "restore", Author: "alice",
		Since: now, Until: now.Add(time.Hour), Epoch: 7, MaxHold: Duration(90 * time.Second), Except: []string{"repair"},
	}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Containment
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s became %+v", text, got)
	}
	if err := json.Unmarshal([]byte(`{"max_hold":"long"}`), &got); err == nil {
		t.Error("a duration that is none was read")
	}
}

func TestDeciderHoldsTheSnapshotThatWasReplacedLast(t *testing.T) {
	var d Decider
	if got := d.Current(); got.ReadOnlyFor(odooWorker(), now) != nil || got.Decide(outside(batch())).Verdict != Refuse {
		t.Error("something passes before the first snapshot")
	}
	s := contained(t)
	d.Replace(s)
	if d.Current() != s {
		t.Error("the snapshot was not taken")
	}
}
