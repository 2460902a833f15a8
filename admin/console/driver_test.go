package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"lockkeeper/admin/api"
	"lockkeeper/proxy/wire"
)

// listening serves a console on a port of its own and returns how ann logs in.
func listening(t *testing.T) string {
	t.Helper()
	keys, err := api.NewKeyring([]api.Token{{Name: "ann", Role: "viewer", Token: secretToken}})
	if err != nil {
		t.Fatal(err)
	}
	c := New(Deps{Database: "lockkeeper", Keys: keys, Logger: slog.New(slog.DiscardHandler), Now: time.Now, Version: "9"})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serveOne(ctx, c, conn)
		}
	}()
	t.Cleanup(func() { cancel(); l.Close(); <-done })
	host, port, _ := net.SplitHostPort(l.Addr().String())
	return fmt.Sprintf("host=%s port=%s user=ann password=%s dbname=lockkeeper sslmode=disable", host, port, secretToken)
}

// serveOne serves clients one after the other.
func serveOne(ctx context.Context, c *Console, conn net.Conn) {
	defer conn.Close()
	length := make([]byte, 4)
	if _, err := io.ReadFull(conn, length); err != nil {
		return
	}
	size, _, err := wire.StartupSize(length)
	if err != nil {
		return
	}
	packet := make([]byte, size)
	copy(packet, length)
	if _, err := io.ReadFull(conn, packet[4:]); err != nil {
		return
	}
	startup, err := wire.DecodeStartup(packet)
	if err == nil {
		_ = c.ServeConsole(ctx, conn, startup, false)
	}
}

func TestPgxInTheSimpleProtocol(t *testing.T) {
	conn, err := pgx.Connect(t.Context(), listening(t)+" default_query_exec_mode=simple_protocol")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var version string
	if err := conn.QueryRow(t.Context(), "SHOW VERSION").Scan(&version); err != nil || version != "lockkeeper 9" {
		t.Errorf("%q, %v", version, err)
	}
	var name string
	var size, used, free, total int64
	if err := conn.QueryRow(t.Context(), "SHOW MEM").Scan(&name, &size, &used, &free, &total); err != nil || total == 0 {
		t.Errorf("%s %d, %v", name, total, err)
	}
}

// A driver that insists on the extended protocol is told so, and can go on.
func TestPgxInTheExtendedProtocol(t *testing.T) {
	conn, err := pgx.Connect(t.Context(), listening(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for range 2 {
		_, err = conn.Exec(t.Context(), "SELECT $1::text", "x")
		if pgErr, ok := errors.AsType[*pgconn.PgError](err); !ok || pgErr.Code != "08P01" || pgErr.Hint == "" {
			t.Errorf("%v", err)
		}
	}
	if err := conn.Ping(t.Context()); err != nil { // an empty query
		t.Error(err)
	}
}
