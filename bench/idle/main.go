// Command idle measures what idle sessions cost lockkeeper's memory, against a fake server.
//
// It starts lockkeeper, a fake server and the clients as a process each, opens
// sessions in steps, and prints RSS and PSS of lockkeeper as a Markdown table.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/jackc/pgx/v5/pgproto3"

	"lockkeeper/internal/pgtest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "idle:", err)
		os.Exit(1)
	}
}

// habit is what clients do besides being there.
type habit string

const (
	quiet          habit = "TCP"
	afterStatement habit = "TCP, after a statement of 12 kB with a result of 40 kB"
	overTLS        habit = "TLS"
)

// The engines; sessions with TLS always run on goroutines.
const (
	goroutines = "goroutines"
	poll       = "poll"
)

// measurement is what is done with one lockkeeper.
type measurement struct {
	steps  string // numbers of sessions
	habit  habit
	engine string
}

const (
	statementBytes = 12_000
	resultBytes    = 40_000
)

// The roles that a process may have: the first argument, none for who starts
// the others.
const (
	serverRole  = "server"
	clientsRole = "clients"
)

func run(ctx context.Context, args []string, out io.Writer) error {
	switch {
	case len(args) == 1 && args[0] == serverRole:
		return serve(ctx, os.Stdin, out)
	case len(args) == 3 && args[0] == clientsRole:
		return connect(ctx, args[1], habit(args[2]), os.Stdin, out)
	}
	flags := flag.NewFlagSet("idle", flag.ContinueOnError)
	plain := flags.String("sessions", "0,1000,9000", "sessions without TLS, in steps")
	used := flags.String("used", "0,1000,9000", "sessions without TLS that have run a statement, in steps")
	secured := flags.String("tls", "0,1000", "sessions with TLS, in steps")
	program := flags.String("lockkeeper", "bin/lockkeeper", "the program")
	page := flags.String("page", "", "the file that the table is written to, in place of standard output")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var b bytes.Buffer
	b.WriteString(head)
	for _, m := range []measurement{
		{*plain, quiet, goroutines},
		{*plain, quiet, poll},
		{*used, afterStatement, goroutines},
		{*used, afterStatement, poll},
		{*secured, overTLS, goroutines},
	} {
		if m.steps == "" {
			continue
		}
		if err := m.take(ctx, &b, *program); err != nil {
			return fmt.Errorf("%s, engine %s: %w", m.habit, m.engine, err)
		}
	}
	if *page != "" {
		return os.WriteFile(*page, b.Bytes(), 0o644) //nolint:gosec // a page for everybody
	}
	_, err := b.WriteTo(out)
	return err
}

const head = `<!-- Written by "make idle"; do not edit. -->

# What idle sessions cost

The memory of one lockkeeper process whose sessions do nothing, each with its server connection, against a fake server; clients and
server are processes of their own. RSS and PSS are read from /proc a while after the last login. Buffers of the kernel's sockets are
not in it.

| clients | engine | idle sessions | RSS, MiB | PSS, MiB | bytes for each (RSS) | goroutines |
|---|---|---|---|---|---|---|
`

// serve is a fake server: it says where it listens, logs everybody in, and
// answers nothing more. It ends with its standard input.
func serve(ctx context.Context, until io.Reader, out io.Writer) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintln(out, l.Addr())
	go acceptAll(l)
	_, err = io.Copy(io.Discard, until)
	return err
}

func acceptAll(l net.Listener) {
	var fake pgtest.Fake
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go idle(&fake, c)
	}
}

func idle(fake *pgtest.Fake, c net.Conn) {
	defer func() { _ = c.Close() }() // the other side is gone
	if fake.Login(c) != nil {
		return
	}
	for b := pgproto3.NewBackend(c, c); ; {
		m, err := b.Receive()
		if err != nil {
			return
		}
		if _, ok := m.(*pgproto3.Query); !ok {
			continue
		}
		b.Send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("r"), DataTypeOID: 25, DataTypeSize: -1}}})
		b.Send(&pgproto3.DataRow{Values: [][]byte{bytes.Repeat([]byte("r"), resultBytes)}})
		b.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		if b.Flush() != nil {
			return
		}
	}
}

// connect opens as many sessions as each line of in says, and answers with a
// line when they are there.
func connect(ctx context.Context, addr string, h habit, in io.Reader, out io.Writer) error {
	var all []net.Conn
	for lines := bufio.NewScanner(in); lines.Scan(); {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			return err
		}
		more, err := open(ctx, addr, h, n-len(all))
		if err != nil {
			return err
		}
		all = append(all, more...)
		fmt.Fprintln(out, len(all))
	}
	return nil
}

const atATime = 16 // logins

func open(ctx context.Context, addr string, h habit, n int) ([]net.Conn, error) {
	all, errs := make([]net.Conn, n), make([]error, n)
	var group sync.WaitGroup
	places := make(chan struct{}, atATime)
	for i := range n {
		places <- struct{}{}
		group.Go(func() {
			all[i], errs[i] = session(ctx, addr, h)
			<-places
		})
	}
	group.Wait()
	return all, errors.Join(errs...)
}

// session logs in and does what its habit is.
func session(ctx context.Context, addr string, h habit) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if h == overTLS {
		if c, err = encrypt(ctx, c); err != nil {
			return nil, err
		}
	}
	fe := pgproto3.NewFrontend(c, c)
	fe.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber, Parameters: map[string]string{"user": "idle", "database": "idle"}})
	if err := exchange(fe); err != nil || h != afterStatement {
		return c, err
	}
	fe.Send(&pgproto3.Query{String: "select '" + strings.Repeat("q", statementBytes) + "'"})
	return c, exchange(fe)
}

// exchange sends what was collected and reads up to ReadyForQuery.
func exchange(fe *pgproto3.Frontend) error {
	if err := fe.Flush(); err != nil {
		return err
	}
	for {
		m, err := fe.Receive()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *pgproto3.ErrorResponse:
			return errors.New(m.Message)
		case *pgproto3.ReadyForQuery:
			return nil
		}
	}
}

func encrypt(ctx context.Context, c net.Conn) (net.Conn, error) {
	if _, err := c.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil {
		return nil, err
	}
	answer := make([]byte, 1)
	if _, err := io.ReadFull(c, answer); err != nil {
		return nil, err
	}
	if answer[0] != 'S' {
		return nil, errors.New("no TLS")
	}
	t := tls.Client(c, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the certificate was made a moment ago
	return t, t.HandshakeContext(ctx)
}

// take starts the three processes and prints a line for each step.
func (m measurement) take(ctx context.Context, out io.Writer, program string) (err error) {
	dir, err := os.MkdirTemp("", "lockkeeper-idle-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	server, err := child(ctx, os.Args[0], serverRole)
	if err != nil {
		return err
	}
	defer server.end()
	behind, err := server.line()
	if err != nil {
		return err
	}
	g, err := startGuard(ctx, program, dir, behind, m)
	if err != nil {
		return err
	}
	defer g.end()
	clients, err := child(ctx, os.Args[0], clientsRole, g.addr, string(m.habit))
	if err != nil {
		return err
	}
	defer clients.end()
	return m.walk(ctx, out, g, clients)
}

func (m measurement) walk(ctx context.Context, out io.Writer, g *guard, clients *process) error {
	var empty usage
	for step := range strings.SplitSeq(m.steps, ",") {
		n, err := strconv.Atoi(step)
		if err != nil {
			return err
		}
		if _, err := clients.ask(step); err != nil {
			return fmt.Errorf("open %d sessions: %w\n%s", n, err, g.log())
		}
		now, err := g.settled(ctx, n)
		if err != nil {
			return err
		}
		each := "–"
		if n == 0 {
			empty = now
		} else if empty.rss > 0 {
			each = strconv.Itoa((now.rss - empty.rss) / n)
		}
		fmt.Fprintf(out, "| %s | %s | %d | %.1f | %.1f | %s | %d |\n", m.habit, m.engine, n, mib(now.rss), mib(now.pss), each, now.goroutines)
	}
	return nil
}

func mib(bytes int) float64 { return float64(bytes) / (1 << 20) }

// process is a child that speaks by lines. It ends with its standard input.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func child(ctx context.Context, program string, args ...string) (*process, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &process{cmd: cmd, in: in, out: bufio.NewScanner(out)}, cmd.Start()
}

func (p *process) line() (string, error) {
	if !p.out.Scan() {
		return "", errors.Join(errors.New("it ended"), p.out.Err())
	}
	return p.out.Text(), nil
}

func (p *process) ask(line string) (string, error) {
	if _, err := fmt.Fprintln(p.in, line); err != nil {
		return "", err
	}
	return p.line()
}

func (p *process) end() {
	_ = p.in.Close()
	_ = p.cmd.Wait() // it has nothing to say
}
