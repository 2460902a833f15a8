package inspect

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lockkeeper/inspect/lex"
)

// Limits bound what inspection may cost. Zero means the default.
type Limits struct {
	CacheBytes int64         // facts kept, with their texts
	ParseSlots int           // texts being parsed at a time; each may cost 400 bytes of memory a token, see pgquery.Bounds
	ParseBytes int           // the longest text given to the parser, after long runs were cut out of it
	ParseWait  time.Duration // for a slot; then the text is Unknown

	CommentNesting int // levels of comments in comments; deeper ones would keep the server busy, see Batch.Costly
}

// The reasons why an Inspector gives a text to no parser; Batch.Why begins
// with one of them or with ParserReason.
const (
	ReasonLexing   = "text that this session's settings make ambiguous"
	ReasonTooLong  = "longer than the limit for parsing"
	ReasonBusy     = "parser busy"
	ReasonCanceled = "inspection cancelled"
	ReasonNesting  = "comments nested deeper than the limit"
	ReasonRescans  = "runs of operator characters that the server reads again and again"

	// ParserReason is how a ParseFunc begins the reason for a text that it
	// could not parse.
	ParserReason = "parser: "
)

// maxRescans bounds what the server's lexer reads again in one text, in bytes:
// a second's work or so.
const maxRescans = 1 << 28

// slowParse is how long a parse may take before it is counted as slow.
const slowParse = time.Second

// DefaultLimits returns the limits in force where none are set.
func DefaultLimits() Limits {
	return Limits{CacheBytes: 64 << 20, ParseSlots: 4, ParseBytes: 1 << 20, ParseWait: 5 * time.Second, CommentNesting: 64}
}

// withDefaults returns l with the default in place of every zero.
func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	if l.CacheBytes == 0 {
		l.CacheBytes = d.CacheBytes
	}
	if l.ParseSlots == 0 {
		l.ParseSlots = d.ParseSlots
	}
	if l.ParseBytes == 0 {
		l.ParseBytes = d.ParseBytes
	}
	if l.ParseWait == 0 {
		l.ParseWait = d.ParseWait
	}
	if l.CommentNesting == 0 {
		l.CommentNesting = d.CommentNesting
	}
	return l
}

// Validate says which limits cannot be.
func (l Limits) Validate() error {
	var errs []error
	if l.CacheBytes < 0 {
		errs = append(errs, fmt.Errorf("cache_bytes: %d is negative", l.CacheBytes))
	}
	if l.ParseSlots < 0 {
		errs = append(errs, fmt.Errorf("parse_slots: %d is negative", l.ParseSlots))
	}
	if l.ParseBytes < 0 {
		errs = append(errs, fmt.Errorf("parse_bytes: %d is negative", l.ParseBytes))
	}
	if l.ParseWait < 0 {
		errs = append(errs, fmt.Errorf("parse_wait: %s is negative", l.ParseWait))
	}
	if l.CommentNesting < 0 {
		errs = append(errs, fmt.Errorf("comment_nesting: %d is negative", l.CommentNesting))
	}
	return errors.Join(errs...)
}

// Inspector turns texts into batches: from its cache at once, by the parser
// in a bounded number of slots. It is safe for concurrent use.
type Inspector struct {
	limits    Limits
	parse     ParseFunc
	cache     *cache
	keys      keys // what a look at the cache needs
	flights   flights
	shortener shortener
	slots     chan struct{}
	metrics   *metrics
}

// NewInspector returns an inspector that uses parse for texts that it does
// not know. Limits that Validate refuses count as zero. reg may be nil.
func NewInspector(l Limits, parse ParseFunc, reg prometheus.Registerer) *Inspector {
	if l.Validate() != nil {
		l = Limits{}
	}
	l = l.withDefaults()
	i := &Inspector{
		limits:    l,
		parse:     parse,
		cache:     newCache(l.CacheBytes),
		flights:   flights{under: make(map[uint64]chan struct{})},
		shortener: shortener{seed: maphash.MakeSeed()},
		slots:     make(chan struct{}, l.ParseSlots),
	}
	i.metrics = newMetrics(reg, i)
	return i
}

// Lookup returns what is known of the text already, or nil: then Inspect is
// to be asked, away from the hot path. It does not allocate and does not keep
// text.
func (i *Inspector) Lookup(text []byte, how Lexing) *Batch {
	if how.differs(text) {
		return nil
	}
	b := i.find(text)
	if b == nil {
		i.metrics.misses.Add(1)
		return nil
	}
	i.metrics.hits.Add(1)
	if b.FromTokens || b.Why != "" {
		i.metrics.count(b)
	}
	return b
}

// Inspect returns the facts about a text. It may wait for a parse slot, for a
// bounded time, and it never returns nil: a text that was not parsed, for
// whatever reason, comes back as Unknown. It does not keep text.
func (i *Inspector) Inspect(ctx context.Context, text []byte, how Lexing) *Batch {
	b := i.inspect(ctx, text, how)
	i.metrics.count(b)
	return b
}

func (i *Inspector) inspect(ctx context.Context, text []byte, how Lexing) *Batch {
	if !how.differs(text) {
		return i.standard(ctx, text)
	}
	if how.Uncertain {
		if why := i.gauge(how).add(text); why != "" {
			return &Batch{Class: Unknown, Why: why, Costly: true}
		}
		return NewUnknown(ReasonLexing, nil)
	}
	same := how.standard(text)
	b := i.standard(ctx, same)
	if len(same) != len(text) {
		return b.withoutPositions()
	}
	return b
}

// find returns what is kept of a text, or nil. It does not allocate.
func (i *Inspector) find(text []byte) *Batch {
	if len(text) > i.cacheable() {
		return nil
	}
	if e := i.cache.front.text(text); e != nil {
		return e.batch
	}
	e := i.cache.front.fitting(text)
	if e != nil && len(e.depends) == 0 {
		return e.batch
	}
	k := i.keys.get(text)
	if e == nil {
		k.read(i, text)
	} else {
		k.fill(e.template, text)
	}
	b := i.cache.find(k, text)
	i.keys.put(k, text)
	return b
}

// cacheable is the length up to which texts are kept: they go to the parser
// as they are.
func (i *Inspector) cacheable() int { return min(MaxCachedText, i.limits.ParseBytes) }

// keep keeps what was found out about a text.
func (i *Inspector) keep(text []byte, b *Batch, constants []Constant) {
	if len(text) > i.cacheable() {
		i.metrics.unshaped(unshapedLong).Inc()
		return
	}
	k := i.keys.get(text)
	k.read(i, text)
	if !i.cache.keep(k, text, b, constants) {
		i.metrics.unshaped(unshapedReason(k.why)).Inc()
	}
	i.keys.put(k, text)
}

// standard is inspect for a text that reads as the parser reads it. Sessions
// that ask for texts of one shape at a time wait for one of them to parse.
func (i *Inspector) standard(ctx context.Context, text []byte) *Batch {
	ctx, cancel := context.WithTimeoutCause(ctx, i.limits.ParseWait, errBusy)
	defer cancel()
	for range maxFlights {
		if b := i.find(text); b != nil {
			return b
		}
		done, other := i.flights.begin(i.flightOf(text))
		if other == nil {
			defer done()
			return i.read(ctx, text)
		}
		i.metrics.shared.Inc()
		select {
		case <-other:
		case <-ctx.Done():
			return NewUnknown(reasonOf(ctx), WordsOf(text))
		}
	}
	return i.read(ctx, text)
}

// read is standard for a text of which nothing is known.
func (i *Inspector) read(ctx context.Context, text []byte) *Batch {
	if why := i.tooCostly(lex.CostOf(text)); why != "" {
		return &Batch{Class: Unknown, Why: why, Costly: true}
	}
	short := text
	if len(text) > i.limits.ParseBytes {
		short = i.shortener.shorten(text)
	}
	if len(short) > i.limits.ParseBytes {
		return NewUnknown(ReasonTooLong, WordsOf(text))
	}
	if why := i.acquire(ctx); why != "" {
		return NewUnknown(why, WordsOf(text))
	}
	b := i.parseInSlot(string(short))
	constants := b.Constants
	b.Constants = nil
	if len(short) != len(text) {
		return b.withoutPositions()
	}
	i.keep(text, b, constants)
	return b
}

// tooCostly says why a text of that cost would keep whoever reads it busy; ""
// if it would not. Time is what is limited: 20 kB of nested comments cost the
// server's lexer four seconds, and it hears no signal meanwhile.
func (i *Inspector) tooCostly(cost lex.Cost) (why string) {
	switch {
	case cost.Nesting > i.limits.CommentNesting:
		return ReasonNesting
	case cost.Rescans > maxRescans:
		return ReasonRescans
	default:
		return ""
	}
}

// acquire takes a parse slot, or says why there is none.
func (i *Inspector) acquire(ctx context.Context) (why string) {
	select {
	case i.slots <- struct{}{}:
		return ""
	default:
	}
	select {
	case i.slots <- struct{}{}:
		return ""
	case <-ctx.Done():
		return reasonOf(ctx)
	}
}

// errBusy is the cause of a context that ended because the parser was busy.
var errBusy = errors.New(ReasonBusy)

func reasonOf(ctx context.Context) string {
	if errors.Is(context.Cause(ctx), errBusy) {
		return ReasonBusy
	}
	return ReasonCanceled
}

func (i *Inspector) parseInSlot(text string) *Batch {
	defer func() { <-i.slots }()
	timer := prometheus.NewTimer(i.metrics.seconds)
	b := i.parse(text)
	if timer.ObserveDuration() > slowParse {
		i.metrics.slow.Inc()
	}
	if b.SlowTree {
		b.SlowTree = false
		i.metrics.slowTrees.Inc()
	}
	return b
}

// withoutPositions returns b for a text that was parsed in another form:
// where its statements stand in it is not known.
func (b *Batch) withoutPositions() *Batch {
	c := *b
	c.NoPositions = true
	c.Statements = make([]Statement, len(b.Statements))
	copy(c.Statements, b.Statements)
	for i := range c.Statements {
		c.Statements[i].Start, c.Statements[i].Len = 0, 0
	}
	return &c
}
