package inspect

import (
	"slices"
	"strings"
)

// Kind is the statement's name as PostgreSQL's command tag has it: "SELECT",
// "UPDATE", "ALTER TABLE". Source: src/include/tcop/cmdtaglist.h.
type Kind string

// The kinds that the proxy itself acts on.
const (
	KindBegin              Kind = "BEGIN"
	KindStart              Kind = "START TRANSACTION"
	KindCommit             Kind = "COMMIT"
	KindRollback           Kind = "ROLLBACK"
	KindSavepoint          Kind = "SAVEPOINT"
	KindRelease            Kind = "RELEASE"
	KindRollbackTo         Kind = "ROLLBACK TO" // its tag is ROLLBACK, its effect is not
	KindPrepareTransaction Kind = "PREPARE TRANSACTION"
	KindCommitPrepared     Kind = "COMMIT PREPARED"
	KindRollbackPrepared   Kind = "ROLLBACK PREPARED"
	KindSelect             Kind = "SELECT"
	KindInsert             Kind = "INSERT"
	KindUpdate             Kind = "UPDATE"
	KindDelete             Kind = "DELETE"
	KindMerge              Kind = "MERGE"
	KindTruncate           Kind = "TRUNCATE TABLE"
	KindCopyFrom           Kind = "COPY FROM" // its tag is COPY
	KindCopyTo             Kind = "COPY TO"   // its tag is COPY
	KindSet                Kind = "SET"       // SET, RESET and SET TRANSACTION alike are told apart by Statement.Set
	KindReset              Kind = "RESET"
	KindShow               Kind = "SHOW"
	KindPrepare            Kind = "PREPARE"
	KindExecute            Kind = "EXECUTE"
	KindDeallocate         Kind = "DEALLOCATE"
	KindDiscard            Kind = "DISCARD"
	KindLockTable          Kind = "LOCK TABLE"
	KindCall               Kind = "CALL"
	KindDo                 Kind = "DO"
)

// Access is what a statement does with one relation; a set of bits.
type Access uint16

// The accesses.
const (
	AccessRead     Access = 1 << iota
	AccessLockRows        // SELECT … FOR UPDATE / SHARE
	AccessInsert
	AccessUpdate
	AccessDelete
	AccessTruncate
	AccessDefine // DDL on it, or LOCK TABLE
	AccessRename // ALTER TABLE … RENAME TO: what guards it by its name no longer does; AccessDefine besides

	AccessWrite = AccessInsert | AccessUpdate | AccessDelete | AccessTruncate
)

var accessNames = []struct {
	bit  Access
	name string
}{
	{AccessRead, "read"},
	{AccessLockRows, "lock rows"},
	{AccessInsert, "insert"},
	{AccessUpdate, "update"},
	{AccessDelete, "delete"},
	{AccessTruncate, "truncate"},
	{AccessDefine, "define"},
	{AccessRename, "rename"},
}

// String lists the accesses, as in "read, update".
func (a Access) String() string {
	var names []string
	for _, n := range accessNames {
		if a&n.bit != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, ", ")
}

// LockMode is a table-level lock mode, weakest first, as in the manual's
// section 13.3.1; NoLock is zero.
type LockMode uint8

// The lock modes.
const (
	NoLock LockMode = iota
	AccessShare
	RowShare
	RowExclusive
	ShareUpdateExclusive
	Share
	ShareRowExclusive
	Exclusive
	AccessExclusive
)

var lockNames = [...]string{
	"", "ACCESS SHARE", "ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE",
	"SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE",
}

// String returns the manual's name of the mode.
func (m LockMode) String() string {
	if int(m) < len(lockNames) {
		return lockNames[m]
	}
	return lockNames[AccessExclusive]
}

// Relation is one table, view or sequence that a statement names, and what it
// does with it. Schema is empty when the text does not qualify the name.
// Names are as PostgreSQL folds them (lower case unless quoted).
type Relation struct {
	Schema, Name string
	Access       Access
	Bound        Bound    // of the UPDATE, DELETE, MERGE or TRUNCATE on it
	Rows         int      // for BoundKeyed: at most this many rows, as far as the text shows; 0 elsewhere
	Lock         LockMode // the table lock that DDL or LOCK TABLE takes on it; NoLock for queries and DML but TRUNCATE
	Rewrite      bool     // DDL that rewrites the whole table under its lock, as far as the text shows
	Only         bool     // ONLY: not the tables that inherit from it
	Needs        *Needs   // what a catalog can tell more about; nil where it cannot
	Via          string   // what leads to it where the text does not name it: "view v"; "" where it does
	Size         *Size    // of a table that is written or defined; nil where no catalog tells
}

// Size is how large a table was when VACUUM or ANALYZE last looked. It is for
// people: nothing is decided by it.
type Size struct {
	Bytes int64 // with TOAST and partitions, without indexes
	Rows  int64
}

// Needs is what the text leaves to a catalog. It is immutable.
type Needs struct {
	Keys    []string   // BoundKeyed holds if each of these is a key by itself; BoundPredicate would be BoundKeyed then
	NotNull [][]string // BoundPredicate is BoundVacuous if all columns of one of these are NOT NULL
	Sets    []string   // columns that UPDATE sets; nil is not known
	Strays  []Column   // BoundPredicate is BoundVacuous if one of these tables has no such column: the name is the target's own then
}

// Column is a column that the text takes for a table's.
type Column struct{ Schema, Table, Name string }

// Hidden is a set of bits: what a statement may do that its kind does not say.
type Hidden uint16

// What may be hidden.
const (
	HiddenCTEWrite   Hidden = 1 << iota // data-modifying WITH
	HiddenExplain                       // EXPLAIN ANALYZE runs its statement
	HiddenPrepared                      // PREPARE carries a statement; EXECUTE runs the one called Name, also in EXPLAIN ANALYZE and CREATE TABLE AS
	HiddenCursor                        // DECLARE CURSOR
	HiddenCopyQuery                     // COPY (query) TO
	HiddenCreateAs                      // CREATE TABLE AS, SELECT INTO
	HiddenBlock                         // DO: a block in some language
	HiddenCall                          // CALL of a procedure
	HiddenFunction                      // calls a function, or an operator, that is not a built-in one without effects
	HiddenRowLock                       // SELECT … FOR UPDATE and friends
	HiddenServerSide                    // what a READ ONLY transaction does not stop: files and programs of the server, large objects, replication slots, connections of its own
	HiddenSettings                      // may change settings (set_config, a SET clause)
	HiddenTrigger                       // a table that it changes has triggers of the user's; only a catalog tells
)

// Setting describes SET and RESET in all their forms.
type Setting struct {
	Name  string // lower case; "transaction_read_only" and the like for SET TRANSACTION modes; "all" for RESET ALL
	Local bool   // SET LOCAL or SET TRANSACTION
	Value string // as text when the statement shows a constant; "" for DEFAULT and RESET
	Reset bool   // RESET, or SET … TO DEFAULT
}

// Statement holds the facts about one SQL statement. It is immutable and
// shared between sessions.
type Statement struct {
	Class     Class // the most dangerous thing that it may do: a SELECT with a data-modifying CTE is Write
	Kind      Kind
	Relations []Relation // every relation that the text names, written ones first; no duplicates
	Bound     Bound      // the widest of its Relations' bounds
	Hidden    Hidden

	Start, Len int // where it stands in the text, in bytes, without the semicolon; Len 0 means to the end. Both are 0 for a text of one query, or of one statement about a savepoint

	NoBlock      bool // cannot run inside a transaction block (PreventInTransactionBlock in the server)
	Concurrently bool // CONCURRENTLY: waits for transactions by design, never gets a lock_timeout

	// Read-write or read-only mode that BEGIN, START TRANSACTION or SET
	// TRANSACTION asks for; Chain is COMMIT or ROLLBACK … AND CHAIN.
	AsksReadWrite, AsksReadOnly, Chain bool

	Calls []Call // of functions, and of operators that are not built in, as far as the text or what it leads to names them; no duplicates

	Set      *Setting   // for KindSet and KindReset; nil elsewhere
	Name     string     // savepoint (unless its name was drawn by chance: lex.IsDrawn), prepared statement (PREPARE, EXECUTE, DEALLOCATE: "" is ALL), cursor, channel, setting (SHOW), a relation's new name, or schema.name of the procedure that CALL names
	Prepared *Statement // what PREPARE prepares; nil elsewhere

	Why string // why the class is Unknown; "" otherwise

	// Plain is set for a change of rows in which nothing of a user's can run,
	// as far as the text shows: one table, constants, comparisons, now(). It
	// rests on names meaning what they mean in PostgreSQL itself, and on Columns
	// being columns of the table.
	Plain   bool
	Columns []string
}

// WaitsFor reports whether the statement, as DDL, may wait for its lock on one
// of its relations, and can give up without harm. A table that it only reads
// is such a relation: whoever waits for that lock may hold others already.
//
// CONCURRENTLY is not, which waits by design and leaves an invalid index behind
// when it is stopped. Nor are VACUUM and ANALYZE in their plain forms: they
// block no reader or writer, not even while they wait, and may run for hours.
// Nor is LOCK TABLE as pg_dump sends it and as queries lock.
func (s *Statement) WaitsFor(rel *Relation) bool {
	switch {
	case rel == nil || s.Concurrently:
		return false
	case s.Kind == "VACUUM" || s.Kind == "ANALYZE":
		return rel.Lock > ShareUpdateExclusive
	case s.Class == Define && s.Kind != KindLockTable && rel.Access&AccessRead != 0:
		return true
	default:
		return rel.Lock >= ShareUpdateExclusive
	}
}

// Writes reports whether the statement may change rows or schema, as far as
// its text shows: everything but Read, Session and Control.
func (s *Statement) Writes() bool {
	return s.Class == Unknown || s.Class == Write || s.Class == Define
}

// MayWrite reports whether the statement writes, or a catalog knows that a
// function which it calls may.
func (s *Statement) MayWrite() bool { return s.Writes() || s.calls(CallMissing, CallVolatile) }

// CallsVolatile reports whether the statement calls a function that may write,
// as far as anybody knows: a name that was not looked up may be such a
// function's.
func (s *Statement) CallsVolatile() bool { return s.calls(CallUnknown, CallMissing, CallVolatile) }

func (s *Statement) calls(effects ...CallEffect) bool {
	for i := range s.Calls {
		if slices.Contains(effects, s.Calls[i].Effect) {
			return true
		}
	}
	return false
}

// Batch is what one Query or Parse message held: its statements in order, or
// why it could not be read. It is immutable and shared between sessions.
type Batch struct {
	Statements  []Statement  // empty for an empty query
	Class       Class        // the most dangerous of the statements'; Read for an empty query, Unknown when Why is set
	Why         string       // why the text was not classified (parser error, too long …); "" when it was
	Fingerprint *Fingerprint // nil when unknown

	// Costly is set where reading the text would keep a server's process busy
	// for long, deaf to signals: it is refused whatever the policy says.
	Costly bool

	// NoPositions is set where another form of the text was parsed: Start
	// and Len of all statements are zero, and nobody can cut the text.
	NoPositions bool

	// FromTokens is set where the grammar did not take the text, so that facts
	// were read from the tokens: more than they say is promised by none.
	FromTokens bool

	// SlowTree is set where the parser read the text's tree the slow way: it
	// holds more than queries do. The parser tells the Inspector, which takes
	// it out.
	SlowTree bool

	// Fleeting is set where the batch was made for one message: nobody will
	// ask about it again.
	Fleeting bool

	// Constants are those of the text's constants whose content the facts
	// depend on; nil where that is not known. The parser tells the Inspector,
	// which takes it out.
	Constants []Constant

	// Words are the identifier-like words of a text whose class is Unknown,
	// folded to lower case and sorted. nil means "any word may occur" there.
	Words []string
}

// Mentions reports whether name (a relation's, without schema) may occur in
// the text. For a classified batch it is exact; for a batch whose class is
// Unknown (DO and CALL included) it errs to true.
func (b *Batch) Mentions(name string) bool {
	for i := range b.Statements {
		for j := range b.Statements[i].Relations {
			if b.Statements[i].Relations[j].Name == name {
				return true
			}
		}
	}
	if b.Class != Unknown {
		return false
	}
	return b.Words == nil || !isWord(name) || contains(b.Words, strings.ToLower(name))
}

// isWord reports whether name is one that Words would hold for certain.
func isWord(name string) bool {
	for i := range len(name) {
		if !isWordByte(name[i]) || name[i] >= 0x80 {
			return false
		}
	}
	return name != "" && (name[0] < '0' || name[0] > '9') && name[0] != '$'
}

// NewUnknown returns the batch for a text that could not be classified.
func NewUnknown(why string, words []string) *Batch {
	return &Batch{Class: Unknown, Why: why, Words: words}
}
