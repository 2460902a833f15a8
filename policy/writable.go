package policy

import (
	"fmt"
	"slices"
	"strings"

	"lockkeeper/inspect"
)

// MaxWritable bounds the tables that may be written during read-only.
const MaxWritable = 64

// publicSchema is where a writable table is that is named without a schema.
const publicSchema = "public"

// CheckWritable says what is wrong with the name of a table that may be written
// during read-only; "" when nothing is. Such names stand in SQL of lockkeeper's
// own, and each is one table: no patterns.
func CheckWritable(name string) string {
	schema, table := writableName(name)
	for _, part := range []string{schema, table} {
		if part == "" || len(part) > maxNameBytes || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" || part[0] >= '0' && part[0] <= '9' {
			return fmt.Sprintf("table %q: write table or schema.table, in lower-case letters, digits and _", name)
		}
	}
	if strings.HasPrefix(schema, "pg_") || schema == "information_schema" {
		return fmt.Sprintf("table %q: a table of PostgreSQL's own cannot be writable in read-only", name)
	}
	return ""
}

func writableName(name string) (schema, table string) {
	schema, table, qualified := strings.Cut(name, ".")
	if !qualified {
		return publicSchema, schema
	}
	return schema, table
}

// WritableTables returns the tables that read-only lets be written where the
// operator does not say.
func (p *Policy) WritableTables() []string { return slices.Clone(p.writable) }

// PlainWrite is a change of one table that read-only lets through, provided
// that the server says two things: that Name stands for the table of that name
// in one of the Schemas, and that nothing of a user's runs when it is written.
type PlainWrite struct {
	Schema, Name string   // as the text has it; Schema may be ""
	Schemas      []string // sorted
	Columns      []string // have to be the table's
}

// writable returns the schemas in which the containment lets a table of that
// name be written.
func (c *Containment) writable(name string) []string {
	var schemas []string
	for _, w := range c.Writable {
		if schema, table := writableName(w); table == name {
			schemas = append(schemas, schema)
		}
	}
	return schemas
}

// LetsWrite reports whether the containment lets all of the tables be written.
func (c *Containment) LetsWrite(tables []string) bool {
	return !slices.ContainsFunc(tables, func(t string) bool {
		schema, table := writableName(t)
		return !slices.Contains(c.writable(table), schema)
	})
}

// plainWrite returns what a batch changes, if that is all that it does and all
// read-only containments in force let it be written; nil otherwise.
func (s *Snapshot) plainWrite(r *Request) *PlainWrite {
	if len(r.Batch.Statements) != 1 || r.Batch.NoPositions {
		return nil
	}
	st := &r.Batch.Statements[0]
	if !st.Plain || st.Hidden != 0 || len(st.Relations) == 0 {
		return nil
	}
	target := &st.Relations[0]
	w := &PlainWrite{Schema: target.Schema, Name: target.Name, Columns: st.Columns}
	for i := range st.Relations {
		rel := &st.Relations[i]
		schemas := s.writableSchemas(r, rel)
		if rel.Access&inspect.AccessWrite == 0 || len(schemas) == 0 || i > 0 && rel.Via == "" {
			return nil
		}
		if i == 0 {
			w.Schemas = schemas
		}
	}
	return w
}

// writableSchemas returns the schemas in which all read-only containments in
// force let the relation be written.
func (s *Snapshot) writableSchemas(r *Request, rel *inspect.Relation) []string {
	var all []string
	first := true
	for i := range s.Containments {
		c := &s.Containments[i]
		if !c.inForce(ReadOnlyMode, r.Subject, r.Now) {
			continue
		}
		schemas := c.writable(rel.Name)
		if first {
			all, first = schemas, false
		}
		all = slices.DeleteFunc(all, func(x string) bool {
			return !slices.Contains(schemas, x) || rel.Schema != "" && rel.Schema != x
		})
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// notPlain says of a write that is refused, although its table may be written,
// why; "" of all others.
func (s *Snapshot) notPlain(r *Request, fence bool) string {
	for i := range r.Batch.Statements {
		for j := range r.Batch.Statements[i].Relations {
			rel := &r.Batch.Statements[i].Relations[j]
			if fence && rel.Via == "" && rel.Access&inspect.AccessWrite != 0 && len(s.writableSchemas(r, rel)) > 0 {
				return " The table may be written, but only by an INSERT of values, an UPDATE, a DELETE or a COPY FROM STDIN that is sent alone and " +
					"has nothing in it but constants, columns, comparisons and now(), where nothing else follows from it."
			}
		}
	}
	return ""
}

// PlainWriteRefusal is said to a change of a table that may be written where
// the server does not agree that it is plain, and to one that comes when the
// transaction is READ ONLY already.
func (s *Snapshot) PlainWriteRefusal(c *Containment, b *inspect.Batch, why string) *Refusal {
	if c == nil || s.Policy == nil {
		return s.ServerReadOnlyRefusal(c)
	}
	st := &b.Statements[0]
	return s.Policy.readOnlyRefusal(c, deed(st, worst(st)), "The table may be written, but "+why+".")
}

// SavepointPrefix begins the names of savepoints of lockkeeper's own.
const SavepointPrefix = "lockkeeper_"

// takesOurName reports whether a statement is about a savepoint whose name is
// lockkeeper's own.
func takesOurName(s *inspect.Statement) bool {
	switch s.Kind {
	case inspect.KindSavepoint, inspect.KindRelease, inspect.KindRollbackTo:
		return strings.HasPrefix(s.Name, SavepointPrefix)
	default:
		return false
	}
}
