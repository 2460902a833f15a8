package main

import (
	"bufio"
	"io"
	"testing"
)

// The clients that are opened in steps are as many as the fake server lets in,
// and stay.
func TestClientsAndFakeServer(t *testing.T) {
	until, end := io.Pipe()
	said, out := io.Pipe()
	served := make(chan error, 1)
	go func() { served <- serve(t.Context(), until, out) }()
	lines := bufio.NewScanner(said)
	if !lines.Scan() {
		t.Fatal("the server does not say where it listens")
	}
	addr := lines.Text()
	steps, ask := io.Pipe()
	answers, answer := io.Pipe()
	connected := make(chan error, 1)
	go func() { connected <- connect(t.Context(), addr, afterStatement, steps, answer) }()
	replies := bufio.NewScanner(answers)
	for _, n := range []string{"0", "3", "20"} {
		if _, err := io.WriteString(ask, n+"\n"); err != nil {
			t.Fatal(err)
		}
		if !replies.Scan() || replies.Text() != n {
			t.Errorf("%s sessions: %q", n, replies.Text())
		}
	}
	ask.Close()
	end.Close()
	if err := <-connected; err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
