package pgquery

import (
	pg "github.com/pganalyze/pg_query_go/v5"

	"lockkeeper/inspect"
)

// objectNames are what command tags call objects. Source:
// AlterObjectTypeCommandTag and the DROP cases of CreateCommandTag in
// src/backend/tcop/utility.c.
var objectNames = map[pg.ObjectType]string{
	pg.ObjectType_OBJECT_ACCESS_METHOD:   "ACCESS METHOD",
	pg.ObjectType_OBJECT_AGGREGATE:       "AGGREGATE",
	pg.ObjectType_OBJECT_ATTRIBUTE:       "TYPE",
	pg.ObjectType_OBJECT_CAST:            "CAST",
	pg.ObjectType_OBJECT_COLLATION:       "COLLATION",
	pg.ObjectType_OBJECT_COLUMN:          "TABLE",
	pg.ObjectType_OBJECT_CONVERSION:      "CONVERSION",
	pg.ObjectType_OBJECT_DATABASE:        "DATABASE",
	pg.ObjectType_OBJECT_DOMAIN:          "DOMAIN",
	pg.ObjectType_OBJECT_DOMCONSTRAINT:   "DOMAIN",
	pg.ObjectType_OBJECT_EVENT_TRIGGER:   "EVENT TRIGGER",
	pg.ObjectType_OBJECT_EXTENSION:       "EXTENSION",
	pg.ObjectType_OBJECT_FDW:             "FOREIGN DATA WRAPPER",
	pg.ObjectType_OBJECT_FOREIGN_SERVER:  "SERVER",
	pg.ObjectType_OBJECT_FOREIGN_TABLE:   "FOREIGN TABLE",
	pg.ObjectType_OBJECT_FUNCTION:        "FUNCTION",
	pg.ObjectType_OBJECT_INDEX:           "INDEX",
	pg.ObjectType_OBJECT_LANGUAGE:        "LANGUAGE",
	pg.ObjectType_OBJECT_LARGEOBJECT:     "LARGE OBJECT",
	pg.ObjectType_OBJECT_MATVIEW:         "MATERIALIZED VIEW",
	pg.ObjectType_OBJECT_OPCLASS:         "OPERATOR CLASS",
	pg.ObjectType_OBJECT_OPERATOR:        "OPERATOR",
	pg.ObjectType_OBJECT_OPFAMILY:        "OPERATOR FAMILY",
	pg.ObjectType_OBJECT_POLICY:          "POLICY",
	pg.ObjectType_OBJECT_PROCEDURE:       "PROCEDURE",
	pg.ObjectType_OBJECT_PUBLICATION:     "PUBLICATION",
	pg.ObjectType_OBJECT_ROLE:            "ROLE",
	pg.ObjectType_OBJECT_ROUTINE:         "ROUTINE",
	pg.ObjectType_OBJECT_RULE:            "RULE",
	pg.ObjectType_OBJECT_SCHEMA:          "SCHEMA",
	pg.ObjectType_OBJECT_SEQUENCE:        "SEQUENCE",
	pg.ObjectType_OBJECT_STATISTIC_EXT:   "STATISTICS",
	pg.ObjectType_OBJECT_SUBSCRIPTION:    "SUBSCRIPTION",
	pg.ObjectType_OBJECT_TABCONSTRAINT:   "TABLE",
	pg.ObjectType_OBJECT_TABLE:           "TABLE",
	pg.ObjectType_OBJECT_TABLESPACE:      "TABLESPACE",
	pg.ObjectType_OBJECT_TRANSFORM:       "TRANSFORM",
	pg.ObjectType_OBJECT_TRIGGER:         "TRIGGER",
	pg.ObjectType_OBJECT_TSCONFIGURATION: "TEXT SEARCH CONFIGURATION",
	pg.ObjectType_OBJECT_TSDICTIONARY:    "TEXT SEARCH DICTIONARY",
	pg.ObjectType_OBJECT_TSPARSER:        "TEXT SEARCH PARSER",
	pg.ObjectType_OBJECT_TSTEMPLATE:      "TEXT SEARCH TEMPLATE",
	pg.ObjectType_OBJECT_TYPE:            "TYPE",
	pg.ObjectType_OBJECT_USER_MAPPING:    "USER MAPPING",
	pg.ObjectType_OBJECT_VIEW:            "VIEW",
}

// tag returns verb and object as a command tag has them.
func tag(verb string, object pg.ObjectType) inspect.Kind {
	name, ok := objectNames[object]
	if !ok {
		return inspect.Kind(verb)
	}
	return inspect.Kind(verb + " " + name)
}

// isRelation reports whether objects of this type are in pg_class.
func isRelation(object pg.ObjectType) bool {
	return map[pg.ObjectType]bool{
		pg.ObjectType_OBJECT_TABLE:         true,
		pg.ObjectType_OBJECT_FOREIGN_TABLE: true,
		pg.ObjectType_OBJECT_VIEW:          true,
		pg.ObjectType_OBJECT_MATVIEW:       true,
		pg.ObjectType_OBJECT_SEQUENCE:      true,
		pg.ObjectType_OBJECT_INDEX:         true,
	}[object]
}

// isOnRelation reports whether objects of this type belong to a table, and
// are named by the table's name and their own.
func isOnRelation(object pg.ObjectType) bool {
	return map[pg.ObjectType]bool{
		pg.ObjectType_OBJECT_COLUMN:        true,
		pg.ObjectType_OBJECT_TABCONSTRAINT: true,
		pg.ObjectType_OBJECT_TRIGGER:       true,
		pg.ObjectType_OBJECT_RULE:          true,
		pg.ObjectType_OBJECT_POLICY:        true,
	}[object]
}
