package catalog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"

	"lockkeeper/inspect"
)

// Config is what catalogs work with.
type Config struct {
	Databases  int               // kept at a time
	Relations  int               // of one database: tables, views, indexes
	Poll       time.Duration     // how often is looked for changes that did not pass here
	FirstWait  time.Duration     // 0: FirstWait
	Parse      inspect.ParseFunc // for the sources of functions; may be nil, then they tell less
	Logger     *slog.Logger
	Registerer prometheus.Registerer // may be nil
	Now        func() time.Time
}

// FirstWait is how long a new session waits for the catalog of a database that
// nobody was in.
const FirstWait = 2 * time.Second

var (
	errClosed = errors.New("the catalogs are closed")
	errFailed = errors.New("the catalog could not be read")
)

// Catalogs are the catalogs of the databases in use.
type Catalogs struct {
	cfg     Config
	metrics *metrics
	ctx     context.Context //nolint:containedctx // ends every database's goroutine in Close
	end     context.CancelFunc
	keeping sync.WaitGroup

	mu     sync.Mutex // guards what follows
	all    map[key]*Database
	full   bool // the limit was reached, and that was logged
	closed bool
}

type key struct{ control, database string }

// New returns catalogs of no database yet. Limits that are zero are the
// smallest that make sense.
func New(cfg Config) *Catalogs {
	cfg.Databases, cfg.Relations, cfg.Poll = max(cfg.Databases, 1), max(cfg.Relations, 1), max(cfg.Poll, minPause)
	if cfg.FirstWait == 0 {
		cfg.FirstWait = FirstWait
	}
	c := &Catalogs{cfg: cfg, all: map[key]*Database{}}
	c.ctx, c.end = context.WithCancel(context.Background())
	c.metrics = newMetrics(cfg.Registerer, c)
	return c
}

// Open begins a session's use of a database's catalog. control is the
// connection string of lockkeeper's login there; without one, or with more
// databases than may be kept, there is no catalog and the session is nil.
// Where nobody was in the database it waits a moment for the catalog, or the
// first statement would be judged without. Callers must Close the session.
func (c *Catalogs) Open(ctx context.Context, server, database, control string) *Session {
	if c == nil || control == "" {
		return nil
	}
	d := c.database(ctx, server, database, control)
	if d == nil {
		return nil
	}
	d.mu.Lock()
	failed := d.failure != ""
	d.mu.Unlock()
	if !failed {
		ctx, cancel := context.WithTimeout(ctx, c.cfg.FirstWait)
		defer cancel()
		_ = d.await(ctx, func(v *view) bool { return v != nil && v.fresh }) // without it names have to do
	}
	return &Session{d: d}
}

// database returns a database that is kept, with one more session in it.
func (c *Catalogs) database(ctx context.Context, server, name, control string) *Database { //nolint:contextcheck // its goroutine outlives the session
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	k := key{control, name}
	d, ok := c.all[k]
	if !ok {
		if len(c.all) >= c.cfg.Databases && !c.evict() {
			c.refuse(ctx)
			return nil
		}
		c.full = false
		d = newDatabase(c, server, name, control)
		c.all[k] = d
		var own context.Context
		own, d.end = context.WithCancel(c.ctx)
		c.keeping.Go(func() { d.keep(own) })
	}
	d.acquire()
	return d
}

// refuse counts a session that has no catalog because of the limit. The mutex
// is held.
func (c *Catalogs) refuse(ctx context.Context) {
	c.metrics.refused.Inc()
	if !c.full {
		c.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "more databases are in use than limits.catalog_databases: in the others statements are judged by the names in their text")
	}
	c.full = true
}

// evict forgets a database that nobody is in. The mutex is held.
func (c *Catalogs) evict() bool {
	for k, d := range c.all {
		if d.retire() {
			delete(c.all, k)
			return true
		}
	}
	return false
}

// States describes every catalog there is, by name.
func (c *Catalogs) States() []State {
	if c == nil {
		return []State{}
	}
	out := make([]State, 0, c.cfg.Databases)
	for _, d := range c.list() {
		out = append(out, d.state())
	}
	slices.SortFunc(out, func(a, b State) int {
		return strings.Compare(a.Server+"\x00"+a.Database, b.Server+"\x00"+b.Database)
	})
	return out
}

func (c *Catalogs) list() []*Database {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]*Database, 0, len(c.all))
	for _, d := range c.all {
		out = append(out, d)
	}
	return out
}

// Refresh reads the catalogs of every database in use now.
func (c *Catalogs) Refresh(ctx context.Context) error {
	var errs []error
	for _, d := range c.list() {
		if d.state().Sessions > 0 {
			errs = append(errs, d.Refresh(ctx))
		}
	}
	return errors.Join(errs...)
}

// Resolve returns the batch with what its relations lead to in the database of
// that name, for people who ask, and says from where that is known; the same
// one where there is no catalog of it.
func (c *Catalogs) Resolve(database string, b *inspect.Batch) (resolved *inspect.Batch, known string) {
	if c == nil {
		return b, ""
	}
	for _, d := range c.list() {
		if d.name == database {
			return d.view.Load().resolve(b), d.state().Words(c.cfg.Now())
		}
	}
	return b, "as in the text: no catalog of database " + database + " is kept, for nobody is in it, or its server has no control login"
}

// Look is Resolve without Catalogs: it reads the catalog of the database that a
// connection string names, once, and says which that is. Of cfg it needs
// Relations, Parse and Now.
func Look(ctx context.Context, connString string, cfg *Config, b *inspect.Batch) (resolved *inspect.Batch, database, known string, err error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	conn, err := connect(ctx, connString, "")
	if err != nil {
		return nil, "", "", err
	}
	defer func() { _ = conn.Close(ctx) }() // it is of no further use, whatever this says
	now := cfg.Now()
	snap, err := load(ctx, conn, &loading{limit: cfg.Relations, now: now, parse: cfg.Parse})
	if err != nil {
		return nil, "", "", errors.New(explain(err))
	}
	state := State{Database: conn.Config().Database, Relations: snap.Relations, Taken: now, Fresh: true}
	return (&view{snap: snap, fresh: true}).resolve(b), state.Database, state.Words(cfg.Now()), nil
}

// Close ends every connection.
func (c *Catalogs) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.end()
	c.keeping.Wait()
}

// State is what there is of one database's catalog.
type State struct {
	Server    string    `json:"server"`
	Database  string    `json:"database"`
	Sessions  int       `json:"sessions"`
	Relations int       `json:"relations"`
	Functions int       `json:"functions"`      // names of user's functions and operators; 0, too, where there are too many
	Taken     time.Time `json:"taken,omitzero"` // of the snapshot; zero where there is none
	Fresh     bool      `json:"fresh"`          // it was compared with the database a moment ago
	Error     string    `json:"error,omitempty"`
}

// Words says what there is.
func (s State) Words(now time.Time) string {
	words := "as in the text: the catalog of database " + s.Database + " was not read yet"
	if !s.Taken.IsZero() {
		words = fmt.Sprintf("%d relations of database %s, read %s ago", s.Relations, s.Database, now.Sub(s.Taken).Round(time.Second))
		if !s.Fresh {
			words += ", not compared since"
		}
	}
	if s.Error != "" {
		words += ": " + s.Error
	}
	return words
}

// connect opens lockkeeper's own connection to a database; to the one that the
// connection string names where database is "". Statements on it are short and
// cannot write.
func connect(ctx context.Context, control, database string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(control)
	if err != nil {
		return nil, errControl // the parser's error holds the string, with the password in it
	}
	if database != "" {
		cfg.Database = database
	}
	cfg.ConnectTimeout = connectTimeout
	for name, value := range map[string]string{
		"application_name": "lockkeeper catalog", "search_path": "pg_catalog", "default_transaction_read_only": "on",
		"statement_timeout": statementTimeout, "lock_timeout": lockTimeout, "client_encoding": "UTF8",
	} {
		cfg.RuntimeParams[name] = value
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to read the catalogs: %w", err)
	}
	return conn, nil
}

var errControl = errors.New("the connection string is not one that libpq would take")

// explain says in words why a catalog was not read, and what to do.
func explain(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch e.Code {
		case "42501":
			return "permission denied: GRANT CONNECT ON DATABASE to the control login's role (" + e.Code + ")"
		case "28P01", "28000":
			return "the server refuses the control login: check its password and pg_hba.conf (" + e.Code + ")"
		default:
			return e.Message + " (" + e.Code + ")"
		}
	}
	return err.Error()
}
