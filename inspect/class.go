package inspect

import "fmt"

// Class is what a statement may do to the database, from the one least
// understood to the one that changes the schema. The zero value is Unknown:
// text nobody classified is never taken for harmless.
type Class uint8

// The classes. TRUNCATE is Write (with its lock mode), LOCK TABLE is Define,
// SELECT … FOR UPDATE and nextval() are Read, CALL and DO are Unknown.
const (
	Unknown Class = iota // could not be classified; may be anything
	Read                 // SELECT, SHOW, EXPLAIN, COPY TO STDOUT, FETCH …
	Session              // SET, LISTEN, DISCARD, PREPARE of a read …
	Control              // BEGIN, COMMIT, SAVEPOINT, COMMIT PREPARED …
	Write                // INSERT, UPDATE, DELETE, MERGE, TRUNCATE, COPY FROM
	Define               // DDL, LOCK TABLE, GRANT, VACUUM, REINDEX …
)

var classNames = [...]string{"unknown", "read", "session", "control", "write", "define"}

// String returns the name used in policies, metrics and docs.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return classNames[Unknown]
}

// ParseClass is the inverse of String.
func ParseClass(s string) (Class, error) {
	for i, n := range classNames {
		if n == s {
			return Class(i), nil
		}
	}
	return Unknown, fmt.Errorf("unknown statement class %q: want one of unknown, read, session, control, write, define", s)
}

// danger orders classes by what a refusal should fear most: a text of several
// statements is as dangerous as its most dangerous part.
var danger = [...]uint8{Unknown: 5, Read: 0, Session: 1, Control: 2, Write: 3, Define: 4}

// Worse returns the more dangerous of two classes; Unknown is the most
// dangerous of all.
func Worse(a, b Class) Class {
	if danger[b] > danger[a] {
		return b
	}
	return a
}
