package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// turnTakes is how long a worker works before the next one does. What else the
// machine does lasts longer, and so meets all of them alike.
const turnTakes = 200 * time.Millisecond

// trail is how long a proxy may go on with what came of a turn, as a journal
// does: that is in the turn's CPU.
const trail = 50 * time.Millisecond

// lead is how long a worker is let run before its turns, for its clients to log in.
const lead = 300 * time.Millisecond

// turn is a time in which only one of them worked: what the proxy had used when it
// began, and when it was over and what came of it was done.
type turn struct{ begun, over reading }

// reading is what a proxy has used at a moment.
type reading struct {
	at  time.Time
	cpu time.Duration
}

// worker is a pgbench before one target, which is stopped but for its turns.
type worker struct {
	target  *target
	clients int
	dir     string
	cmd     *exec.Cmd
	said    bytes.Buffer
	turns   []turn
}

// errTooShort means that the clients were hardly at work together: on a busy
// machine logins may take longer than the time for them.
var errTooShort = errors.New("the clients were not at work together for long enough")

// attempts is how often a round is tried whose clients were hardly at work.
const attempts = 3

// bench lets every target work for so many seconds, in turns, and returns what
// each did.
func (s *stage) bench(ctx context.Context, sc *scenario, names []string, seconds int) (x map[string]sample, err error) {
	for range attempts {
		if x, err = s.takeTurns(ctx, sc, names, seconds); !errors.Is(err, errTooShort) {
			break
		}
	}
	return x, err
}

func (s *stage) takeTurns(ctx context.Context, sc *scenario, names []string, seconds int) (out map[string]sample, err error) {
	var workers []*worker
	defer func() {
		for _, w := range workers {
			w.discard()
		}
	}()
	turns := int(time.Duration(seconds) * time.Second / turnTakes)
	all := time.Duration(len(names)) * (lead + time.Duration(turns)*(turnTakes+trail))
	for _, name := range names {
		w, err := s.startWorker(ctx, sc, s.targets[name], 2*all+time.Minute)
		if err != nil {
			return nil, err
		}
		workers = append(workers, w)
		if err := w.pause(ctx, lead); err != nil {
			return nil, err
		}
	}
	for i := range turns {
		for k := range workers {
			if err := workers[(i+k)%len(workers)].work(ctx); err != nil {
				return nil, err
			}
		}
	}
	out = map[string]sample{}
	for _, w := range workers {
		if out[w.target.name], err = w.finish(); err != nil {
			return nil, fmt.Errorf("%s: %w", w.target.name, err)
		}
	}
	return out, nil
}

// startWorker starts a worker that goes on for at most so long.
func (s *stage) startWorker(ctx context.Context, sc *scenario, t *target, atMost time.Duration) (*worker, error) {
	dir, err := os.MkdirTemp(s.dir, "log-")
	if err != nil {
		return nil, err
	}
	w := &worker{target: t, clients: sc.clients, dir: dir}
	w.cmd = s.command(ctx, "pgbench", t, "-n", "-M", sc.mode, "-c", strconv.Itoa(sc.clients), "-j", strconv.Itoa(min(2, sc.clients)),
		"-T", strconv.Itoa(int(atMost.Seconds())), "-l", "--log-prefix="+filepath.Join(dir, logPrefix))
	if sc.script == "" {
		w.cmd.Args = append(w.cmd.Args, "-b", cmp.Or(sc.builtin, "select-only"))
	} else {
		file := filepath.Join(dir, "script")
		if err := os.WriteFile(file, []byte(sc.script), 0o600); err != nil {
			return nil, err
		}
		w.cmd.Args = append(w.cmd.Args, "-f", file)
	}
	w.cmd.Stdout, w.cmd.Stderr, w.cmd.SysProcAttr = &w.said, &w.said, processAttributes()
	return w, w.cmd.Start()
}

// pause stops a worker after a time.
func (w *worker) pause(ctx context.Context, after time.Duration) error {
	if err := sleep(ctx, after); err != nil {
		return err
	}
	return w.signal(syscall.SIGSTOP)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// work is one turn.
func (w *worker) work(ctx context.Context) error {
	begun, err := w.target.read()
	if err != nil {
		return err
	}
	if err := w.signal(syscall.SIGCONT); err != nil {
		return err
	}
	if err := w.pause(ctx, turnTakes); err != nil {
		return err
	}
	stopped := time.Now() //nolint:forbidigo // a measurement
	if err := sleep(ctx, trail); err != nil {
		return err
	}
	over, err := w.target.read()
	over.at = stopped
	w.turns = append(w.turns, turn{begun, over})
	return err
}

func (t *target) read() (reading, error) {
	cpu, err := t.cpu()
	return reading{time.Now(), cpu}, err //nolint:forbidigo // a measurement
}

// signal signals pgbench; that it has ended already is for finish to tell.
func (w *worker) signal(which syscall.Signal) error {
	if err := w.cmd.Process.Signal(which); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// finish ends it as its time limit would, and returns what came of its
// turns. Source: handle_sig_alarm in src/bin/pgbench/pgbench.c.
func (w *worker) finish() (sample, error) {
	err := errors.Join(w.signal(syscall.SIGALRM), w.signal(syscall.SIGCONT))
	if err = errors.Join(err, w.cmd.Wait()); err != nil {
		return sample{}, fmt.Errorf("pgbench: %w\n%s", err, w.said.Bytes())
	}
	all, err := transactions(w.dir)
	if err != nil {
		return sample{}, err
	}
	return sum(all, w.clients, w.turns)
}

// discard ends what has not ended yet.
func (w *worker) discard() {
	if w.cmd.ProcessState == nil {
		_ = w.cmd.Process.Kill()
		_ = w.cmd.Wait() // killed
	}
	_ = os.RemoveAll(w.dir) // tearDown does, too
}

// sum makes a sample of what a worker did in its turns. Those in which not every
// client was at work from the first moment do not count.
func sum(all []transaction, clients int, turns []turn) (sample, error) {
	from, err := together(all, clients)
	if err != nil {
		return sample{}, err
	}
	slices.SortFunc(all, func(a, b transaction) int { return a.ended.Compare(b.ended) })
	var whole []transaction // from their begin to their end in one turn
	var cpu, worked time.Duration
	var n, counted int
	for _, t := range turns {
		if t.begun.at.Before(from) {
			continue
		}
		counted++
		cpu, worked = cpu+t.over.cpu-t.begun.cpu, worked+t.over.at.Sub(t.begun.at)
		for _, x := range endedIn(all, t) {
			n++
			if !x.ended.Add(-x.took).Before(t.begun.at) {
				whole = append(whole, x)
			}
		}
	}
	if 2*counted < len(turns) || len(whole) == 0 {
		return sample{}, errTooShort
	}
	took := durations(whole)
	return sample{
		cpu: cpu / time.Duration(n), rate: float64(n) / worked.Seconds(),
		p50: percentile(took, .5), p99: percentile(took, .99),
	}, nil
}

// together is when the last client's first transaction had ended.
func together(all []transaction, clients int) (time.Time, error) {
	begun := map[int]time.Time{}
	for _, x := range all {
		if t, ok := begun[x.client]; !ok || x.ended.Before(t) {
			begun[x.client] = x.ended
		}
	}
	if len(begun) < clients {
		return time.Time{}, errTooShort
	}
	return slices.MaxFunc(slices.Collect(maps.Values(begun)), time.Time.Compare), nil
}

// endedIn returns those that ended in a turn; all are in order of their ends.
func endedIn(all []transaction, t turn) []transaction {
	at := func(x transaction, at time.Time) int { return x.ended.Compare(at) }
	from, _ := slices.BinarySearchFunc(all, t.begun.at, at)
	to, _ := slices.BinarySearchFunc(all, t.over.at, at)
	return all[from:to]
}
