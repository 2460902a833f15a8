package policy

import (
	"slices"
	"strings"

	"lockkeeper/inspect"
)

// commandTags are the kinds that a rule may name besides those of
// kindsByAccess: PostgreSQL's command tags, and what inspect tells apart where
// the tag does not. Source: src/include/tcop/cmdtaglist.h. A list, and not any
// word, so that a misspelt kind is an error and not a rule that never matches.
const commandTags = `
ALTER ACCESS METHOD, ALTER AGGREGATE, ALTER CAST, ALTER COLLATION, ALTER CONSTRAINT, ALTER CONVERSION,
ALTER DATABASE, ALTER DEFAULT PRIVILEGES, ALTER DOMAIN, ALTER EVENT TRIGGER, ALTER EXTENSION,
ALTER FOREIGN DATA WRAPPER, ALTER FOREIGN TABLE, ALTER FUNCTION, ALTER INDEX, ALTER LANGUAGE,
ALTER LARGE OBJECT, ALTER MATERIALIZED VIEW, ALTER OPERATOR, ALTER OPERATOR CLASS, ALTER OPERATOR FAMILY,
ALTER POLICY, ALTER PROCEDURE, ALTER PUBLICATION, ALTER ROLE, ALTER ROUTINE, ALTER RULE, ALTER SCHEMA,
ALTER SEQUENCE, ALTER SERVER, ALTER STATISTICS, ALTER SUBSCRIPTION, ALTER SYSTEM, ALTER TABLE,
ALTER TABLESPACE, ALTER TEXT SEARCH CONFIGURATION, ALTER TEXT SEARCH DICTIONARY, ALTER TEXT SEARCH PARSER,
ALTER TEXT SEARCH TEMPLATE, ALTER TRANSFORM, ALTER TRIGGER, ALTER TYPE, ALTER USER MAPPING, ALTER VIEW,
ANALYZE, BEGIN, CALL, CHECKPOINT, CLOSE, CLOSE CURSOR, CLOSE CURSOR ALL, CLUSTER, COMMENT, COMMIT,
COMMIT PREPARED, COPY FROM, COPY TO,
CREATE ACCESS METHOD, CREATE AGGREGATE, CREATE CAST, CREATE COLLATION, CREATE CONSTRAINT, CREATE CONVERSION,
CREATE DATABASE, CREATE DOMAIN, CREATE EVENT TRIGGER, CREATE EXTENSION, CREATE FOREIGN DATA WRAPPER,
CREATE FOREIGN TABLE, CREATE FUNCTION, CREATE INDEX, CREATE LANGUAGE, CREATE MATERIALIZED VIEW,
CREATE OPERATOR, CREATE OPERATOR CLASS, CREATE OPERATOR FAMILY, CREATE POLICY, CREATE PROCEDURE,
CREATE PUBLICATION, CREATE ROLE, CREATE ROUTINE, CREATE RULE, CREATE SCHEMA, CREATE SEQUENCE, CREATE SERVER,
CREATE STATISTICS, CREATE SUBSCRIPTION, CREATE TABLE, CREATE TABLE AS, CREATE TABLESPACE,
CREATE TEXT SEARCH CONFIGURATION, CREATE TEXT SEARCH DICTIONARY, CREATE TEXT SEARCH PARSER,
CREATE TEXT SEARCH TEMPLATE, CREATE TRANSFORM, CREATE TRIGGER, CREATE TYPE, CREATE USER MAPPING, CREATE VIEW,
DEALLOCATE, DEALLOCATE ALL, DECLARE CURSOR, DISCARD, DISCARD ALL, DISCARD PLANS, DISCARD SEQUENCES,
DISCARD TEMP, DO,
DROP ACCESS METHOD, DROP AGGREGATE, DROP CAST, DROP COLLATION, DROP CONSTRAINT, DROP CONVERSION,
DROP DATABASE, DROP DOMAIN, DROP EVENT TRIGGER, DROP EXTENSION, DROP FOREIGN DATA WRAPPER,
DROP FOREIGN TABLE, DROP FUNCTION, DROP INDEX, DROP LANGUAGE, DROP MATERIALIZED VIEW, DROP OPERATOR,
DROP OPERATOR CLASS, DROP OPERATOR FAMILY, DROP OWNED, DROP POLICY, DROP PROCEDURE, DROP PUBLICATION,
DROP ROLE, DROP ROUTINE, DROP RULE, DROP SCHEMA, DROP SEQUENCE, DROP SERVER, DROP STATISTICS,
DROP SUBSCRIPTION, DROP TABLE, DROP TABLESPACE, DROP TEXT SEARCH CONFIGURATION, DROP TEXT SEARCH DICTIONARY,
DROP TEXT SEARCH PARSER, DROP TEXT SEARCH TEMPLATE, DROP TRANSFORM, DROP TRIGGER, DROP TYPE,
DROP USER MAPPING, DROP VIEW,
EXECUTE, EXPLAIN, FETCH, FUNCTION CALL, GRANT, GRANT ROLE, IMPORT FOREIGN SCHEMA, LISTEN, LOAD, LOCK TABLE, MERGE, MOVE,
NOTIFY, PREPARE, PREPARE TRANSACTION, REASSIGN OWNED, REFRESH MATERIALIZED VIEW, REINDEX, RELEASE, RESET,
REVOKE, REVOKE ROLE, ROLLBACK, ROLLBACK PREPARED, ROLLBACK TO, SAVEPOINT, SECURITY LABEL, SELECT,
SELECT FOR KEY SHARE, SELECT FOR NO KEY UPDATE, SELECT FOR SHARE, SELECT FOR UPDATE, SELECT INTO, SET,
SET CONSTRAINTS, SHOW, START TRANSACTION, UNLISTEN, VACUUM`

// kindSet is what a rule's kinds mean: accesses for the words that say what
// happens to rows, wherever in the statement that is hidden, and command tags
// for everything else.
type kindSet struct {
	access  inspect.Access
	tags    []inspect.Kind
	written []string // as configured, for people; empty is every kind
}

// accessOfKind returns the access that a kind stands for; 0 for a tag.
func accessOfKind(word string) inspect.Access {
	switch word {
	case "INSERT":
		return inspect.AccessInsert
	case "UPDATE":
		return inspect.AccessUpdate
	case "DELETE":
		return inspect.AccessDelete
	case "TRUNCATE", "TRUNCATE TABLE":
		return inspect.AccessTruncate
	case "RENAME TABLE":
		return inspect.AccessRename
	default:
		return 0
	}
}

// add adds one word of a policy's kinds; false when there is no such kind.
func (k *kindSet) add(word string) bool {
	tag := strings.Join(strings.Fields(strings.ToUpper(word)), " ")
	access := accessOfKind(tag)
	switch {
	case access != 0:
		k.access |= access
	case tag == "LOCK":
		k.tags = append(k.tags, inspect.KindLockTable)
	case tag == "COPY":
		k.tags = append(k.tags, inspect.KindCopyFrom, inspect.KindCopyTo)
	case isCommandTag(tag):
		k.tags = append(k.tags, inspect.Kind(tag))
	default:
		return false
	}
	k.written = append(k.written, word)
	return true
}

func isCommandTag(tag string) bool {
	for known := range strings.SplitSeq(commandTags, ",") {
		if strings.TrimSpace(known) == tag {
			return true
		}
	}
	return false
}

func (k *kindSet) empty() bool { return len(k.written) == 0 }

// matches reports whether the statement does one of the kinds to the
// relation. rel is nil for a statement that names none.
func (k *kindSet) matches(s *inspect.Statement, rel *inspect.Relation) bool {
	if rel != nil && rel.Access&k.access != 0 {
		return true
	}
	if !slices.Contains(k.tags, s.Kind) {
		return false
	}
	// A MERGE reads its source: only its target is merged into.
	return s.Kind != inspect.KindMerge || rel == nil || rel.Access&inspect.AccessWrite != 0
}
